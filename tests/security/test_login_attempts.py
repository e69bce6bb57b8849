"""An attempt to sign in counts if it fails, and not if it ends for another reason (decision 0019)."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from persistence.login_attempts import LoginAttempts
from persistence.postgres.database import Database, Reader
from security.counters import AttemptCount, CounterStore
from security.passwords import TooBusyError
from tests.support.client import Browser
from tests.support.factories import PASSWORD, email
from tests.support.locks import transaction, until_they_wait
from tests.support.login_counters import (
    attempts,
    digest_of,
    failures,
    failures_of_addresses,
    key_of,
    lock,
    pending,
    unlock,
)
from tests.support.relay import relayed
from tests.support.service import Backend, Service
from tests.support.statements import run_sql

pytestmark = pytest.mark.slow


class Broken:
    """Ways to make the database fail at one point of a sign-in, and how to undo them."""

    INSERT = (
        "CREATE FUNCTION break() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'broken'; END $$",
        "CREATE CONSTRAINT TRIGGER broken AFTER INSERT ON sessions {} FOR EACH ROW EXECUTE FUNCTION break()",
    )
    MENDED = ("DROP TRIGGER broken ON sessions", "DROP FUNCTION break")
    WAYS: ClassVar[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
        "reading the account": (
            ("ALTER TABLE users RENAME COLUMN password_hash TO hidden",),
            ("ALTER TABLE users RENAME COLUMN hidden TO password_hash",),
        ),
        "opening the session": (tuple(one.format("") for one in INSERT), MENDED),
        "the commit": (tuple(one.format("DEFERRABLE INITIALLY DEFERRED") for one in INSERT), MENDED),
        "the audit trail": (
            ("ALTER TABLE audit_events ADD CONSTRAINT broken CHECK (false) NOT VALID",),
            ("ALTER TABLE audit_events DROP CONSTRAINT broken",),
        ),
    }


@asynccontextmanager
async def counting(backend: Backend, limit: int = 5, window: int = 900) -> AsyncIterator[LoginAttempts]:
    store = CounterStore.connect(backend.redis_url)
    async with Database(backend.database_url) as database, store:
        yield LoginAttempts(Reader(database.writes), store, limit, window, 300)


@pytest.mark.parametrize("where", Broken.WAYS)
def test_a_sign_in_that_ends_in_5xx_is_no_attempt(
    where: str, backend: Backend, door: Browser, address: str
) -> None:
    """Contract, accounts: "An attempt that ends in 5xx, for whatever reason, is given back"; what failed
    before is forgiven by a success that is stored, and by no other."""
    lock(backend, address, count=3)
    before = failures_of_addresses(backend)
    breaking, mending = Broken.WAYS[where]
    for statement in breaking:
        backend.sql(statement)
    try:
        for _ in range(6):
            assert door.login(address, PASSWORD).status_code >= 500
        if where in {"reading the account", "the audit trail"}:
            assert door.login(address, "not it").status_code >= 500
    finally:
        for statement in mending:
            backend.sql(statement)
    assert failures(backend, address) == 3
    assert failures_of_addresses(backend) == before
    assert pending(backend) == 0
    assert door.login(address, PASSWORD).status_code == 200
    assert attempts(backend, address) == {}
    assert failures(backend, address) == 0
    assert failures_of_addresses(backend) == before


def test_a_sign_in_whose_database_connection_dies_is_no_attempt(
    backend: Backend, door: Browser, address: str
) -> None:
    before = failures_of_addresses(backend)
    for _ in range(2):  # the first is asked once more
        with ThreadPoolExecutor(1) as pool, transaction(backend) as run:
            run("SELECT 1 FROM users WHERE email = $1 FOR UPDATE", address)
            login = pool.submit(door.login, address, PASSWORD)
            while not login.done():
                until_they_wait(backend, login)
                backend.sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND wait_event_type = 'Lock'"
                )
        assert login.result().status_code == 503
    assert failures(backend, address) == pending(backend) == 0
    assert failures_of_addresses(backend) == before


def test_a_login_attempt_is_kept_or_given_back_once(backend: Backend) -> None:
    """One that was kept is not given back, and none is given back twice."""

    async def run() -> None:
        async with counting(backend) as counted:
            kept, returned = [await counted.take(nobody, "192.0.2.1") for _ in range(2)]
            await counted.keep(kept)
            for _ in range(2):
                await counted.give_back(kept)
                await counted.give_back(returned)

    nobody = email("nobody")
    asyncio.run(run())
    assert failures(backend, nobody) == 1
    assert attempts(backend, nobody)["count"] == "1"
    assert attempts(backend, nobody).keys() == {"count", "first_attempt"}


def test_a_login_attempt_that_never_ended_lapses(backend: Backend) -> None:
    """Its process was killed while it checked the password."""

    async def run() -> None:
        async with counting(backend, limit=2) as counted:
            for _ in range(2):
                await counted.take(nobody, "192.0.2.2")
            assert (await counted.take(nobody, "192.0.2.2")).count.is_exceeded
            await asyncio.to_thread(
                backend.sql,  # as LEASE_SECONDS do
                "UPDATE login_counters SET pending = "
                "(SELECT jsonb_object_agg(one.key, 1) FROM jsonb_each(pending) AS one) WHERE key = $1",
                digest_of(nobody),
            )
            again = await counted.take(nobody, "192.0.2.2")
            assert again.count.count == 1
            assert again.count.reset == 900, "nothing had failed: the window begins anew"
            await counted.keep(again)

    nobody = email("nobody")
    asyncio.run(run())
    assert failures(backend, nobody) == 1


def test_a_login_attempt_that_ends_after_its_window_counts_in_the_next(backend: Backend) -> None:
    async def run() -> None:
        async with counting(backend, limit=2) as counted:
            first = await counted.take(nobody, "192.0.2.4")
            await counted.keep(await counted.take(nobody, "192.0.2.4"))
            await asyncio.to_thread(unlock, backend, nobody)
            await counted.keep(first)

    nobody = email("nobody")
    asyncio.run(run())
    assert failures(backend, nobody) == 1
    assert attempts(backend, nobody)["count"] == "1"


def test_a_login_attempt_is_given_back_once_postgresql_is_there_again(servers: Backend) -> None:
    """contract, accounts: "An attempt that ends in 5xx, for whatever reason, is given back"."""
    own = servers.copy()
    [(name,)] = own.sql("SELECT current_database()")
    nobody = email("nobody")

    async def run() -> None:
        async with counting(own) as counted:
            attempt = await counted.take(nobody, "192.0.2.5")
            for allowed in ("false", "true"):
                statement = f"ALTER DATABASE {name} ALLOW_CONNECTIONS {allowed}"
                await asyncio.to_thread(servers.sql, statement)
                if allowed == "false":
                    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1"
                    await asyncio.to_thread(servers.sql, kill, name)
                    await counted.give_back(attempt)
                    assert list(counted.owed) == [attempt]
            assert await asyncio.to_thread(pending, own) == 2
            await counted.tidy()
            assert await asyncio.to_thread(pending, own) == len(counted.owed) == 0

    asyncio.run(run())


def test_an_attempt_whose_count_is_not_heard_of_is_given_back(backend: Backend) -> None:
    """contract, accounts: "An attempt that ends in 5xx, for whatever reason, is given back": PostgreSQL has
    counted it, and the line was cut before it could say so."""
    nobody = email("nobody")

    async def run() -> None:
        parts = urlsplit(backend.database_url)
        async with relayed(f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432") as relay:
            far = Backend(f"postgresql://postgres@127.0.0.1:{relay.port}{parts.path}", backend.redis_url)
            async with counting(far) as counted:
                await counted.give_back(await counted.take(nobody, "192.0.2.6"))
                relay.hold()
                taking = asyncio.create_task(counted.take(nobody, "192.0.2.6"))
                await relay.until_held(1)
                relay.cut()
                with pytest.raises((OSError, asyncpg.PostgresError)):
                    await taking
                assert await asyncio.to_thread(pending, backend) == before + 2
                await counted.tidy()
                assert not counted.owed

    before = pending(backend)
    asyncio.run(run())
    assert pending(backend) == before
    assert failures(backend, nobody) == 0


def test_rows_of_login_attempts_go_a_minute_after_their_window(backend: Backend) -> None:
    old, young = email("nobody"), email("nobody")
    lock(backend, old, seconds=-61)
    lock(backend, young, seconds=-59)

    async def run() -> None:
        async with counting(backend) as counted:
            await counted.tidy()

    asyncio.run(run())
    left = {bytes(row["key"]) for row in backend.sql("SELECT key FROM login_counters")}
    assert digest_of(young) in left
    assert digest_of(old) not in left


def test_no_email_is_stored_with_its_login_attempts(backend: Backend, door: Browser) -> None:
    """People type their password into the wrong field."""
    nobody = email("hunter2")
    assert door.login(nobody, PASSWORD).status_code == 401
    [(rows,)] = backend.sql("SELECT string_agg(c::text, '') FROM login_counters AS c")
    assert nobody not in rows
    assert digest_of(nobody).hex() in rows


def test_an_overtaken_copy_of_a_login_counter_changes_nothing(backend: Backend) -> None:
    """Two instances may tell Redis of two changes in the wrong order."""
    nobody = email("nobody")

    async def run() -> None:
        store = CounterStore.connect(backend.redis_url)
        async with store:
            for count, version in ((4, 7), (3, 6), (0, 8), (4, 7)):
                await store.copy_attempts([AttemptCount(key_of(nobody), count, 1, 60_000, version)])
                shown.append(attempts(backend, nobody).get("count"))

    shown = list[str | None]()
    asyncio.run(run())
    assert shown == ["4", "4", None, None]


@pytest.mark.parametrize("gone", [asyncio.CancelledError, SystemExit, TooBusyError])
def test_a_request_that_is_not_committed_gives_its_login_attempt_back(
    backend: Backend, gone: type[BaseException]
) -> None:
    """For example because a shutdown cancels it, or the queue of passwords is full."""

    seen = list[str]()

    async def note(what: str) -> None:
        seen.append(what)

    async def run() -> None:
        database = Database(backend.database_url)
        try:
            async with database.transaction() as transaction:
                transaction.unless_committed(lambda: note("given back"))
                transaction.after_commit(lambda: note("cleared"))
                await run_sql(transaction, "SELECT 1")
                raise gone
        finally:
            await database.close()

    with pytest.raises(gone):
        asyncio.run(run())
    assert seen == ["given back"]


def test_a_sign_in_without_postgresql_is_no_attempt(
    servers: Backend, populated: tuple[Backend, dict[str, dict[str, str]], float]
) -> None:
    """Contract, accounts: "five attempts that fail": while PostgreSQL is away nothing was tried."""
    own = populated[0].copy()
    [(name,)] = own.sql("SELECT current_database()")
    with Service(own, own.settings(login_attempts=5)) as service:
        door = service.browser()
        servers.sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        servers.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        for _ in range(6):
            assert door.login("staff@test.example", PASSWORD).status_code >= 500
        servers.sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        assert door.login("staff@test.example", PASSWORD).status_code == 200
