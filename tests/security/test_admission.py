"""Admission of a request (security/admission.py): Redis remembers sessions, PostgreSQL decides."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import msgspec
import pytest
import redis

from persistence import embedded
from security.admission import Admission, Count
from security.counters import CounterStore, session_key
from security.roles import Caller, Role
from tests.support.client import Browser
from tests.support.factories import PASSWORD, World, email, registration
from tests.support.locks import transaction, until_they_wait
from tests.support.service import Backend, Service
from tests.support.tokens import claims

pytestmark = pytest.mark.slow

ME = "/api/users/me"


@dataclass
class Valkey:
    """A Valkey that a test may stop and start."""

    folder: Path
    running: embedded.EmbeddedServers

    def stop(self) -> None:
        self.running.stop()

    def start(self) -> None:
        """At the same address; it has forgotten everything."""
        address = self.running.redis_url
        self.running = embedded.start(self.folder, postgres=False)
        assert self.running.redis_url == address

    @contextmanager
    def out_of_reach(self) -> Iterator[None]:
        """It runs on and keeps its data, but every connection is closed, and none can be opened."""
        address = Path(self.running.redis_url.removeprefix("unix://"))
        aside = address.with_suffix(".aside")
        with redis.Redis.from_url(self.running.redis_url) as connection:
            connection.ping()
            address.rename(aside)
            connection.client_kill_filter(_type="normal", skipme=True)
            yield
            aside.rename(address)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    own = Valkey(tmp_path, embedded.start(tmp_path, postgres=False))
    yield own
    own.stop()
    embedded.discard(tmp_path)


@pytest.fixture
def apart(backend: Backend, valkey: Valkey) -> Backend:
    """The module's database, beside a Valkey of its own."""
    return Backend(backend.database_url, valkey.running.redis_url)


def signed_in(service: Service, name: str = "patient") -> Browser:
    browser = service.browser()
    assert browser.login(f"{name}@test.example", PASSWORD).status_code == 200
    return browser


def session_of(browser: Browser) -> str:
    return str(claims(browser.cookies["access_token"])["sid"])


def remembered(backend: Backend, browser: Browser) -> tuple[str | None, int]:
    """What is known of the session, and for how many more milliseconds."""
    key = f"session:{session_of(browser)}"
    with backend.redis as connection:
        return connection.get(key), connection.pttl(key)


def forget(backend: Backend, browser: Browser) -> None:
    """Remove what Redis remembers, as it does by itself after five seconds."""
    with backend.redis as connection:
        connection.delete(f"session:{session_of(browser)}")


def test_redis_remembers_a_living_session_for_5_s_and_an_ended_one_for_a_tokens_life(
    backend: Backend, service: Service
) -> None:
    """Contract, accounts: "leaves a tombstone in Redis for an access token's life; "alive" is remembered
    there for 5 s at most"."""
    browser = signed_in(service)
    copy = service.browser(dict(browser.cookies))
    assert browser.get(ME).status_code == 200
    known, milliseconds = remembered(backend, browser)
    assert known
    assert PASSWORD not in known
    assert 0 < milliseconds <= 5_000

    browser.post("/api/auth/logout")
    known, milliseconds = remembered(backend, copy)
    assert known == "ended"
    assert 840_000 < milliseconds <= 900_000
    assert copy.get(ME).status_code == 401


def test_postgresql_answers_for_a_session_that_redis_does_not_know(
    backend: Backend, service: Service
) -> None:
    """Contract, accounts: "what Redis does not know or cannot say, PostgreSQL answers"."""
    living, dead = signed_in(service), signed_in(service)
    copy = service.browser(dict(dead.cookies))
    dead.post("/api/auth/logout")
    for browser, status in ((living, 200), (copy, 401)):
        forget(backend, browser)
        assert browser.get(ME).status_code == status


def test_a_late_answer_of_postgresql_does_not_overwrite_a_tombstone(
    backend: Backend, service: Service
) -> None:
    """Contract, accounts: "alive" "never overwrites a tombstone": PostgreSQL said "alive", and before Valkey
    was told so, another instance ended the session."""
    browser = signed_in(service)
    forget(backend, browser)
    with ThreadPoolExecutor(1) as pool:
        with transaction(backend) as run:
            run("LOCK TABLE sessions")
            late = pool.submit(browser.get, ME)
            until_they_wait(backend, late)
            with backend.redis as connection:
                connection.set(f"session:{session_of(browser)}", "ended", ex=900)
        late.result()
    assert remembered(backend, browser)[0] == "ended"
    assert browser.get(ME).status_code == 401


def test_the_answer_of_postgresql_counts_if_redis_went_away_meanwhile(valkey: Valkey) -> None:
    caller = Caller(uuid4(), "ada@example.com", Role.ADMIN, uuid4())

    async def find_session(session_id: UUID) -> Caller:
        await asyncio.to_thread(valkey.stop)
        return caller

    async def look_up() -> tuple[bytes | None, Count | None]:
        store = CounterStore.connect(valkey.running.redis_url)
        async with store:
            admission = Admission(store, find_session, limit=1, tombstone_seconds=900)
            keys = [session_key(caller.session_id), f"requests:user:{caller.id}"]
            return await admission.look_up(keys, caller.session_id)

    known, count = asyncio.run(look_up())
    assert known == msgspec.json.encode(caller)
    assert count is None


