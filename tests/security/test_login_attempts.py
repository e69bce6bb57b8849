"""An attempt to sign in counts if it fails, and not if it ends for another reason (decision 0019)."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import pytest

from persistence.postgres.database import Database
from security.availability import BusyError
from security.counters import CounterStore
from security.login_attempts import Attempt, LoginAttempts
from security.passwords import TooBusyError
from tests.support.client import Browser
from tests.support.factories import PASSWORD, email
from tests.support.locks import transaction, until_they_wait
from tests.support.login_counters import attempts, lock
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


def failures_of_addresses(backend: Backend) -> int:
    with backend.redis as connection:
        return sum(int(connection.hget(key, "count") or 0) for key in connection.keys("login:failures:*"))


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
    assert attempts(backend, address)["count"] == "3"
    assert failures_of_addresses(backend) == before
    assert door.login(address, PASSWORD).status_code == 200
    assert attempts(backend, address) == {}
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
    assert attempts(backend, address) == {}
    assert failures_of_addresses(backend) == before


def test_a_login_attempt_is_kept_or_given_back_once(backend: Backend) -> None:
    """One that was kept is not given back, and none is given back twice."""

    async def run() -> None:
        store = CounterStore.connect(backend.redis_url)
        async with store:
            counted = LoginAttempts(store, 5, 900, 300)
            kept, returned = [await counted.take(nobody, "192.0.2.1") for _ in range(2)]
            await counted.keep(kept)
            for _ in range(2):
                await counted.give_back(kept)
                await counted.give_back(returned)

    nobody = email("nobody")
    asyncio.run(run())
    assert attempts(backend, nobody)["count"] == "1"
    assert attempts(backend, nobody).keys() == {"count", "first_attempt"}


def test_a_login_attempt_that_redis_runs_too_late_is_none(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request that asked has stopped waiting by then, and would never end the attempt."""

    async def take() -> None:
        store = CounterStore.connect(backend.redis_url)
        monkeypatch.setattr("security.counters.ANSWER_SECONDS", -1.0)
        async with store:
            await LoginAttempts(store, 5, 900, 300).take(nobody, "192.0.2.3")

    nobody = email("nobody")
    with pytest.raises(BusyError):
        asyncio.run(take())
    assert attempts(backend, nobody) == {}


def test_a_login_attempt_that_never_ended_lapses(backend: Backend) -> None:
    """Its process was killed while it checked the password, or Redis was away when it ended."""

    async def take() -> Attempt:
        store = CounterStore.connect(backend.redis_url)
        async with store:
            return await LoginAttempts(store, 2, 900, 300).take(nobody, "192.0.2.2")

    nobody = email("nobody")
    lost = [asyncio.run(take()) for _ in range(2)]
    assert asyncio.run(take()).count.is_exceeded
    with backend.redis as connection:
        for attempt in lost:
            for at in attempt.keys:
                connection.hset(at, f"attempt:{attempt.id}", int(time.time()) - 1)  # as LEASE_SECONDS do
    assert asyncio.run(take()).count.count == 1
    assert len(attempts(backend, nobody)) == 3


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
