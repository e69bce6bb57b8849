"""The audit trail is sealed: what was changed, removed or reordered shows, and so does what is not sealed."""

import asyncio
import hmac
import time
from hashlib import sha256
from typing import Any

import msgspec
import pytest

from api.commands.maintenance import verify_seals
from persistence.audit_chain import MAX_SEALED_EVENTS, SEALED_COLUMNS, Key, seal
from persistence.audit_verification import TAIL, Report
from persistence.postgres.database import Database
from tests.support.factories import World, chart
from tests.support.service import KEY, Backend, Service

pytestmark = pytest.mark.slow

OURS = Key.of(KEY)


def verified(backend: Backend, noted_head: str | None = None, keys: list[Key] | None = None) -> Report:
    return asyncio.run(verify_seals(backend.database_url, keys or [OURS], noted_head))


def seal_now(backend: Backend, key: Key = OURS) -> int:
    async def run() -> int:
        database = Database(backend.database_url)
        try:
            async with database.transaction() as transaction:
                return await seal(transaction, key)
        finally:
            await database.close()

    return asyncio.run(run())


@pytest.fixture(scope="module")
def original(populated: tuple[Backend, dict[str, dict[str, str]], float]) -> Backend:
    """A database with some sealed events, on which no service runs any more."""
    backend = populated[0].copy()
    with Service(backend, backend.settings()) as service:
        staff = service.browser(populated[1]["staff"])
        for _ in range(3):
            assert staff.post("/api/patients", chart()).status_code == 201
        for _ in range(5):
            assert staff.get("/api/patients").status_code == 200
    seal_now(backend)
    return backend


@pytest.fixture
def sealed(original: Backend) -> Backend:
    """A copy of it, to damage."""
    copied = original.copy()
    assert verified(copied).problems == []
    return copied


def test_the_service_seals_within_seconds(world: World, backend: Backend) -> None:
    """Committed events are chained within 5 s; no timing is asserted beyond that it happens by itself."""
    world.staff.get("/api/patients")
    for _ in range(100):
        if verified(backend).unsealed == 0:
            break
        time.sleep(0.1)
    report = verified(backend)
    assert report.unsealed == 0
    assert report.sealed > 0
    assert report.problems == []


def test_an_undamaged_trail_verifies(sealed: Backend) -> None:
    report = verified(sealed)
    assert report.sealed == sealed.sql("SELECT count(*) FROM audit_events")[0][0]
    assert report.unsealed == 0


def test_sealed_is_the_json_of_every_column(sealed: Backend) -> None:
    """So what earlier releases have sealed verifies in this one. What this one seals verifies in them where
    no event vouches for rows, which they do not know."""
    columns = ", ".join(column.name for column in SEALED_COLUMNS if column.name != "content")
    events = sealed.sql(f"SELECT {columns} FROM audit_events ORDER BY id")
    digests = {
        hmac.digest(OURS.secret, msgspec.json.encode(list(event.values())), sha256) for event in events
    }
    stored = sealed.sql("SELECT unnest(digests) AS digest FROM audit_seals")
    assert any(len(event["target_ids"]) > 0 for event in events)
    assert {row["digest"] for row in stored} == digests


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ("UPDATE audit_events SET email = 'someone@else.example' WHERE id = 3", "event 3 is changed"),
        ("UPDATE audit_events SET at = at - interval '1 hour' WHERE id = 3", "event 3 is changed"),
        (
            "UPDATE audit_events SET patient_ids = '{}', target_ids = '{}', outcome = 'x' WHERE id = 4",
            "event 4",
        ),
        ("DELETE FROM audit_events WHERE id = 3", "event 3 is removed"),
        (
            "UPDATE audit_events a SET user_id = b.user_id, email = b.email, action = b.action, at = b.at, "
            "target_id = b.target_id, role = b.role FROM audit_events b "
            "WHERE (a.id, b.id) IN ((2, 12), (12, 2))",
            "event 2 is changed",
        ),
        ("UPDATE audit_seals SET event_ids = event_ids[2:] WHERE number = 1", "seal 1 does not follow"),
        (
            "UPDATE audit_seals SET event_ids[1] = event_ids[2], event_ids[2] = event_ids[1]",
            "seal 1 does not follow",
        ),
        ("DELETE FROM audit_seals WHERE number = 1", "seals 1 to 1 are missing"),
    ],
)
def test_verification_reports_each_kind_of_damage(damage: str, complaint: str, sealed: Backend) -> None:
    sealed.sql(damage)
    problems = verified(sealed).problems
    assert any(complaint in problem for problem in problems), problems