class TestIdleSessions:
    """Contract, environment: `SESSION_IDLE_MINUTES` (0 = off)."""

    @pytest.mark.parametrize(
        ("idle_minutes", "minutes_ago", "status"), [(30, 31, 401), (30, 29, 200), (0, 6 * 24 * 60, 200)]
    )
    def test_an_idle_session_ends_after_the_minutes_of_the_setting(
        self, backend: Backend, idle_minutes: int, minutes_ago: int, status: int
    ) -> None:
        with Service(backend, backend.settings(session_idle_minutes=idle_minutes)) as clinic:
            browser = signed_in(clinic)
            session = session_of(browser)
            backend.sql(
                "UPDATE sessions SET last_seen_at = now() - make_interval(mins => $2) WHERE id = $1",
                session,
                minutes_ago,
            )
            forget(backend, browser)
            assert browser.get(ME).status_code == status
            [(seen,)] = backend.sql(
                "SELECT now() - last_seen_at < '1 minute' FROM sessions WHERE id = $1", session
            )
            assert seen is (status == 200), "a request, and nothing else, is a sign of life"
            assert browser.post("/api/auth/refresh").status_code == status

    def test_an_idle_session_is_neither_listed_nor_ended(self, backend: Backend) -> None:
        """It has ended already."""
        with Service(backend, backend.settings(session_idle_minutes=30)) as clinic:
            silent, busy = signed_in(clinic), signed_in(clinic)
            session = session_of(silent)
            backend.sql(
                "UPDATE sessions SET last_seen_at = now() - interval '31 minutes' WHERE id = $1", session
            )
            listed = busy.get(f"{ME}/sessions?limit=100").json()
            assert session not in {one["id"] for one in listed["sessions"]}
            assert len(listed["sessions"]) == listed["total"]
            assert busy.delete(f"{ME}/sessions/{session}").status_code == 404


class TestWithoutRedis:
    def test_without_redis_signed_in_users_work_on_and_nobody_signs_in(
        self, apart: Backend, valkey: Valkey, world: World
    ) -> None:
        """Contract, accounts: "what Redis … cannot say, PostgreSQL answers"; errors: 503."""
        with Service(apart, apart.settings()) as clinic:
            patient, admin = signed_in(clinic), signed_in(clinic, "admin")
            assert "ratelimit-limit" in patient.get(ME).headers
            valkey.stop()

            answer = patient.get(ME)
            assert (answer.status_code, answer.json()["role"]) == (200, "patient")
            assert "ratelimit-limit" not in answer.headers
            assert patient.patch(ME, {"phone": "+1 555 0111"}).status_code == 200
            assert patient.post("/api/auth/refresh").status_code == 200
            assert patient.get("/api/users").status_code == 403
            assert admin.get("/api/users").status_code == 200
            stranger = clinic.browser()
            assert stranger.get(ME).status_code == 401
            assert stranger.post("/api/auth/register", registration()).status_code == 201

            for account in ("patient@test.example", email("nobody")):
                refused = stranger.login(account, PASSWORD)
                assert refused.status_code == 503
                assert refused.json()["detail"].startswith("Sign-in is unavailable right now.")
                assert int(refused.headers["retry-after"]) >= 1
            assert stranger.get("/health/live").status_code == 200
            ready = stranger.get("/health/ready")
            assert (ready.status_code, ready.json()["detail"]) == (200, "degraded")
            assert ready.json()["degraded"] == ["redis_away"]

            valkey.start()
            assert stranger.login("patient@test.example", PASSWORD).status_code == 200
            assert stranger.get("/health/ready").json() == {"status": "ok", "detail": None, "degraded": []}

    def test_a_session_ended_without_redis_stays_ended_when_redis_is_back(
        self, apart: Backend, valkey: Valkey
    ) -> None:
        """Contract, accounts: "Ending a session commits in PostgreSQL, then leaves a tombstone"."""
        with Service(apart, apart.settings()) as one, Service(apart, apart.settings()) as two:
            browser, elsewhere = signed_in(one), signed_in(two)
            copies = [service.browser(dict(browser.cookies)) for service in (one, two)]
            assert [copy.get(ME).status_code for copy in copies] == [200, 200]
            valkey.stop()
            assert browser.post("/api/auth/logout").status_code == 200
            assert [copy.get(ME).status_code for copy in copies] == [401, 401]
            valkey.start()
            for copy in copies:
                assert copy.get(ME).status_code == 401
                assert copy.post("/api/auth/refresh").status_code == 401
            assert elsewhere.get(ME).status_code == 200

    def test_a_session_ended_without_redis_is_ended_though_redis_remembers_it(
        self, apart: Backend, valkey: Valkey
    ) -> None:
        """Contract, accounts: "ends its sessions at once": the answer waits until no instance can believe in
        the session any more."""
        with Service(apart, apart.settings()) as one, Service(apart, apart.settings()) as two:
            browser = signed_in(one)
            copies = [service.browser(dict(browser.cookies)) for service in (one, two)]
            assert [copy.get(ME).status_code for copy in copies] == [200, 200]
            session = session_of(browser)
            with ThreadPoolExecutor(1) as pool:
                with valkey.out_of_reach():
                    logout = pool.submit(browser.post, "/api/auth/logout")
                    while not apart.sql(
                        "SELECT 1 FROM sessions WHERE id = $1 AND ended_at IS NOT NULL", session
                    ):
                        time.sleep(0.02)
                assert logout.result().status_code == 200
            assert [copy.get(ME).status_code for copy in copies] == [401, 401]
