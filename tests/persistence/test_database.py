"""Connections that break and statements that take long: what is stored once, what waits, what gives up."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import alembic.command
import asyncpg
import httpx
import pytest
from alembic.config import Config
from sqlalchemy import text

import persistence
from api.http.auditing import command_event
from persistence.audit import Action, Journal
from persistence.migrations.commands import commands
from persistence.postgres.database import Database, Reader
from persistence.postgres.statements import NOTHING, Nothing, Query
from tests.support.command import find_problem_of, medisecure
from tests.support.factories import PASSWORD, World, chart
from tests.support.locks import transaction
from tests.support.postgres_wire import Wire
from tests.support.service import Backend, Service
from tests.support.statements import SLEEP, Seconds, pid, run_sql

PYPROJECT = Path(persistence.__file__).parents[1] / "pyproject.toml"
LOCK = 0x6D656469  # of persistence/migrations/env.py


class Isolation(NamedTuple):
    transaction_isolation: str


class Prepared(NamedTuple):
    name: str


ISOLATION = Query(Isolation, Nothing, text("SHOW transaction_isolation"))
PREPARED = Query(Prepared, Nothing, text("SELECT name FROM pg_prepared_statements"))
# Who tries again and again for a lock is nearly always between two tries.
TRYING = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
    "AND (query LIKE '%pg_try_advisory%' OR query LIKE 'ROLLBACK%')"
)


@pytest.mark.slow
def test_a_read_whose_journal_lost_its_connection_is_on_record_once(
    populated: tuple[Backend, dict[str, dict[str, str]], float],
) -> None:
    """Whether the row was stored nobody knows then: the caller gets a 503, and it is not written again."""
    own = populated[0].copy()
    wire = Wire(own)
    with wire.laid() as far, Service(far, far.settings()) as service:
        staff = service.browser()
        assert staff.login("staff@test.example", PASSWORD).status_code == 200
        assert staff.get("/api/patients").status_code == 200
        wire.cut = True
        lost = staff.get("/api/patients")
        assert (lost.status_code, wire.cut) == (503, False)
        assert staff.get("/api/patients").status_code == 200
    request_id = UUID(lost.headers["x-request-id"])
    assert own.sql("SELECT count(*) FROM audit_events WHERE request_id = $1", request_id)[0][0] == 1
    assert own.sql("SELECT count(*) FROM audit_events WHERE action = 'patient.list'")[0][0] == 3


@pytest.mark.slow
def test_a_restart_of_postgresql_costs_nobody_an_error(world: World, backend: Backend) -> None:
    """Every connection of the pools is dead then; a read, its journal and a write open new ones."""
    asks: tuple[Callable[[], httpx.Response], ...] = (
        lambda: world.staff.get("/api/patients"),
        lambda: world.staff.post("/api/patients", chart()),
        lambda: world.staff.get("/api/doctors"),
    )
    for ask in asks:
        assert ask().is_success
        backend.sql(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert ask().is_success


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time-outs of statements pass 600 times as fast: 30 s are over in 50 ms."""
    connect = asyncpg.connect

    async def hurry(*args: Any, command_timeout: float | None = None, **options: Any) -> Any:
        return await connect(*args, command_timeout=command_timeout and command_timeout / 600, **options)

    monkeypatch.setattr(asyncpg, "connect", hurry)


@pytest.fixture
def empty(servers: Backend) -> Backend:
    """A database with nothing in it."""
    name = f"empty_{uuid4().hex}"
    servers.sql(f"CREATE DATABASE {name}")
    return Backend(servers.database_url.replace("/medisecure?", f"/{name}?"), "")


@pytest.mark.usefixtures("hurried")
def test_a_statement_gives_up_unless_it_may_take_its_time(servers: Backend) -> None:
    async def sleep(seconds: float, **options: Any) -> int:
        database = Database(servers.database_url, **options)
        try:
            return len(await database.reader.records(SLEEP, Seconds(seconds=seconds)))
        finally:
            await database.close()

    with pytest.raises(TimeoutError):
        asyncio.run(sleep(600))
    assert asyncio.run(sleep(0.2, command_timeout=None)) == 1


