"""Staying signed in (requirement, section 1; contract, accounts): the refresh token and its reuse."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support import shifted
from tests.support.client import Browser
from tests.support.factories import PASSWORD, World
from tests.support.locks import transaction, until_they_wait
from tests.support.service import Backend, Service
from tests.support.session_cookies import ACCESS_COOKIE, REFRESH_COOKIE, claims, cookies_set, session_of

NOT_SIGNED_IN = {"detail": "Not authenticated"}


@pytest.fixture(scope="module")
def instances(backend: Backend) -> Iterator[tuple[str, str]]:
    """One instance whose clock is 40 s behind, and one whose clock is 40 s ahead."""
    with shifted.instance(backend, -40) as behind, shifted.instance(backend, 40) as ahead:
        yield behind, ahead


def forget(backend: Backend, browser: Browser) -> None:
    """As after five seconds: no instance remembers the session, and PostgreSQL is asked again."""
    with backend.redis as connection:
        connection.delete(f"session:{session_of(browser)}")


def age_refreshes(backend: Backend, browser: Browser, *, seconds: int) -> None:
    """Move the moments at which the session's refresh tokens were used into the past."""
    backend.sql(
        "UPDATE sessions SET used_refreshes = (SELECT coalesce(jsonb_object_agg(key, value::float - $2), "
        "'{}') FROM jsonb_each_text(used_refreshes)) WHERE id = $1",
        session_of(browser),
        float(seconds),
    )


def assert_refreshed(answer: Any) -> None:
    """The requirement's answer, and both cookies, the second for what is left of the seven days."""
    assert (answer.status_code, answer.json()) == (200, {"message": "Token refreshed"})
    access, refresh = cookies_set(answer)
    assert re.fullmatch(ACCESS_COOKIE, access)
    left = re.fullmatch(REFRESH_COOKIE + r"(\d+)", refresh)
    assert left
    assert 604_700 < int(left[1]) <= 604_800


