"""`GET /api/changes`: where somebody stands, and what is too old or of elsewhere."""

import asyncio

import asyncpg
import pytest

from tests.support.client import Browser
from tests.support.factories import World
from tests.support.listening import CHANGES, EVENT_STREAM, Stream, cursor_for, told
from tests.support.service import Backend, Service

PROBLEM = "application/problem+json"


@pytest.mark.parametrize("query", ["since=x", "since=ABC", "since=0123456789ab-14-1.2"])
def test_a_malformed_cursor_is_refused(world: World, query: str) -> None:
    answer = world.staff.get(f"{CHANGES}?{query}", headers={"accept": PROBLEM})
    assert answer.status_code == 400
    fault = {"parameter": "since", "code": "bad_format", "detail": "must be a cursor of this service"}
    assert answer.json()["errors"] == [fault]


def stale(browser: Browser, cursor: str, *, accept: str = PROBLEM, wait: int = 0) -> str:
    """What the refusal says."""
    answer = browser.get(CHANGES, params={"since": cursor, "wait": wait}, headers={"accept": accept})
    assert (answer.status_code, answer.json()["code"]) == (400, "stale_cursor"), answer.text
    return str(answer.json()["detail"])


def test_a_cursor_of_another_database_is_refused(
    world: World, populated: tuple[Backend, object, object]
) -> None:
    """contract: "or of another database"."""
    cursor = cursor_for(world.staff)
    other = populated[0].copy()
    with Service(other, other.settings()) as elsewhere:
        assert "another database" in stale(elsewhere.browser(world.staff.cookies), cursor)
    name, xmax, _ = cursor.split("-")
    with Stream(world.staff):  # so that the process keeps what it has found
        for ahead in (10**8, 10**9, 2**59):  # what else is done on the server counts, too
            forged = f"{name}-{int(xmax, 16) + ahead:x}-"
            for accept, wait in ((PROBLEM, 0), (PROBLEM, 1), (f"{PROBLEM}, {EVENT_STREAM}", 0)):
                assert "another database" in stale(world.staff, forged, accept=accept, wait=wait)


def test_a_cursor_that_is_ahead_of_the_last_poll_is_none_of_the_future(
    world: World, second_instance: Service
) -> None:
    """As whoever was told by one instance asks the other one at once."""
    elsewhere = second_instance.browser(world.staff.cookies)
    with Stream(world.staff), Stream(elsewhere):
        for _ in range(3):
            world.chart()
            cursor = cursor_for(world.staff)
            with Stream(elsewhere, cursor) as stream:
                chart = world.chart()
                assert stream.entries(1) == [("patient", chart["id"], "create")]
            world.chart()
            cursor = cursor_for(world.staff)
            assert told(elsewhere, cursor, wait=1) == []


def test_a_cursor_that_is_older_than_what_is_kept_is_refused(world: World, backend: Backend) -> None:
    """contract: "Changes are kept for a day"."""
    old = cursor_for(world.staff)
    world.chart()
    cursor = cursor_for(world.staff)
    chart = world.chart()
    backend.sql("UPDATE changes SET at = at - interval '1 day' WHERE object_id <> $1", chart["id"])
    backend.sql("SELECT purge_changes()")
    assert "older than what is kept" in stale(world.staff, old)
    assert told(world.staff, cursor) == [("patient", chart["id"], "create")]
    assert [str(row["object_id"]) for row in backend.sql("SELECT object_id FROM changes")] == [chart["id"]]


def test_a_cursor_that_waits_for_an_open_transaction_is_not_too_old(world: World, backend: Backend) -> None:
    """However long that takes: nothing behind it is forgotten."""

    async def run() -> None:
        slow = await asyncpg.connect(backend.database_url)
        transaction = slow.transaction()
        await transaction.start()
        await slow.execute("SELECT pg_current_xact_id()")
        await asyncio.to_thread(forget_all)
        await transaction.rollback()
        await slow.close()

    def forget_all() -> None:
        world.chart()
        cursor = cursor_for(world.staff)
        backend.sql("UPDATE changes SET at = at - interval '1 day'")
        backend.sql("SELECT purge_changes()")
        assert told(world.staff, cursor) == []

    asyncio.run(run())
    backend.sql("SELECT purge_changes()")
    assert backend.sql("SELECT count(*) AS n FROM changes")[0]["n"] == 0


def test_what_a_restored_dump_knows_of_is_told_to_nobody(world: World, backend: Backend) -> None:
    """Its transactions lie ahead; what they are called belongs to others here."""
    cursor = cursor_for(world.staff)
    backend.sql(
        "INSERT INTO changes VALUES (9000000000, 'patient', gen_random_uuid(), 'create', 15, '{}', '{}', "
        "'{}', now())"
    )
    backend.sql("UPDATE change_horizon SET from_xid = 9000000001")
    assert told(world.staff, cursor) == []
    backend.sql("SELECT purge_changes()")
    assert backend.sql("SELECT count(*) AS n FROM changes WHERE xid = 9000000000")[0]["n"] == 0
    assert backend.sql("SELECT from_xid FROM change_horizon")[0]["from_xid"] == 0
    chart = world.chart()
    assert told(world.staff, cursor) == [("patient", chart["id"], "create")]


def test_a_number_that_postgresql_may_give_again_is_in_no_cursor(world: World, backend: Backend) -> None:
    """Of a transaction that has left nothing: where PostgreSQL is killed, another one may get it."""
    world.chart()
    cursor = cursor_for(world.staff)
    for _ in range(3):
        backend.sql("SELECT pg_current_xact_id()")
    assert cursor_for(world.staff) == cursor
    chart = world.chart()
    assert told(world.staff, cursor) == [("patient", chart["id"], "create")]
