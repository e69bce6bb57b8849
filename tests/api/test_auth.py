"""Signing in, staying signed in and signing out (requirement, section 1)."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest

from security.roles import Role
from tests.support import shifted
from tests.support.client import Browser
from tests.support.factories import PASSWORD, World, email, registration
from tests.support.locks import transaction, until_they_wait
from tests.support.service import KEY, Backend, Service

JWT = r"[\w-]+\.[\w-]+\.[\w-]+"
ACCESS_COOKIE = f"access_token={JWT}; HttpOnly; Secure; SameSite=Strict; Path=/; Max-Age=900"
REFRESH_COOKIE = f"refresh_token={JWT}; HttpOnly; Secure; SameSite=Strict; Path=/api/auth/refresh; Max-Age="
PENDING = {"detail": "This account is waiting for approval by an administrator"}
DISABLED = {"detail": "This account is disabled"}
INVALID = {"detail": "Invalid email or password"}
NOT_SIGNED_IN = {"detail": "Not authenticated"}


@pytest.fixture(scope="module")
def address(anonymous_browser: Browser) -> str:
    """The e-mail of a registered patient: any test may sign in with it, and none changes the account."""
    body = registration()
    assert anonymous_browser.post("/api/auth/register", body).status_code == 201
    return str(body["email"])


@pytest.fixture(scope="module")
def anonymous_browser(service: Service) -> Browser:
    return service.browser()


@pytest.fixture
def signed_in(service: Service, address: str) -> Browser:
    """A session of its own for each test."""
    browser = service.browser()
    assert browser.login(address, PASSWORD).status_code == 200
    return browser


@pytest.fixture(scope="module")
def instances(backend: Backend) -> Iterator[tuple[str, str]]:
    """One instance whose clock is 40 s behind, and one whose clock is 40 s ahead."""
    with shifted.instance(backend, -40) as behind, shifted.instance(backend, 40) as ahead:
        yield behind, ahead


def cookies_set(response: Any) -> list[str]:
    return list(response.headers.get_list("set-cookie"))


def claims(token: str) -> dict[str, Any]:
    return dict(jwt.decode(token, KEY, algorithms=["HS256"], options={"verify_exp": False}))


def session_of(browser: Browser) -> str:
    return str(claims(browser.cookies["access_token"])["sid"])


def forget(backend: Backend, browser: Browser) -> None:
    """As after five seconds: no instance remembers the session, and PostgreSQL is asked again."""
    with backend.redis as connection:
        connection.delete(f"session:{session_of(browser)}")


def stored(backend: Backend, account: str) -> dict[str, Any]:
    [row] = backend.sql("SELECT * FROM users WHERE email = $1", account)
    return dict(row)


def login_while(backend: Backend, browser: Browser, me: dict[str, Any], *statements: str) -> Any:
    """What login answers if these statements change the account, $1, after its password hash was read."""
    browser.cookies.clear()
    with ThreadPoolExecutor(1) as pool:
        with transaction(backend) as run:
            run("SELECT 1 FROM users WHERE id = $1 FOR UPDATE", me["id"])
            login = pool.submit(browser.login, me["email"], PASSWORD)
            until_they_wait(backend, login)
            for statement in statements:
                run(statement, me["id"])
        return login.result()


class TestLogin:
    def test_login_answers_the_user_and_sets_both_cookies_to_the_letter(
        self, anonymous: Browser, address: str
    ) -> None:
        """Requirement 1, POST /api/auth/login: "Backend MUST set tokens as HttpOnly cookies (NOT in
        response body)"."""
        answer = anonymous.login(address, PASSWORD)
        assert answer.status_code == 200
        assert answer.json() == {
            "user": {"id": anonymous.me()["id"], "email": address, "name": "Robin Roe", "role": "patient"}
        }
        access, refresh = cookies_set(answer)
        assert re.fullmatch(ACCESS_COOKIE, access)
        assert re.fullmatch(REFRESH_COOKIE + "604800", refresh)
        assert anonymous.cookies["access_token"] not in answer.text

    def test_a_wrong_password_and_an_unknown_email_get_the_same_401(
        self, anonymous: Browser, address: str
    ) -> None:
        """Requirement 1, POST /api/auth/login, Response 401."""
        wrong, unknown = anonymous.login(address, "not it"), anonymous.login(email(), PASSWORD)
        for answer in (wrong, unknown):
            assert answer.status_code == 401
            assert answer.json() == INVALID
            assert cookies_set(answer) == []
        assert set(wrong.headers) == set(unknown.headers)

    def test_login_trims_the_email_and_ignores_its_case(self, anonymous: Browser, address: str) -> None:
        """Contract, accounts: "Account e-mails are stored and answered trimmed, NFC and lower-cased"."""
        answer = anonymous.login(f"  {address.upper()} ", PASSWORD)
        assert answer.status_code == 200
        assert answer.json()["user"]["email"] == address

    @pytest.mark.parametrize(
        ("body", "detail"),
        [
            ({"email": "a@b.c"}, "password: is required"),
            ({"password": PASSWORD}, "email: is required"),
            ({"email": "", "password": PASSWORD}, "email: is required"),
            ({"email": " \t", "password": PASSWORD}, "email: is required"),
            ({"email": "a@b.c", "password": 123456}, "password: must be text"),
            ({"email": "a@b.c", "password": None}, "password: is required"),
            ({"email": ["a@b.c"], "password": PASSWORD}, "email: must be text"),
            ({"email": "a@b.c", "password": PASSWORD, "role": "admin"}, "role: is not a known field"),
            ([], "body: must be a JSON object"),
        ],
    )
    def test_an_invalid_login_body_is_400(self, anonymous: Browser, body: Any, detail: str) -> None:
        """Requirement 1, POST /api/auth/login, Request."""
        answer = anonymous.post("/api/auth/login", json=body)
        assert answer.status_code == 400
        assert answer.json()["detail"].startswith(detail)

    def test_a_disabled_account_gets_403_for_the_right_password_and_401_for_a_wrong_one(
        self, world: World
    ) -> None:
        """Contract, accounts: "its right password gets 403 with a clear detail (as a `disabled` one does),
        a wrong one 401"."""
        browser, me = world.account()
        world.admin.patch(f"/api/users/{me['id']}", {"status": "disabled"})
        right, wrong = browser.login(me["email"], PASSWORD), browser.login(me["email"], "not it")
        assert (right.status_code, right.json()) == (403, DISABLED)
        assert (wrong.status_code, wrong.json()) == (401, INVALID)
        assert cookies_set(right) == []

    def test_a_password_changed_while_it_is_being_checked_opens_no_session(
        self, backend: Backend, world: World
    ) -> None:
        """Contract, accounts: "changing its role or its password ends its sessions at once": a login that
        has read the old password already does not slip through behind it."""
        late, me = world.account()
        login = login_while(
            backend,
            late,
            me,
            "UPDATE users SET password_hash = 'another' WHERE id = $1",
            "UPDATE sessions SET ended_at = now() WHERE user_id = $1",
        )
        assert (login.status_code, login.json()) == (401, INVALID)
        assert late.get("/api/users/me").status_code == 401

    def test_login_answers_the_account_as_it_is_after_the_password_was_checked(
        self, backend: Backend, world: World
    ) -> None:
        """Contract, accounts: disabled meanwhile, 403; another role meanwhile, that in body and token."""
        late, me = world.account(Role.DOCTOR)
        disabled, demoted = (
            login_while(backend, late, me, f"UPDATE users SET {change} WHERE id = $1")
            for change in ("status = 'disabled'", "status = 'active', role = 'patient'")
        )
        assert (disabled.status_code, disabled.json()) == (403, DISABLED)
        assert cookies_set(disabled) == []
        assert (demoted.status_code, demoted.json()["user"]["role"]) == (200, "patient")
        assert claims(late.cookies["access_token"])["role"] == "patient"


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

    @pytest.mark.parametrize("rotations", [1, 2], ids=["once replaced", "twice replaced"])
    def test_a_used_refresh_token_presented_later_ends_the_session(
        self, backend: Backend, service: Service, address: str, signed_in: Browser, rotations: int
    ) -> None:
        """Contract, accounts: "A used refresh token presented again more than 30 s later ends the
        session"."""
        thief, elsewhere = service.browser(dict(signed_in.cookies)), service.browser()
        elsewhere.login(address, PASSWORD)
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