class TestRefresh:
    def test_refresh_renews_the_access_token_and_rotates_the_refresh_token(self, signed_in: Browser) -> None:
        """Requirement 1, POST /api/auth/refresh; contract: "also rotates the refresh token (one more
        Set-Cookie, Max-Age = what is left of the seven days)"."""
        before = dict(signed_in.cookies)
        assert_refreshed(signed_in.post("/api/auth/refresh"))
        assert signed_in.cookies.keys() == before.keys()
        assert all(signed_in.cookies[name] != before[name] for name in before)
        assert signed_in.get("/api/users/me").status_code == 200
        assert signed_in.post("/api/auth/refresh").status_code == 200

    def test_a_used_refresh_token_is_accepted_again_for_thirty_seconds(
        self, backend: Backend, service: Service, signed_in: Browser
    ) -> None:
        """Contract, accounts: "within 30 s (two tabs, or an answer that was lost) it yields an access token
        and the current refresh token once more"."""
        lost = service.browser(dict(signed_in.cookies))
        assert signed_in.post("/api/auth/refresh").status_code == 200
        current = claims(signed_in.cookies["refresh_token"])
        age_refreshes(backend, signed_in, seconds=25)
        for _ in range(2):  # the second answer may be lost as well
            again = service.browser(dict(lost.cookies))
            assert_refreshed(again.post("/api/auth/refresh"))
            given = claims(again.cookies["refresh_token"])
            assert {key: given[key] for key in ("jti", "exp", "sid")} == {
                key: current[key] for key in ("jti", "exp", "sid")
            }
            assert again.get("/api/users/me").status_code == 200
        assert again.post("/api/auth/refresh").status_code == 200
        assert signed_in.post("/api/auth/refresh").status_code == 200

    def test_refresh_survives_several_lost_answers_in_a_row(
        self, service: Service, signed_in: Browser
    ) -> None:
        """Each refresh of a chain is asked for twice, and at the end once more with the first token."""
        first = dict(signed_in.cookies)
        for _ in range(3):
            for _ in range(2):
                retry = service.browser(dict(signed_in.cookies))
                assert retry.post("/api/auth/refresh").status_code == 200
            signed_in.cookies = retry.cookies
        late = service.browser(first)
        assert late.post("/api/auth/refresh").status_code == 200
        given, current = (claims(browser.cookies["refresh_token"]) for browser in (late, signed_in))
        assert given["jti"] == current["jti"]

    def test_concurrent_refreshes_all_get_the_same_new_refresh_token(
        self, backend: Backend, service: Service, second_instance: Service, signed_in: Browser
    ) -> None:
        """Contract, accounts, two tabs, on two instances: the rotation is decided once."""
        tabs = [tab.browser(dict(signed_in.cookies)) for tab in (service, second_instance) * 2]
        with ThreadPoolExecutor(len(tabs)) as pool:
            with transaction(backend) as run:
                run("SELECT 1 FROM sessions WHERE id = $1 FOR UPDATE", session_of(signed_in))
                refreshes = [pool.submit(tab.post, "/api/auth/refresh") for tab in tabs]
                until_they_wait(backend, *refreshes)
            answers = [refresh.result() for refresh in refreshes]
        assert [answer.status_code for answer in answers] == [200] * 4
        assert {len(cookies_set(answer)) for answer in answers} == {2}
        assert len({claims(tab.cookies["refresh_token"])["jti"] for tab in tabs}) == 1

    @pytest.mark.slow
    @pytest.mark.parametrize("rotations", [1, 2], ids=["once replaced", "twice replaced"])
    def test_a_used_refresh_token_presented_later_ends_the_session(
        self, backend: Backend, service: Service, registered_email: str, signed_in: Browser, rotations: int
    ) -> None:
        """Contract, accounts: "A used refresh token presented again more than 30 s later ends the
        session"."""
        thief, elsewhere = service.browser(dict(signed_in.cookies)), service.browser()
        elsewhere.login(registered_email, PASSWORD)
        for _ in range(rotations):
            assert signed_in.post("/api/auth/refresh").status_code == 200
            age_refreshes(backend, signed_in, seconds=31)

        answer = thief.post("/api/auth/refresh")
        assert (answer.status_code, answer.json()) == (401, NOT_SIGNED_IN)
        assert cookies_set(answer) == []
        assert signed_in.get("/api/users/me").status_code == 401
        assert signed_in.post("/api/auth/refresh").status_code == 401
        assert elsewhere.get("/api/users/me").status_code == 200

    def test_refreshing_does_not_extend_the_seven_days_of_a_session(
        self, backend: Backend, signed_in: Browser
    ) -> None:
        """Contract, accounts: "Max-Age = what is left of the seven days"; requirement,
        REFRESH_TOKEN_EXPIRE_DAYS=7."""
        session = session_of(signed_in)
        [opened] = backend.sql("SELECT expires_at - created_at AS life FROM sessions WHERE id = $1", session)
        assert opened["life"] == timedelta(days=7)

        until = datetime.now(UTC) + timedelta(hours=1)
        backend.sql("UPDATE sessions SET expires_at = $2 WHERE id = $1", session, until)
        answer = signed_in.post("/api/auth/refresh")
        left = re.fullmatch(REFRESH_COOKIE + r"(\d+)", cookies_set(answer)[1])
        assert left
        assert 3500 < int(left[1]) <= 3600
        assert claims(signed_in.cookies["refresh_token"])["exp"] == int(until.timestamp())

        backend.sql("UPDATE sessions SET expires_at = now() WHERE id = $1", session)
        forget(backend, signed_in)
        assert signed_in.get("/api/users/me").status_code == 401
        assert signed_in.post("/api/auth/refresh").status_code == 401

    @pytest.mark.parametrize("cookie", [None, "", "nonsense", "the access token"])
    def test_refresh_without_a_valid_refresh_token_is_401(
        self, service: Service, world: World, cookie: str | None
    ) -> None:
        """Requirement 1, POST /api/auth/refresh: "Backend validates it"."""
        browser = service.browser(dict(world.patient.cookies))
        if cookie is None:
            del browser.cookies["refresh_token"]
        else:
            token = browser.cookies["access_token"] if cookie == "the access token" else cookie
            browser.cookies["refresh_token"] = token
        answer = browser.post("/api/auth/refresh")
        assert (answer.status_code, answer.json()) == (401, NOT_SIGNED_IN)
        assert answer.headers["www-authenticate"]


class TestClocks:
    """Contract, accounts: 30 s are 30 s by one clock, PostgreSQL's, whatever the instances think."""

    @pytest.mark.slow
    @pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["behind, then ahead", "ahead, then behind"])
    def test_reuse_of_a_refresh_token_is_judged_by_the_databases_clock(
        self, backend: Backend, instances: tuple[str, str], signed_in: Browser, order: tuple[int, int]
    ) -> None:
        one, other = (instances[number] for number in order)
        first, again, thief = (shifted.elsewhere(url, signed_in) for url in (one, other, other))
        assert first.get("/api/users/me").status_code == 200
        assert first.post("/api/auth/refresh").status_code == 200
        age_refreshes(backend, signed_in, seconds=20)
        answer = again.post("/api/auth/refresh")
        assert (answer.status_code, len(cookies_set(answer))) == (200, 2)
        left = re.search(r"Path=/api/auth/refresh; Max-Age=(\d+)", cookies_set(answer)[1])
        assert left
        assert 604_760 < int(left[1]) <= 604_800
        for browser, url in ((first, other), (again, one)):
            assert shifted.elsewhere(url, browser).get("/api/users/me").status_code == 200
        age_refreshes(backend, signed_in, seconds=11)
        assert thief.post("/api/auth/refresh").status_code == 401
        assert first.post("/api/auth/refresh").status_code == 401