@pytest.mark.parametrize("default", ["repeatable read", "serializable"])
def test_a_write_sees_what_was_stored_while_it_waited(servers: Backend, default: str) -> None:
    """Whatever the server's default: a doctor who leaves while a booking waits is not booked."""
    backend = servers.copy()
    [(name,)] = backend.sql("SELECT current_database()")
    backend.sql(f"ALTER DATABASE {name} SET default_transaction_isolation = '{default}'")

    async def isolation() -> str:
        database = Database(backend.database_url)
        try:
            async with database.transaction() as opened:
                [level] = await opened.rows(ISOLATION, NOTHING)
            return level.transaction_isolation
        finally:
            await database.close()

    assert asyncio.run(isolation()) == "read committed"


@pytest.mark.slow
@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(
    "migrate",
    [
        lambda url: commands(url).upgrade(),
        lambda url: alembic.command.upgrade(Config(toml_file=PYPROJECT), "head"),
    ],
    ids=["medisecure", "alembic"],
)
def test_a_migration_waits_for_another_as_long_as_that_takes(
    migrate: Callable[[str], None], empty: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty.database_url)
    with ThreadPoolExecutor(1) as pool, transaction(empty) as execute:
        execute(f"SELECT pg_advisory_xact_lock({LOCK})")
        migrating = pool.submit(migrate, empty.database_url)
        while not empty.sql(TRYING)[0][0] and not migrating.done():
            time.sleep(0.02)
        time.sleep(0.5)  # a time-out, if it had one, would be over
        assert not migrating.done()
    migrating.result()
    assert empty.sql("SELECT count(*) FROM users")[0][0] == 0


@pytest.mark.slow
def test_no_sign_in_reads_the_sessions_of_others(
    populated: tuple[Backend, dict[str, dict[str, str]], float],
) -> None:
    """An index leads to a user's own, expired or not, where each sign-in deletes, lists and ends them."""
    own = populated[0].copy()
    own.sql(
        "INSERT INTO sessions (id, user_id, refresh_jti, address, user_agent, expires_at) "
        "SELECT gen_random_uuid(), id, gen_random_uuid(), 'x', 'x', now() - interval '1 day' "
        "FROM users, generate_series(1, 3000) WHERE email <> 'staff@test.example'"
    )
    own.sql("ANALYZE sessions")
    walks = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'sessions'"
    before = own.sql(walks)
    with Service(own, own.settings()) as service:
        staff = service.browser()
        assert staff.login("staff@test.example", PASSWORD).status_code == 200
        assert staff.get("/api/users/me/sessions").status_code == 200
        passwords = {"currentPassword": PASSWORD, "newPassword": "another one"}
        assert staff.post("/api/users/me/password", passwords).status_code == 200
    while own.sql(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'medisecure' "
        "AND datname = current_database()"
    )[0][0]:
        time.sleep(0.02)  # connections tell what they did when they end
    assert own.sql(walks) == before


async def prepared_names(backend: Backend) -> set[str]:
    async with Database(backend.database_url, readers=1) as database:
        await database.reader.run(PREPARED, NOTHING)
        return {row.name for row in await database.reader.rows(PREPARED, NOTHING)}


def test_a_direct_connection_keeps_its_prepared_statements(empty: Backend) -> None:
    assert any(asyncio.run(prepared_names(empty)))


@pytest.mark.slow
def test_behind_a_pooler_everything_works_and_no_statement_has_a_name(
    populated: tuple[Backend, dict[str, dict[str, str]], float],
) -> None:
    """The next statement may be on another connection of PostgreSQL (with a real pooler:
    tests/external/test_pgbouncer.py)."""
    with Wire(populated[0].copy(), is_pooler=True).laid() as pooled:
        commands(pooled.database_url).upgrade()
        assert find_problem_of(pooled) == ""
        with Service(pooled, pooled.settings()) as service:
            staff = service.browser()
            assert staff.login("staff@test.example", PASSWORD).status_code == 200
            assert staff.post("/api/patients", chart()).status_code == 201
        assert not any(asyncio.run(prepared_names(pooled)))


