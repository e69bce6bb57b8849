"""Signing in, staying signed in and signing out (requirement, section 1)."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jwt
import pytest

from security.roles import Role
from tests.support import shifted
from tests.support.client import Browser
from tests.support.factories import PASSWORD, World, email
from tests.support.locks import transaction, until_they_wait
from tests.support.service import KEY, Backend, Service
from tests.support.session_cookies import ACCESS_COOKIE, REFRESH_COOKIE, claims, cookies_set

PENDING = {"detail": "This account is waiting for approval by an administrator"}
DISABLED = {"detail": "This account is disabled"}
INVALID = {"detail": "Invalid email or password"}


@pytest.fixture(scope="module")
def instances(backend: Backend) -> Iterator[tuple[str, str]]:
    """One instance whose clock is 40 s behind, and one whose clock is 40 s ahead."""
    with shifted.instance(backend, -40) as behind, shifted.instance(backend, 40) as ahead:
        yield behind, ahead


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
    @pytest.mark.slow
    def test_login_answers_the_user_and_sets_both_cookies_to_the_letter(
        self, anonymous: Browser, registered_email: str
    ) -> None:
        """Requirement 1, POST /api/auth/login: "Backend MUST set tokens as HttpOnly cookies (NOT in
        response body)"."""
        answer = anonymous.login(registered_email, PASSWORD)
        assert answer.status_code == 200
        assert answer.json() == {
            "user": {
                "id": anonymous.me()["id"],
                "email": registered_email,
                "name": "Robin Roe",
                "role": "patient",
            }
        }
        access, refresh = cookies_set(answer)
        assert re.fullmatch(ACCESS_COOKIE, access)
        assert re.fullmatch(REFRESH_COOKIE + "604800", refresh)
        assert anonymous.cookies["access_token"] not in answer.text

    def test_a_wrong_password_and_an_unknown_email_get_the_same_401(
        self, anonymous: Browser, registered_email: str
    ) -> None:
        """Requirement 1, POST /api/auth/login, Response 401."""
        wrong, unknown = anonymous.login(registered_email, "not it"), anonymous.login(email(), PASSWORD)
        for answer in (wrong, unknown):
            assert answer.status_code == 401
            assert answer.json() == INVALID
            assert cookies_set(answer) == []
        assert set(wrong.headers) == set(unknown.headers)

    def test_login_trims_the_email_and_ignores_its_case(
        self, anonymous: Browser, registered_email: str
    ) -> None:
        """Contract, accounts: "Account e-mails are stored and answered trimmed, NFC and lower-cased"."""
        answer = anonymous.login(f"  {registered_email.upper()} ", PASSWORD)
        assert answer.status_code == 200
        assert answer.json()["user"]["email"] == registered_email

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

    @pytest.mark.slow
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

    @pytest.mark.slow
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

    @pytest.mark.slow
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
        self, service: Service, second_instance: Service, registered_email: str, signed_in: Browser
    ) -> None:
        """Requirement 1, POST /api/auth/logout; contract: "both tokens are dead at once, on every instance.
        Other sessions of the user live on"."""
        phone = service.browser()
        phone.login(registered_email, PASSWORD)
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

    @pytest.mark.slow
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
