"""Admission of a request (security/admission.py): Redis remembers sessions, PostgreSQL decides."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.client import Browser
from tests.support.factories import PASSWORD
from tests.support.locks import transaction, until_they_wait
from tests.support.service import Backend, Service
from tests.support.valkey import session_of, signed_in

pytestmark = pytest.mark.slow

ME = "/api/users/me"


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
