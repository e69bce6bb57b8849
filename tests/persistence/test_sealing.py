"""Sealing cannot be stopped in silence: what the service's own role, which can only append, may try against
it, and what `verify-audit` tells the operator."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from api.commands.checks import find_problem
from api.commands.maintenance import verify_seals
from persistence import audit_chain
from persistence.audit_chain import MAX_SEALED_EVENTS, Key, seal_periodically
from persistence.postgres.database import Database
from tests.support.command import medisecure
from tests.support.locks import WAITING, transaction
from tests.support.service import KEY, Backend

pytestmark = pytest.mark.slow

OURS = Key.of(KEY)
EVENT = (
    "INSERT INTO audit_events (at, action, outcome, target_ids, patient_ids, address, request_id) "
    "SELECT now() - $2 * interval '1 second', 'patient.read', 'success', '{}', '{}', 'x', gen_random_uuid() "
    "FROM generate_series(1, $1)"
)
APPEND = "SELECT append_audit_seal(5000, $1, $2, $3, $4)"
GARBAGE = b"g" * 32


@pytest.fixture(scope="module")
def granted(servers: Backend) -> Iterator[tuple[Backend, str]]:
    """A migrated, empty database, and the role that was granted what the service needs."""
    backend, role = servers.copy(), f"app_{uuid4().hex[:12]}"
    backend.sql(f"CREATE ROLE {role} LOGIN")
    done = medisecure("migrate", "--grant-to", role, DATABASE_URL=backend.database_url)
    assert done.returncode == 0, done.stderr
    yield backend, role
    backend.sql(f"DROP OWNED BY {role}")


@pytest.fixture
def owner(granted: tuple[Backend, str]) -> Backend:
    return granted[0].copy()


@pytest.fixture
def app(granted: tuple[Backend, str], owner: Backend) -> Backend:
    """The same database as the role sees it, with three events, sealed."""
    role = Backend(owner.database_url.replace("postgres@", f"{granted[1]}@", 1), owner.redis_url)
    write(role, 3)
    assert seal(role) == 3
    return role


def write(backend: Backend, count: int = 1, seconds_ago: int = 0) -> None:
    backend.sql(EVENT, count, seconds_ago)


def settle(backend: Backend) -> None:
    """Wait for transactions of the server's own, as autovacuum's, behind which nothing is sealed."""
    [[now]] = backend.sql("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
    while backend.sql("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")[0][0] < now:
        time.sleep(0.05)


def in_database(backend: Backend, work: Callable[[Database], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        database = Database(backend.database_url)
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(run())


def seal(backend: Backend, key: Key = OURS) -> int:
    settle(backend)
    return seal_at_once(backend, key)


def seal_at_once(backend: Backend, key: Key = OURS) -> int:
    async def run(database: Database) -> int:
        async with database.transaction() as sealing:
            return await audit_chain.seal(sealing, key)

    return int(in_database(backend, run))


def append(backend: Backend, number: int, digests: list[bytes], key_id: str = OURS.id) -> bool:
    """What somebody without the key can say to the function."""
    settle(backend)
    return bool(backend.sql(APPEND, number, digests, key_id, GARBAGE)[0][0])


def verified(backend: Backend, *arguments: str, **keys: str) -> tuple[int, str]:
    """(exit status, all that it says) of `medisecure verify-audit`."""
    settings = {"DATABASE_URL": backend.database_url, **(keys or {"SECRET_KEY": KEY})}
    done = medisecure("verify-audit", *arguments, **settings)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO audit_seals VALUES (2, '{}', 9000000000000000000, '{}', '', '', now())",
        "INSERT INTO audit_seals (number, event_ids, until_xid, digests, key_id, mac) "
        "VALUES (9000000000000000000, '{}', 0, '{}', '', '')",
        "DELETE FROM audit_seals",
        "UPDATE audit_seals SET mac = ''",
        "LOCK TABLE audit_seals IN ROW EXCLUSIVE MODE",
        "LOCK TABLE audit_events IN SHARE MODE",
        "ALTER FUNCTION append_audit_seal SECURITY INVOKER",
        "DROP FUNCTION append_audit_seal",
        # an event in a transaction that never comes, or has long been, and one above all others
        "INSERT INTO audit_events (at, action, outcome, target_ids, patient_ids, address, request_id, xid) "
        "VALUES (now(), 'x', 'x', '{}', '{}', '', gen_random_uuid(), 9000000000000000000)",
        "INSERT INTO audit_events (id, at, action, outcome, target_ids, patient_ids, address, request_id) "
        "OVERRIDING SYSTEM VALUE "
        "VALUES (9000000000000000000, now(), 'x', 'x', '{}', '{}', '', gen_random_uuid())",
    ],
)
def test_the_services_role_may_not_change_trail_or_seals(statement: str, app: Backend) -> None:
    with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.GeneratedAlwaysError)):
        app.sql(f"DO $$ BEGIN {statement}; END $$" if statement.startswith("LOCK") else statement)
    write(app)
    assert seal(app) == 1
    assert verified(app)[0] == 0


@pytest.mark.parametrize(
    "values",
    [
        "'4000-01-01 BC', 'x', '{}', ''",
        "'12000-01-01', 'x', '{}', ''",
        "'infinity', 'x', '{}', ''",
        "now(), repeat('x', 100000), '{}', ''",
        "now(), 'x', array_fill(gen_random_uuid(), ARRAY[100000]), ''",
    ],
)
def test_the_role_adds_no_event_that_a_sealer_cannot_read(values: str, app: Backend) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        app.sql(
            "INSERT INTO audit_events (at, action, target_ids, address, outcome, patient_ids, request_id) "
            f"VALUES ({values}, 'x', '{{}}', gen_random_uuid())"
        )
    write(app)
    assert seal(app) == 1


def test_garbage_by_the_function_shows_as_damage_and_stops_nothing(app: Backend) -> None:
    write(app, 2)
    assert append(app, 2, [GARBAGE, GARBAGE])
    write(app, 4)
    assert [seal(app), seal(app)] == [4, 0]
    status, said = verified(app)
    assert status == 1
    assert "DAMAGED: seal 2 does not follow from the one before" in said
    assert "DAMAGED: event 4 is changed" in said
    assert "seal 3 " not in said
    assert "9 events in 3 seals" in said
    assert "0 events in the unsealed tail" in said


def test_garbage_under_a_key_that_nobody_has_stops_nothing_either(app: Backend) -> None:
    write(app)
    assert append(app, 2, [GARBAGE], key_id="0123456789abcdef")
    write(app)
    assert seal(app) == 1
    status, said = verified(app)
    assert status == 3
    assert "NOT CHECKED: 1 seals, 2 to 2, are under a key that was not given (0123456789abcdef)" in said
    assert "never yours are forged" in said


def test_the_seal_function_refuses_what_is_not_the_next_seal(app: Backend) -> None:
    """A seal over anything but the next events, or one that is no seal."""
    assert not append(app, 2, [])  # there is nothing to seal
    write(app, 2)
    assert not append(app, 1, [GARBAGE, GARBAGE])
    assert not append(app, 9_000_000_000_000_000_000, [GARBAGE, GARBAGE])
    assert not append(app, 2, [GARBAGE])
    assert not append(app, 2, [GARBAGE, b""])
    assert not append(app, 2, [GARBAGE, GARBAGE], key_id="")
    for most in ("0", "-1", "NULL"):
        with pytest.raises(asyncpg.RaiseError):
            app.sql(f"SELECT append_audit_seal({most}, 2, '{{}}', '', '')")
    assert app.sql("SELECT count(*) FROM audit_seals")[0][0] == 1
    assert seal(app) == 2
    assert verified(app)[0] == 0


def test_the_callers_own_tables_do_not_stand_in_for_ours(app: Backend) -> None:
    async def run() -> bool:
        connection = await asyncpg.connect(app.database_url)
        await connection.execute(
            "SET search_path = pg_temp, public; "
            "CREATE TEMP TABLE audit_seals (LIKE public.audit_seals); "
            "CREATE TEMP TABLE audit_events (LIKE public.audit_events); "
            "INSERT INTO audit_seals VALUES (7, '{}', 9000000000000000000, '{}', '', '', now(), 0, 0)"
        )
        call = "SELECT public.append_audit_seal(5000, 8, '{}', $1, $2)"
        taken = await connection.fetchval(call, OURS.id, GARBAGE)
        await connection.close()
        return bool(taken)

    assert not asyncio.run(run())
    write(app)
    assert seal(app) == 1


def test_an_advisory_lock_of_somebody_else_stops_nothing(app: Backend) -> None:
    with transaction(app) as hold:
        hold("SELECT pg_advisory_lock(7165498721)")  # that of earlier releases
        write(app)
        while not seal_at_once(app):  # an xid of autovacuum's may be in the way for a moment
            time.sleep(0.05)


def test_verify_audit_reports_a_transaction_that_stays_open(app: Backend) -> None:
    """Nothing behind it can be sealed, for it may still write; verify-audit says so, and then it goes on."""
    with transaction(app) as hold:
        hold("SELECT pg_current_xact_id()")
        write(app, 2, seconds_ago=90)
        assert seal_at_once(app) == 0
        status, said = verified(app)
        assert status == 2
        assert "2 events in the unsealed tail, the oldest 9" in said
        assert "no damage, but events older than 60 s are unsealed" in said
        assert verified(app, "--max-age", "1000")[0] == 0
        assert verified(app, "--max-age", "0")[0] == 2
    assert seal(app) == 2
    assert verified(app, "--max-age", "0")[0] == 0


def test_a_seal_that_is_never_committed_holds_the_others_no_longer_than_it_lives(app: Backend) -> None:
    write(app)
    settle(app)

    async def run(database: Database) -> int:
        attacker, observer = [await asyncpg.connect(app.database_url) for _ in range(2)]
        try:
            unfinished = attacker.transaction()
            await unfinished.start()
            assert await attacker.fetchval(APPEND, 2, [GARBAGE], OURS.id, GARBAGE)
            async with database.transaction() as sealing:
                honest = asyncio.create_task(audit_chain.seal(sealing, OURS))
                # Outside that transaction, inside which the first state would be seen for ever.
                while not await observer.fetchval(WAITING):
                    assert not honest.done()
                    await asyncio.sleep(0.02)
                await unfinished.rollback()
                return await honest
        finally:
            await attacker.close()
            await observer.close()

    assert in_database(app, run) == 1
    assert verified(app)[0] == 0


def test_a_transaction_of_any_size_is_sealed_in_pieces(app: Backend) -> None:
    """One that no sealer could take at once, in time and memory, would stop them all."""
    write(app, 4 * MAX_SEALED_EVENTS + 3)
    write(app, 2)
    assert [seal(app) for _ in range(3)] == [4 * MAX_SEALED_EVENTS, 5, 0]
    status, said = verified(app)
    assert (status, "0 events in the unsealed tail" in said) == (0, True)
    assert f"{4 * MAX_SEALED_EVENTS + 8} events in 3 seals" in said


@pytest.mark.parametrize("max_age", ["-1", "x", "nan", "inf"])
def test_an_age_is_a_number_of_seconds(max_age: str, owner: Backend) -> None:
    assert "invalid seconds value" in verified(owner, "--max-age", max_age)[1]


def test_a_key_that_was_not_given_is_no_damage(app: Backend, owner: Backend) -> None:
    """Exit status 3, with any other key and with none; but what can be seen without it is damage."""
    for keys in ({"SECRET_KEY": "another key of 32 bytes, at least!"}, {"AUDIT_KEY": ""}):
        status, said = verified(app, **keys)
        assert status == 3
        assert "are under a key that was not given" in said
        assert "no damage was found" in said
        assert "DAMAGED" not in said
    write(app, seconds_ago=90)
    assert verified(app, SECRET_KEY="another key of 32 bytes, at least!")[0] == 2
    owner.sql("DELETE FROM audit_events WHERE id = 2")
    status, said = verified(app, SECRET_KEY="another key of 32 bytes, at least!")
    assert status == 1
    assert "DAMAGED: event 2 is removed" in said


def warnings_of(caplog: pytest.LogCaptureFixture, backend: Backend, until: Callable[[], bool]) -> list[str]:
    """What a service that runs until then says in its log about sealing."""

    async def run(database: Database) -> None:
        sealer = asyncio.create_task(seal_periodically(database, OURS))
        while not until():
            assert not sealer.done()
            await asyncio.sleep(0.02)
        sealer.cancel()
        await asyncio.wait([sealer])

    with caplog.at_level(logging.WARNING, "medisecure.audit"):
        in_database(backend, run)
    return [record.getMessage() for record in caplog.records]


def test_a_service_that_cannot_seal_for_long_says_so(app: Backend, caplog: pytest.LogCaptureFixture) -> None:
    with transaction(app) as hold:
        hold("SELECT pg_current_xact_id()")
        write(app, seconds_ago=90)
        [said] = warnings_of(caplog, app, lambda: bool(caplog.records))
    assert said.startswith("The audit trail could not be sealed: an event waits for 9")


def test_a_role_without_the_right_to_seal_is_told(
    app: Backend, owner: Backend, granted: tuple[Backend, str], caplog: pytest.LogCaptureFixture
) -> None:
    """At the start, as after a migration without --grant-to, and by a running service again and again."""
    owner.sql(f"REVOKE EXECUTE ON FUNCTION append_audit_seal FROM {granted[1]}")
    told = asyncio.run(find_problem(app.settings()))
    assert told == "this role may not seal the audit trail; run `medisecure migrate --grant-to` with its name"
    write(app)
    [said] = warnings_of(caplog, app, lambda: bool(caplog.records))
    assert said == "The audit trail could not be sealed: InsufficientPrivilegeError"
    assert asyncio.run(verify_seals(app.database_url, [OURS], None)).unsealed == 1


def test_the_role_may_call_all_functions_where_nobody_else_may(app: Backend, owner: Backend) -> None:
    """Also where the database's owner lets nobody call a function unasked."""
    owner.sql("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC")
    assert app.sql("SELECT began_of_ten_minutes(now())")
    assert app.sql("SELECT booked_meanwhile(NULL, NULL, now(), now(), NULL)") == [(None,)]
    with pytest.raises(asyncpg.PostgresError, match="the session has ended"):
        app.sql("SELECT refuse_ended_session()")
    write(app)
    assert seal(app) == 1
