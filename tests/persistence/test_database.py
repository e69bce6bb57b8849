"""Connections that break and statements that take long: what is stored once, what waits, what gives up."""

import asyncio
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
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
from persistence.migrations.commands import commands
from persistence.postgres.database import Database
from persistence.postgres.statements import NOTHING, Nothing, Query
from tests.support.command import medisecure
from tests.support.factories import PASSWORD, World, chart
from tests.support.locks import transaction
from tests.support.service import Backend, Service
from tests.support.statements import SLEEP, Seconds

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
# PostgreSQL's answer to an INSERT outside a transaction, which only the journal does: stored, and idle again.
STORED = b"INSERT 0 1\0Z\0\0\0\5I"


class Wire:
    """A socket before PostgreSQL's own. It can be cut once: when the journal's INSERT is stored, and the
    answer is on its way."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.cut = False

    @contextmanager
    def laid(self) -> Iterator[Backend]:
        """The same database at the other end of the wire."""
        self.up, self.over = threading.Event(), asyncio.Event()
        _, server = self.backend.database_url.split("host=")
        with tempfile.TemporaryDirectory() as folder:
            thread = threading.Thread(target=lambda: asyncio.run(self.run(folder, server)))
            thread.start()
            self.up.wait()
            try:
                yield Backend(self.backend.database_url.replace(server, folder), self.backend.redis_url)
            finally:
                self.loop.call_soon_threadsafe(self.over.set)
                thread.join()

    async def run(self, folder: str, server: str) -> None:
        self.loop = asyncio.get_running_loop()

        async def connected(from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
            from_server, to_server = await asyncio.open_unix_connection(f"{server}/.s.PGSQL.5432")
            await asyncio.gather(self.pump(from_client, to_server), self.pump(from_server, to_client))

        async with await asyncio.start_unix_server(connected, f"{folder}/.s.PGSQL.5432"):
            self.up.set()
            await self.over.wait()

    async def pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65536):
                if self.cut and STORED in data:
                    self.cut = False
                    break
                target.write(data)
        target.close()


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


def test_a_direct_connection_keeps_its_prepared_statements(empty: Backend) -> None:
    """Only a pooler's are left unnamed (tests/external/test_pgbouncer.py)."""

    async def names() -> set[str]:
        database = Database(empty.database_url, readers=1)
        try:
            await database.reader.run(PREPARED, NOTHING)
            return {row.name for row in await database.reader.rows(PREPARED, NOTHING)}
        finally:
            await database.close()

    assert any(asyncio.run(names()))


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