def test_a_forged_event_stays_unsealed_or_is_sealed_as_what_it_is(sealed: Backend) -> None:
    """Inserting is what the application may do; a row that it did not seal is reported as tail."""
    before = verified(sealed)
    sealed.sql(
        "INSERT INTO audit_events (at, action, outcome, target_ids, patient_ids, address, request_id) "
        "VALUES (now(), 'patient.read', 'success', '{}', '{}', 'x', gen_random_uuid())"
    )
    assert verified(sealed).unsealed == before.unsealed + 1


def test_a_noted_head_shows_that_the_newest_seals_were_removed(sealed: Backend) -> None:
    head = verified(sealed).head
    assert verified(sealed, head).problems == []
    sealed.sql("DELETE FROM audit_seals WHERE number = (SELECT max(number) FROM audit_seals)")
    assert any("noted head" in problem for problem in verified(sealed, head).problems)


def test_nothing_can_be_sealed_anew_without_the_key(sealed: Backend) -> None:
    sealed.sql("DELETE FROM audit_seals")
    assert seal_now(sealed, Key.of("a guess of somebody who has the database only")) > 0
    assert any("under a key that was not given" in problem for problem in verified(sealed).problems)


def test_a_new_key_continues_the_chain(sealed: Backend) -> None:
    """AUDIT_KEY may change: old seals are verified under the old key, which the operator still gives."""
    other = Key.of("another key of the operator, thirty-two bytes")
    sealed.sql(
        "INSERT INTO audit_events (at, action, outcome, target_ids, patient_ids, address, request_id) "
        "VALUES (now(), 'patient.read', 'success', '{}', '{}', 'x', gen_random_uuid())"
    )
    assert seal_now(sealed, other) == 1
    assert verified(sealed, keys=[OURS, other]).problems == []
    assert verified(sealed, keys=[other]).problems != []


def test_a_row_committed_late_is_sealed_too(sealed: Backend) -> None:
    """Ids are given out before the commit: a lower one can appear after a higher one was sealed."""
    insert = (
        "INSERT INTO audit_events (at, action, outcome, target_ids, patient_ids, address, request_id) "
        "VALUES (now(), 'patient.read', 'success', '{}', '{}', 'x', gen_random_uuid())"
    )

    async def run() -> Any:
        import asyncpg

        slow, fast = await asyncpg.connect(sealed.database_url), await asyncpg.connect(sealed.database_url)
        transaction = slow.transaction()
        await transaction.start()
        await slow.execute(insert)
        await fast.execute(insert)
        database = Database(sealed.database_url)
        async with database.transaction() as sealing:
            first = await seal(sealing, OURS)
        await transaction.commit()
        async with database.transaction() as sealing:
            second = await seal(sealing, OURS)
        await database.close()
        await slow.close()
        await fast.close()
        return first, second

    first, second = asyncio.run(run())
    assert first + second == 2
    report = verified(sealed)
    assert (report.unsealed, report.problems) == (0, [])


def write(backend: Backend, count: int = 1, xid: int | None = None) -> None:
    """Store events in one transaction, or as that transaction had stored them."""
    backend.sql(
        "INSERT INTO audit_events (at, action, outcome, target_ids, patient_ids, address, request_id, xid) "
        "SELECT now(), 'patient.read', 'success', '{}', '{}', 'x', gen_random_uuid(), "
        "coalesce($2, pg_current_xact_id()::text::bigint) FROM generate_series(1, $1)",
        count,
        xid,
    )


def next_xid(backend: Backend) -> int:
    return int(backend.sql("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")[0][0])


def spend(backend: Backend, transactions: int) -> None:
    """Let the server's count of transactions go on."""
    backend.sql(
        f"DO $$ BEGIN FOR i IN 1..{transactions} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
    )


def restore(backend: Backend, ahead: int) -> int:
    """Make it a database restored from a dump whose server was `ahead` transactions further than this one;
    returns how many that server had counted."""
    counted = next_xid(backend) + ahead
    backend.sql("UPDATE audit_events SET xid = $1 - 1", counted)
    backend.sql("UPDATE audit_seals SET until_xid = $1", counted)
    return counted


