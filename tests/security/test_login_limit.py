"""The login limit (requirement, "Rate Limiting (Redis)" and "LoginAttempt (Redis)")."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest

from persistence.postgres.database import Database
from security.counters import CounterStore
from security.login_attempts import Attempt, LoginAttempts
from security.passwords import TooBusyError
from security.roles import Role
from tests.support.client import Browser, standing
from tests.support.factories import PASSWORD, World, email, registration
from tests.support.locks import transaction, until_they_wait
from tests.support.service import Backend, Service
from tests.support.statements import run_sql

LOCKED = "Too many failed attempts. Please try again in {} minute(s)."


@pytest.fixture(scope="module")
def clinic(backend: Backend) -> Iterator[Service]:
    """An instance with the limit of the requirement: "5 attempts per 15 minutes per email"."""
    with Service(backend, backend.settings(login_attempts=5)) as running:
        yield running


@pytest.fixture(scope="module")
def address(world: World) -> str:
    """The e-mail of an active account without failed attempts."""
    return str(world.account()[1]["email"])


@pytest.fixture
def door(clinic: Service) -> Browser:
    return clinic.browser()


def key(address: str) -> str:
    return f"login:attempts:{address}"


def attempts(backend: Backend, address: str) -> dict[str, str]:
    with backend.redis as connection:
        return dict(connection.hgetall(key(address)))


def lock(backend: Backend, address: str, *, seconds: float = 900, count: int = 5) -> None:
    """Write the counter as `count` failed attempts leave it, with `seconds` left of the window."""
    with backend.redis as connection:
        first = int(time.time() - 900 + seconds)
        connection.hset(key(address), mapping={"count": count, "first_attempt": first})
        connection.pexpire(key(address), int(seconds * 1000))


def unlock(backend: Backend, address: str) -> None:
    with backend.redis as connection:
        connection.delete(key(address))


def test_after_five_failed_sign_ins_even_the_right_password_is_429(
    backend: Backend, door: Browser, address: str
) -> None:
    """Requirement, Rate Limiting: "Login endpoint: 5 attempts per 15 minutes per email"; requirement 1,
    POST /api/auth/login, Response 429."""
    for left in (4, 3, 2, 1, 0):
        wrong = door.login(address, "not it")
        assert wrong.status_code == 401
        assert standing(wrong) == ("5; w=900", "5", str(left))

    for password in ("not it", PASSWORD):
        answer = door.login(address, password)
        assert (answer.status_code, answer.json()) == (429, {"detail": LOCKED.format(15)})
        assert 840 < int(answer.headers["retry-after"]) <= 900
        assert standing(answer) == ("5; w=900", "5", "0")
        assert "set-cookie" not in answer.headers
    unlock(backend, address)
    assert door.login(address, PASSWORD).status_code == 200


def test_failed_sign_ins_of_unknown_emails_count_too(backend: Backend, door: Browser) -> None:
    """Contract, accounts: "unknown e-mails count too": the limit tells nobody who has an account."""
    nobody = email("nobody")
    lock(backend, nobody, count=4)
    assert [door.login(nobody, PASSWORD).status_code for _ in range(3)] == [401, 429, 429]


def test_redis_keeps_failed_sign_ins_as_the_requirement_says(backend: Backend, door: Browser) -> None:
    """Requirement, LoginAttempt (Redis): "key: `login:attempts:{email}`", "value: `{count: int,
    first_attempt: timestamp}`", "ttl: 900 seconds"."""
    nobody, before = email("nobody"), int(time.time())
    door.login(nobody, PASSWORD)
    first = attempts(backend, nobody)
    assert first.keys() == {"count", "first_attempt"}
    assert first["count"] == "1"
    assert before <= int(first["first_attempt"]) <= time.time()
    with backend.redis as connection:
        assert connection.type(key(nobody)) == "hash"
        assert 0 < connection.ttl(key(nobody)) <= 900
        connection.expire(key(nobody), 300)

    door.login(nobody, PASSWORD)
    assert attempts(backend, nobody) == {**first, "count": "2"}
    with backend.redis as connection:
        assert 0 < connection.ttl(key(nobody)) <= 300, "the window is fixed"


def test_a_successful_sign_in_clears_the_count(backend: Backend, door: Browser, address: str) -> None:
    """Contract, accounts: "a success clears"."""
    lock(backend, address, count=4)
    answer = door.login(address, PASSWORD)
    assert answer.status_code == 200
    assert standing(answer) == ("5; w=900", "5", "5")
    assert attempts(backend, address) == {}


def test_sign_ins_while_locked_do_not_extend_the_window(
    backend: Backend, door: Browser, address: str
) -> None:
    """Contract, accounts: "trying while locked does not extend"."""
    lock(backend, address, seconds=100)
    before = attempts(backend, address)
    for _ in range(3):
        answer = door.login(address, PASSWORD)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) <= 100
    assert attempts(backend, address) == before
    with backend.redis as connection:
        assert 0 < connection.pttl(key(address)) <= 100_000
        connection.pexpire(key(address), 1)  # the rest of the window goes by
    time.sleep(0.01)
    assert door.login(address, PASSWORD).status_code == 200


@pytest.mark.parametrize(("left", "minutes"), [(890, 15), (90, 2), (59, 1), (2, 1)])
def test_the_minutes_of_a_lock_are_rounded_up_and_at_least_1(
    backend: Backend, door: Browser, left: float, minutes: int
) -> None:
    """Contract, accounts: "X is minutes rounded up, at least 1; `Retry-After` in seconds"."""
    nobody = email("nobody")
    lock(backend, nobody, seconds=left)
    answer = door.login(nobody, PASSWORD)
    assert (answer.status_code, answer.json()) == (429, {"detail": LOCKED.format(minutes)})
    assert 1 <= int(answer.headers["retry-after"]) <= left


def test_spellings_of_an_email_share_one_counter(backend: Backend, door: Browser) -> None:
    """Contract, accounts: "Account e-mails are stored and answered trimmed, NFC and lower-cased: one account,
    one counter"."""
    nobody = email("nobody")
    spellings = [nobody, nobody.upper(), f" {nobody}", f"{nobody.title()}\t"]
    assert [door.login(spelling, PASSWORD).status_code for spelling in spellings] == [401] * 4
    assert attempts(backend, nobody)["count"] == "4"


def test_a_403_for_a_pending_account_does_not_clear_the_count(
    backend: Backend, door: Browser, world: World
) -> None:
    """Contract, accounts: "403 for pending does not clear"."""
    body = registration(Role.STAFF)
    assert door.post("/api/auth/register", body).status_code == 201
    lock(backend, body["email"], count=4)
    assert door.login(body["email"], PASSWORD).status_code == 403
    assert attempts(backend, body["email"])["count"] == "5"
    assert door.login(body["email"], PASSWORD).status_code == 429


@pytest.mark.parametrize("body", [{"email": "{}"}, {"email": "{}", "password": 1}, {"email": "{}", "x": ""}])
def test_an_invalid_login_body_is_no_attempt(backend: Backend, door: Browser, body: dict[str, Any]) -> None:
    """Requirement, Rate Limiting: an attempt is an e-mail and a password."""
    nobody = email("nobody")
    assert door.post("/api/auth/login", body | {"email": nobody}).status_code == 400
    assert attempts(backend, nobody) == {}


def test_one_email_does_not_lock_another(backend: Backend, door: Browser, address: str) -> None:
    """Requirement, Rate Limiting: "per email"."""
    nobody = email("nobody")
    lock(backend, nobody)
    assert door.login(nobody, PASSWORD).status_code == 429
    assert door.login(address, PASSWORD).status_code == 200


def test_of_twenty_concurrent_sign_ins_on_two_instances_five_are_checked(
    backend: Backend, clinic: Service
) -> None:
    """Requirement, Rate Limiting, under concurrency; contract: "The slot is taken before the password is
    checked"."""
    nobody = email("nobody")
    with Service(backend, backend.settings(login_attempts=5)) as second:
        doors = [instance.browser() for instance in (clinic, second) * 10]
        with ThreadPoolExecutor(len(doors)) as pool:
            answers = list(pool.map(lambda door: door.login(nobody, PASSWORD).status_code, doors))
    assert Counter(answers) == {401: 5, 429: 15}
    assert attempts(backend, nobody)["count"] == "5"


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
