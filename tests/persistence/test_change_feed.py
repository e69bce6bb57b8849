"""What a process keeps of changes, and whom it wakes."""

import asyncio
from itertools import count, product
from time import monotonic
from uuid import UUID, uuid4

import pytest

from persistence.change_feed import Batch, ChangeFeed, Listener, SignedInRow
from persistence.changes import BITS, Change, ChangeAct, ChangeNoun, cursor_of_now, of_everybody, read
from persistence.cursors import Cursor
from persistence.postgres.connector import Connector
from persistence.postgres.database import Database, Reader
from persistence.postgres.pool import Pool
from persistence.postgres.replica import Replica
from persistence.snapshots import Position, Snapshot
from security.roles import Caller, Role
from tests.support.factories import World
from tests.support.running import free_port
from tests.support.service import Backend

NOWHERE = f"postgresql://postgres@127.0.0.1:{free_port()}/medisecure"
NAME = "0" * 12
xids = count(100)


def change_of(
    noun: ChangeNoun = ChangeNoun.ABSENCE,
    roles: int = 7,
    accounts: list[UUID] | None = None,
    charts: list[UUID] | None = None,
    doctors: list[UUID] | None = None,
) -> Change:
    """In a transaction of its own."""
    return Change(
        next(xids), noun, uuid4(), ChangeAct.UPDATE, roles, accounts or [], charts or [], doctors or []
    )


def somebody(role: Role) -> Caller:
    return Caller(id=uuid4(), email="somebody@test.example", role=role, session_id=uuid4())


@pytest.fixture
def feed() -> ChangeFeed:
    """That keeps everything from now on."""
    feed = ChangeFeed(Reader(Pool(Connector(NOWHERE, 30), 1)), None)
    feed.keep(NAME, Snapshot(next(xids), ()), [])
    return feed


def keep(feed: ChangeFeed, *found: Change) -> Snapshot:
    """What sees all of them."""
    seen = Snapshot(max(change.xid for change in found) + 1, ())
    feed.keep(NAME, seen, list(found))
    return seen


def test_nobody_looks_through_what_they_were_told(feed: ChangeFeed) -> None:
    with feed.listening(somebody(Role.STAFF), lambda: False) as listener:
        cursor = Cursor(NAME, Position(keep(feed, change_of())))
        feed.batches[0].by_role.clear()  # nobody can look there
        later = [change_of() for _ in range(3)]
        for change in later:
            keep(feed, change)
        found = feed.kept_news(listener, cursor, 10)
        assert found is not None
        assert found.changes == later


def found_chart(listener: Listener, chart: UUID | None) -> None:
    caller = listener.caller
    row = SignedInRow(caller.session_id, caller.id, caller.email, caller.role, chart)
    listener.check(row, listener.checked_at)


def test_a_patient_whose_chart_no_poll_has_looked_up_yet_is_woken_to_read_the_table(feed: ChangeFeed) -> None:
    chart = uuid4()
    of_chart = change_of(ChangeNoun.RECORD, 3, charts=[chart])
    with feed.listening(somebody(Role.PATIENT), lambda: False) as listener:
        keep(feed, of_chart)
        assert listener.woken.is_set()
        for own, is_woken in ((uuid4(), False), (None, False), (chart, True)):
            found_chart(listener, own)
            listener.woken.clear()
            keep(feed, of_chart)
            assert listener.woken.is_set() == is_woken


def test_what_is_told_waits_for_a_replica_that_does_not_answer_no_longer_than_one_may_be_late() -> None:
    reader = Reader(Pool(Connector(NOWHERE, 30), 1))
    replica = Replica(NOWHERE, reader)
    replica.max_lag = 0.2
    began_at = monotonic()
    asyncio.run(ChangeFeed(reader, None, replica).settle())
    assert monotonic() - began_at >= replica.max_lag


def test_what_is_kept_is_told_to_the_same_people_as_what_is_in_the_table(
    world: World, backend: Backend
) -> None:
    browser, chart = world.linked_patient()
    me, own = UUID(browser.me()["id"]), UUID(chart["id"])

    async def run() -> None:
        async with Database(backend.database_url) as database:
            cursor = await cursor_of_now(database.reader)
            for noun, roles, owner in product(
                ChangeNoun, (0, *BITS.values()), ("accounts", "charts", "doctors")
            ):
                owners = [own if owner == "charts" else me, uuid4()]
                note = f"SELECT note_change($1, gen_random_uuid(), 'update', $2, {owner} => $3)"
                await asyncio.to_thread(backend.sql, note, noun, roles, owners)
            _, seen, found = await of_everybody(database.reader, cursor.position.snapshot, 1000)
            for role, id in product(Role, (me, uuid4())):
                caller = Caller(id=id, email="somebody@test.example", role=role, session_id=uuid4())
                told = await read(database.reader, caller, cursor, 1000)
                kept = Batch(found, seen).of(caller, own if id == me else None)
                assert told.changes == sorted(kept, key=lambda change: change.place)

    asyncio.run(run())
