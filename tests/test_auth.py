"""Registering, signing in, staying signed in and signing out (requirement, section 1)."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest

from security.roles import Role
from tests.client import Browser
from tests.factories import PASSWORD, World, email, registration
from tests.service import KEY, Backend, Service

JWT = r"[\w-]+\.[\w-]+\.[\w-]+"
ACCESS_COOKIE = f"access_token={JWT}; HttpOnly; Secure; SameSite=Strict; Path=/; Max-Age=900"
REFRESH_COOKIE = f"refresh_token={JWT}; HttpOnly; Secure; SameSite=Strict; Path=/api/auth/refresh; Max-Age="
PENDING = {"detail": "This account is waiting for approval by an administrator"}
DISABLED = {"detail": "This account is disabled"}
INVALID = {"detail": "Invalid email or password"}
NOT_SIGNED_IN = {"detail": "Not authenticated"}


@pytest.fixture(scope="module")
def address(anonymous_browser: Browser) -> str:
    """The e-mail of a patient who registered himself; anyone may sign in as him, nobody changes him."""
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
def second_instance(backend: Backend) -> Iterator[Service]:
    with Service(backend, backend.settings()) as running:
        yield running


def cookies_set(response: Any) -> list[str]:
    return list(response.headers.get_list("set-cookie"))


def claims(token: str) -> dict[str, Any]:
    return dict(jwt.decode(token, KEY, algorithms=["HS256"], options={"verify_exp": False}))


def session_of(browser: Browser) -> str:
    return str(claims(browser.cookies["access_token"])["sid"])


def forget(backend: Backend, browser: Browser) -> None:
    """What five seconds do: no instance remembers the session, and PostgreSQL is asked again."""
    with backend.redis as connection:
        connection.delete(f"session:{session_of(browser)}")


def stored(backend: Backend, account: str) -> dict[str, Any]:
    [row] = backend.sql("SELECT * FROM users WHERE email = $1", account)
    return dict(row)


class TestLogin:
    def test_answers_the_user_and_sets_both_cookies_to_the_letter(
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

    def test_a_wrong_password_and_an_unknown_email_look_the_same(
        self, anonymous: Browser, address: str
    ) -> None:
        """Requirement 1, POST /api/auth/login, Response 401."""
        wrong, unknown = anonymous.login(address, "not it"), anonymous.login(email(), PASSWORD)
        for answer in (wrong, unknown):
            assert answer.status_code == 401
            assert answer.json() == INVALID
            assert cookies_set(answer) == []
        assert set(wrong.headers) == set(unknown.headers)

    def test_the_email_is_trimmed_and_its_case_does_not_matter(
        self, anonymous: Browser, address: str
    ) -> None:
        """Contract, accounts: "e-mails are stored and answered trimmed and lower-cased"."""
        answer = anonymous.login(f"  {address.upper()} ", PASSWORD)
        assert answer.status_code == 200
        assert answer.json()["user"]["email"] == address

    @pytest.mark.parametrize(
        ("body", "detail"),
        [
            ({"email": "a@b.c"}, "password: is required"),
            ({"password": PASSWORD}, "email: is required"),
            ({"email": "", "password": PASSWORD}, "email: must be text of 1 to 254 characters"),
            ({"email": "a@b.c", "password": 123456}, "password: must be text"),
            ({"email": "a@b.c", "password": None}, "password: must be text"),
            ({"email": ["a@b.c"], "password": PASSWORD}, "email: must be text"),
            ({"email": "a@b.c", "password": PASSWORD, "role": "admin"}, "body: has an unknown field"),
            ([], "body: must be a JSON object"),
        ],
    )
    def test_a_body_that_breaks_the_contract_is_400(self, anonymous: Browser, body: Any, detail: str) -> None:
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
        self, service: Service, world: World
    ) -> None:
        """Contract, accounts: "changing its role or its password ends its sessions at once": a login that
        has read the old password already must not slip through behind it."""
        _, me = world.account()
        late = service.browser()

        def sign_in() -> int:
            return late.login(me["email"], PASSWORD).status_code

        with ThreadPoolExecutor(2) as pool:
            with service.backend.held("SELECT 1 FROM users WHERE email = $1 FOR UPDATE", me["email"]):
                login = pool.submit(sign_in)
                reset = pool.submit(
                    world.admin.post, f"/api/users/{me['id']}/password", {"newPassword": "another horse"}
                )
            assert (login.result(), reset.result().status_code) in {(200, 200), (401, 200)}
        assert late.get("/api/users/me").status_code == 401