def test_a_transaction_takes_locks_behind_other_statements_too(empty: Backend) -> None:
    async def hold_two() -> list[bool]:
        async with Database(empty.database_url) as database, database.transaction() as opened:
            await opened.lock(1)
            await opened.lock(2)
            other = await asyncpg.connect(empty.database_url)
            try:
                return [await other.fetchval("SELECT pg_try_advisory_lock($1)", key) for key in (1, 2, 3)]
            finally:
                await other.close()

    assert asyncio.run(hold_two()) == [False, False, True]


def test_a_lock_that_is_never_free_is_given_up(empty: Backend) -> None:
    """And its connection with it: the statement may still wait there."""

    async def wait_in_vain() -> int:
        async with Database(empty.database_url, writers=1, command_timeout=0.3) as database:
            async with database.transaction() as holder:
                await run_sql(holder, "SELECT 1")
            other = await asyncpg.connect(empty.database_url)
            try:
                await other.execute("SELECT pg_advisory_lock(1)")
                with pytest.raises(TimeoutError):
                    async with database.transaction() as waiting:
                        await waiting.lock(1)
                async with database.transaction() as later:
                    return await pid(later)
            finally:
                await other.close()

    assert asyncio.run(wait_in_vain()) > 0


@pytest.mark.slow
def test_a_deadlock_at_the_begin_spoils_no_connection(empty: Backend) -> None:
    """The transaction has begun by then, and is rolled back."""

    async def meet() -> list[int]:
        async with Database(empty.database_url, writers=1) as database:
            async with database.transaction() as before:
                processes = [await pid(before)]
            other = await asyncpg.connect(empty.database_url)
            await other.execute("SELECT pg_advisory_lock(2)")
            crossing = asyncio.create_task(other.execute("SELECT pg_sleep(0.3), pg_advisory_lock(1)"))
            with pytest.raises(asyncpg.DeadlockDetectedError):
                async with database.transaction() as waiting:
                    await waiting.lock(1, 2)  # it waits first, so it is the one that notices
            await crossing
            await other.close()
            async with database.transaction() as after:
                await after.lock(1)
                processes.append(await pid(after))
        return processes

    first, second = asyncio.run(meet())
    assert first == second


def test_a_command_has_no_caller_whose_session_could_end(empty: Backend) -> None:
    async def settle() -> int:
        async with Database(empty.database_url) as database, database.transaction() as opened:
            opened.skip_session_check()
            return await pid(opened)

    assert asyncio.run(settle()) > 0


def test_a_reader_who_disconnects_does_not_keep_the_rows_of_others_from_the_trail(
    populated: tuple[Backend, dict[str, dict[str, str]], float],
) -> None:
    """They are stored with the same commit."""
    own, read = populated[0].copy(), [uuid4(), uuid4()]

    async def write() -> None:
        async with Database(own.database_url) as database:
            journal = Journal(Reader(database.journal))
            gone, waiting = (
                asyncio.create_task(journal.write(command_event(Action.PATIENT_READ, chart_id)))
                for chart_id in read
            )
            await asyncio.sleep(0)
            gone.cancel()
            await waiting

    asyncio.run(write())
    stored = own.sql("SELECT target_id FROM audit_events WHERE target_id = ANY ($1)", read)
    assert {row["target_id"] for row in stored} == set(read)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("/medisecure?", "/nowhere?"), 'database "nowhere" does not exist'),
        (("postgres@", "nobody@"), 'role "nobody" does not exist'),
        (("?host", "?no_such_parameter=1&host"), 'unrecognized configuration parameter "no_such_parameter"'),
    ],
)
def test_a_refused_connection_is_said_in_a_line(servers: Backend, change: tuple[str, str], said: str) -> None:
    """Once a stack: what the driver raises before there is a connection, SQLAlchemy does not wrap."""
    refused = medisecure("migrate", DATABASE_URL=servers.database_url.replace(*change))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == f"medisecure: the database cannot be used: {said}\n"