class TestLogout:
    CLEARED = (
        "access_token=; HttpOnly; Secure; SameSite=Strict; Path=/; Max-Age=0",
        "refresh_token=; HttpOnly; Secure; SameSite=Strict; Path=/api/auth/refresh; Max-Age=0",
    )

    def log_out(self, browser: Browser) -> None:
        """Whatever is sent, the answer is the same."""
        answer = browser.post("/api/auth/logout")
        assert (answer.status_code, answer.json()) == (200, {"message": "Logged out successfully"})
        assert cookies_set(answer) == list(self.CLEARED)
        assert browser.cookies == {}

    def test_logout_revokes_both_tokens_on_every_instance_and_no_other_session(
        self, service: Service, second_instance: Service, address: str, signed_in: Browser
    ) -> None:
        """Requirement 1, POST /api/auth/logout; contract: "both tokens are dead at once, on every instance.
        Other sessions of the user live on"."""
        phone = service.browser()
        phone.login(address, PASSWORD)
        copies = [instance.browser(dict(signed_in.cookies)) for instance in (service, second_instance)]
        for copy in copies:
            assert copy.get("/api/users/me").status_code == 200  # now both instances know the session

        self.log_out(signed_in)
        for copy in copies:
            assert copy.get("/api/users/me").status_code == 401
            assert copy.post("/api/auth/refresh").status_code == 401
        assert phone.get("/api/users/me").status_code == 200

    def test_logout_ends_the_session_of_an_expired_access_token(
        self, service: Service, signed_in: Browser
    ) -> None:
        """Contract, accounts: "logout ends the session of a validly signed access token, expired or not"."""
        lapsed = claims(signed_in.cookies["access_token"])
        lapsed["iat"], lapsed["exp"] = lapsed["iat"] - 7200, lapsed["exp"] - 7200
        browser = service.browser({"access_token": jwt.encode(lapsed, KEY)})
        assert browser.get("/api/users/me").status_code == 401
        assert signed_in.get("/api/users/me").status_code == 200

        self.log_out(browser)
        assert signed_in.get("/api/users/me").status_code == 401
        assert signed_in.post("/api/auth/refresh").status_code == 401

    def test_logout_without_cookies_or_with_dead_ones_is_200(
        self, service: Service, anonymous: Browser, signed_in: Browser
    ) -> None:
        """Contract, accounts: "Logout without cookies, or with dead ones, is 200 and clears both"."""
        self.log_out(anonymous)
        dead = service.browser(dict(signed_in.cookies))
        self.log_out(signed_in)
        self.log_out(dead)
        self.log_out(service.browser({"access_token": "nonsense"}))

    @pytest.mark.parametrize("kind", ["foreign key", "refresh token"])
    def test_logout_ignores_tokens_that_are_not_our_access_tokens(
        self, service: Service, signed_in: Browser, kind: str
    ) -> None:
        """Contract, accounts: "a validly signed access token"."""
        token = signed_in.cookies["access_token"]
        if kind == "foreign key":
            token = jwt.encode(claims(token), "another key " * 4)
        else:
            token = signed_in.cookies["refresh_token"]
        self.log_out(service.browser({"access_token": token}))
        assert signed_in.get("/api/users/me").status_code == 200

    @pytest.mark.parametrize(
        "cookies",
        [
            ["access_token=nonsense; access_token={mine}"],
            ["access_token={mine}; access_token=nonsense; access_token={mine}"],
            ["access_token=nonsense", "a=b; access_token={mine}"],
            ['access_token=""; access_token="{mine}"'],
            ["access_token={mine}; access_token={planted}"],
            ["access_token={planted}", "access_token={lapsed}"],
        ],
    )
    def test_logout_ends_the_session_even_beside_a_planted_cookie(
        self, backend: Backend, service: Service, world: World, signed_in: Browser, cookies: list[str]
    ) -> None:
        """Every validly signed one ends its session: nobody can say which of them was planted. Every other
        operation takes none of several (RFC 6265, 8.6)."""
        thief, _ = world.account()
        lapsed = claims(signed_in.cookies["access_token"])
        lapsed["iat"], lapsed["exp"] = lapsed["iat"] - 7200, lapsed["exp"] - 7200
        tokens = {
            "mine": signed_in.cookies["access_token"],
            "planted": thief.cookies["access_token"],
            "lapsed": jwt.encode(lapsed, KEY),
        }
        sent = [cookie.format(**tokens) for cookie in cookies]
        fields = "".join(f"Cookie: {cookie}\r\n" for cookie in sent)
        head = f"Host: localhost\r\nConnection: close\r\n{fields}\r\n"
        refused = service.raw(f"GET /api/users/me HTTP/1.1\r\n{head}".encode())
        assert refused.startswith(b"HTTP/1.1 401")
        answer = service.raw(f"POST /api/auth/logout HTTP/1.1\r\nContent-Length: 0\r\n{head}".encode())
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.decode().count("Max-Age=0") == 2
        assert signed_in.get("/api/users/me").status_code == 401
        assert signed_in.post("/api/auth/refresh").status_code == 401
        planted = any("{planted}" in cookie for cookie in cookies)
        assert thief.get("/api/users/me").status_code == (401 if planted else 200)


def age_refreshes(backend: Backend, browser: Browser, *, seconds: int) -> None:
    """Move the moments at which the session's refresh tokens were used into the past."""
    backend.sql(
        "UPDATE sessions SET used_refreshes = (SELECT coalesce(jsonb_object_agg(key, value::float - $2), "
        "'{}') FROM jsonb_each_text(used_refreshes)) WHERE id = $1",
        session_of(browser),
        float(seconds),
    )
