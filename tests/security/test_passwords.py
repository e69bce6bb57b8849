"""Hashing (requirement, "Password Requirements"), in a pool that refuses more work than it can do."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import bcrypt
import pytest

from security.passwords import Answer, Passwords
from security.roles import Role
from tests.support.client import Browser
from tests.support.factories import PASSWORD, World, email, registration
from tests.support.login_counters import failures, key_of, lock, pending
from tests.support.service import Backend, Service

pytestmark = pytest.mark.slow

BUSY = "The service is unavailable right now. Please try again shortly."


@pytest.fixture
def full(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """An instance whose queue is full, with the login limit of the requirement."""
    monkeypatch.setattr("api.parts.Passwords", partial(Passwords, threads=1, queue=-1))
    with Service(backend, backend.settings(login_attempts=5)) as running:
        yield running


@pytest.fixture
def small(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """An instance that hashes one password at a time and lets two wait."""
    monkeypatch.setattr("api.parts.Passwords", partial(Passwords, threads=1, queue=2))
    with Service(backend, backend.settings(login_attempts=5)) as running:
        yield running


def hash_of(backend: Backend, account: str) -> str:
    [(hashed,)] = backend.sql("SELECT password_hash FROM users WHERE email = $1", account)
    return str(hashed)


def test_every_password_hash_has_bcrypt_cost_12(backend: Backend, world: World) -> None:
    """Requirement, Password Requirements: "Hashed with bcrypt (cost factor 12)", wherever one is set."""
    browser, me = world.account()
    hashes = [hash_of(backend, me["email"])]
    assert bcrypt.checkpw(PASSWORD.encode(), hashes[0].encode())
    change = {"currentPassword": PASSWORD, "newPassword": "another horse"}
    assert browser.post("/api/users/me/password", change).status_code == 200
    hashes.append(hash_of(backend, me["email"]))
    reset = world.admin.post(f"/api/users/{me['id']}/password", {"newPassword": PASSWORD})
    assert reset.status_code == 200
    hashes.append(hash_of(backend, me["email"]))
    assert {hashed[:7] for hashed in hashes} == {"$2b$12$"}
    assert len(set(hashes)) == 3, "salted: the same password again is another hash"


class Watched(Passwords):
    """Notes which bcrypt function runs, and with what kind of hash."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[Callable[[bytes, bytes], object], bytes]] = []

    async def run_in_pool(
        self, work: Callable[[bytes, bytes], Answer], first: bytes, second: bytes
    ) -> Answer:
        self.done.append((work, second[:7]))
        return await super().run_in_pool(work, first, second)


def test_sign_in_hashes_once_for_known_and_unknown_emails(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requirement 1, "Invalid email or password": the time must not tell them apart either. So every attempt
    is one check of a hash of cost 12; both wait in the same queue."""
    watched = Watched()
    monkeypatch.setattr("api.parts.Passwords", lambda **_: watched)
    with Service(backend, backend.settings()) as running:
        for account, password, status in [
            ("other_doctor@test.example", "not it", 401),
            ("other_doctor@test.example", "longer than bcrypt reads " * 3, 401),
            ("other_doctor@test.example", PASSWORD, 200),
            (email("nobody"), PASSWORD, 401),
            (email("nobody"), "longer than bcrypt reads " * 3, 401),
            ("no address at all", PASSWORD, 401),
        ]:
            watched.done.clear()
            assert running.browser().login(account, password).status_code == status
            assert watched.done == [(bcrypt.checkpw, b"$2b$12$")], account


def test_a_full_password_queue_is_503_and_locks_nobody_out(
    backend: Backend, service: Service, full: Service
) -> None:
    """Contract, accounts: only "attempts that fail" count, and these passwords were not checked. An unknown
    e-mail waits in the same queue."""
    for account in ("staff@test.example", email("nobody")):
        for _ in range(6):
            answer = full.browser().login(account, PASSWORD)
            assert (answer.status_code, answer.json()) == (503, {"detail": BUSY})
            assert int(answer.headers["retry-after"]) >= 1
        assert failures(backend, account) == pending(backend) == 0
    assert service.browser().login("staff@test.example", PASSWORD).status_code == 200


def test_a_full_password_queue_forgives_no_earlier_failure(backend: Backend, full: Service) -> None:
    """Contract, accounts: a fixed window; being busy does not forgive what failed before."""
    lock(backend, "doctor@test.example", count=3, seconds=600)
    assert full.browser().login("doctor@test.example", PASSWORD).status_code == 503
    assert failures(backend, "doctor@test.example") == 3
    with backend.redis as connection:
        assert 0 < connection.ttl(key_of("doctor@test.example")) <= 600


def test_a_full_password_queue_registers_nobody_and_changes_no_password(
    backend: Backend, full: Service, world: World
) -> None:
    """Requirement, HTTP Status Codes; contract, errors: 503, and nothing is half done."""
    body = registration(Role.PATIENT)
    patient = full.browser(dict(world.patient.cookies))
    admin = full.browser(dict(world.admin.cookies))
    before = hash_of(backend, "patient@test.example")
    change = {"currentPassword": PASSWORD, "newPassword": "another horse"}
    reset = f"/api/users/{patient.me()['id']}/password"
    for answer in (
        full.browser().post("/api/auth/register", body),
        patient.post("/api/users/me/password", change),
        admin.post(reset, {"newPassword": "another horse"}),
    ):
        assert (answer.status_code, answer.json()) == (503, {"detail": BUSY})
        assert int(answer.headers["retry-after"]) >= 1
    assert hash_of(backend, "patient@test.example") == before
    assert not backend.sql("SELECT 1 FROM users WHERE email = $1", body["email"])
    assert patient.get("/api/users/me").status_code == 200


def test_places_in_the_password_queue_are_taken_and_freed(small: Service) -> None:
    """Of twenty at the same time, those without a place get 503 at once."""

    def sign_in(browser: Browser) -> int:
        return browser.login(email("nobody"), PASSWORD).status_code

    with ThreadPoolExecutor(20) as pool:
        answers = Counter(pool.map(sign_in, [small.browser() for _ in range(20)]))
    assert answers.keys() == {401, 503}
    assert answers[401] >= 3
    assert small.browser().login("staff@test.example", PASSWORD).status_code == 200


def test_who_waits_for_a_hash_has_as_long_for_postgresql_as_others() -> None:
    """A queue of passwords is no fault of PostgreSQL (decision 0038)."""
    told = list[float]()

    async def run() -> None:
        passwords = Passwords(1, tell_seconds=told.append)
        hashed = await passwords.hash("a good one")
        assert await passwords.verify("a good one", hashed)
        passwords.close()

    asyncio.run(run())
    assert len(told) == 2
    assert min(told) > 0