def assert_each_event_is_sealed_once(backend: Backend) -> None:
    report = verified(backend)
    assert (report.unsealed, report.problems) == (0, [])
    assert report.sealed == backend.sql("SELECT count(*) FROM audit_events")[0][0]


def test_sealing_goes_on_after_a_restore(sealed: Backend) -> None:
    """What was unsealed at the dump is sealed first, then what is new."""
    counted = restore(sealed, ahead=1_000_000)
    write(sealed, 2, counted)
    write(sealed)
    assert [seal_now(sealed) for _ in range(3)] == [2, 1, 0]
    assert_each_event_is_sealed_once(sealed)
    write(sealed)
    assert seal_now(sealed) == 1
    assert_each_event_is_sealed_once(sealed)


def test_a_restored_tail_longer_than_a_seal_is_sealed(sealed: Backend) -> None:
    counted = restore(sealed, ahead=1_000_000)
    write(sealed, MAX_SEALED_EVENTS, counted)
    write(sealed, 3, counted + 7)
    write(sealed)
    assert [seal_now(sealed) for _ in range(4)] == [MAX_SEALED_EVENTS, 3, 1, 0]
    assert_each_event_is_sealed_once(sealed)


@pytest.mark.parametrize("of_late", [0, 2])
def test_no_restored_event_is_sealed_twice(of_late: int, sealed: Backend) -> None:
    """No restored event is sealed a second time when the server comes to the transaction in it."""
    counted = restore(sealed, ahead=40)
    write(sealed, of_late, counted + 3)
    assert seal_now(sealed) == of_late
    write(sealed)
    assert seal_now(sealed) == 1
    spend(sealed, 100)
    write(sealed)
    assert [seal_now(sealed) for _ in range(2)] == [1, 0]
    assert_each_event_is_sealed_once(sealed)


def test_sealing_goes_on_after_two_restores(sealed: Backend) -> None:
    restore(sealed, ahead=1_000_000)
    write(sealed)
    assert [seal_now(sealed) for _ in range(2)] == [0, 1]
    counted = restore(sealed, ahead=40)
    write(sealed, 2, counted)
    assert seal_now(sealed) == 2
    spend(sealed, 100)
    write(sealed)
    assert [seal_now(sealed) for _ in range(2)] == [1, 0]
    assert_each_event_is_sealed_once(sealed)


def test_a_transaction_with_more_events_than_a_seal_holds_is_sealed_whole(sealed: Backend) -> None:
    """It is sealed whole, and nothing beside it is passed over."""
    first = next_xid(sealed)
    spend(sealed, 5)
    write(sealed, 1, first)
    write(sealed, MAX_SEALED_EVENTS + 1, first + 1)
    write(sealed, 1, first + 2)
    assert [seal_now(sealed) for _ in range(3)] == [MAX_SEALED_EVENTS + 2, 1, 0]
    assert_each_event_is_sealed_once(sealed)


def test_a_seal_ends_between_two_transactions(sealed: Backend) -> None:
    """A seal ends between two of them."""
    write(sealed, MAX_SEALED_EVENTS - 1)
    write(sealed, 3)
    write(sealed, 2)
    assert [seal_now(sealed) for _ in range(3)] == [MAX_SEALED_EVENTS + 2, 2, 0]
    assert_each_event_is_sealed_once(sealed)


def test_the_tail_of_any_trail_is_found_by_a_join(sealed: Backend) -> None:
    """NOT IN costs the square of the trail once the sealed ids outgrow work_mem, so a large one was never
    verified."""
    plan = "\n".join(row[0] for row in sealed.sql(f"EXPLAIN {TAIL.compiled(()).sql}"))
    assert "Anti Join" in plan
    assert "SubPlan" not in plan


def test_of_many_sealers_at_once_one_seals(sealed: Backend) -> None:
    """Of many at once one seals; the chain has no fork."""
    sealed.sql(
        "INSERT INTO audit_events (at, action, outcome, target_ids, patient_ids, address, request_id) "
        "SELECT now(), 'patient.read', 'success', '{}', '{}', 'x', gen_random_uuid() "
        "FROM generate_series(1, 50)"
    )

    async def run() -> list[int]:
        database = Database(sealed.database_url)

        async def one() -> int:
            async with database.transaction() as transaction:
                return await seal(transaction, OURS)

        counts = await asyncio.gather(*(one() for _ in range(8)))
        await database.close()
        return list(counts)

    assert sum(asyncio.run(run())) == 50
    assert verified(sealed).problems == []
