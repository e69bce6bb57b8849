"""Rotation of keys, headers of a token, spraying, common passwords, response headers, duplicate fields, and
what logs must not have (ASVS 5.0, chapters 3, 4, 6, 9, 13 and 16)."""

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jwt
import pytest

from api.contract import contract
from tests.support.client import Browser
from tests.support.factories import PASSWORD, World, chart, email, registration
from tests.support.openapi import with_values
from tests.support.service import KEY, Backend, Service

NEW_KEY = "a-new-key-0123456789-0123456789-0123456789"


# Keys and headers of tokens (ASVS 5.0, 9.1; RFC 8725, 3.1, 3.10)


@pytest.mark.slow
def test_the_previous_key_verifies_tokens_and_never_signs_them(world: World, backend: Backend) -> None:
    browser, _ = world.account()
    with Service(backend, backend.settings(secret_key=NEW_KEY, secret_key_previous=KEY)) as rotated:
        known = rotated.browser(dict(browser.cookies))
        assert known.get("/api/users/me").status_code == 200
        assert known.post("/api/auth/refresh").status_code == 200
        for cookie in known.cookies.values():
            assert jwt.decode(cookie, NEW_KEY, algorithms=["HS256"])
    with Service(backend, backend.settings(secret_key=NEW_KEY)) as later:
        assert later.browser(dict(browser.cookies)).get("/api/users/me").status_code == 401
        assert later.browser(dict(known.cookies)).get("/api/users/me").status_code == 200


@pytest.mark.parametrize(
    "extra",
    [
        {"kid": "1"},
        {"kid": "../../dev/null"},
        {"jku": "https://evil.example/keys"},
        {"jwk": {"kty": "oct", "k": "AAAA"}},
        {"x5u": "https://evil.example/cert"},
        {"crit": ["exp"]},
        {"cty": "JWT"},
        {"typ": "at+jwt"},
        {"b64": False},
    ],
)
def test_a_token_with_another_header_than_ours_is_401(extra: dict[str, Any], world: World) -> None:
    """Even if its signature is right."""
    claims = jwt.decode(world.staff.cookies["access_token"], KEY, algorithms=["HS256"])
    token = jwt.encode(claims, KEY, "HS256", headers=extra)
    assert world.service.browser({"access_token": token}).get("/api/users/me").status_code == 401


# Passwords and spraying (ASVS 5.0, 6.2 and 6.3)


@pytest.mark.slow
def test_common_passwords_are_refused_if_the_setting_says_so(backend: Backend, world: World) -> None:
    assert (
        world.service.browser().post("/api/auth/register", registration(password="password1")).status_code
        == 201
    )
    with Service(backend, backend.settings(refuse_common_passwords=True)) as strict:
        anonymous = strict.browser()
        for password in ("password1", "QWERTY123", "123456"):
            refused = anonymous.post("/api/auth/register", registration(password=password))
            assert refused.status_code == 400
            assert refused.json()["detail"].startswith("password: is one of the most common")
        made = registration(password=PASSWORD)
        assert anonymous.post("/api/auth/register", made).status_code == 201
        anonymous.login(made["email"], PASSWORD)
        change = {"currentPassword": PASSWORD, "newPassword": "football"}
        assert anonymous.post("/api/users/me/password", change).status_code == 400


@pytest.mark.slow
def test_spraying_many_accounts_from_one_address_is_limited(backend: Backend, world: World) -> None:
    """LOGIN_FAILURES_PER_ADDRESS: the same 429, on two instances together; successes do not count."""
    _, me = world.account()
    limits = {"login_failures_per_address": 6, "login_attempts": 5}
    with backend.redis as redis:
        redis.flushall()
    with (
        Service(backend, backend.settings(**limits)) as one,
        Service(backend, backend.settings(**limits)) as two,
    ):
        assert one.browser().login(me["email"], PASSWORD).status_code == 200

        def spray(number: int) -> int:
            return (one if number % 2 else two).browser().login(email(), "guess").status_code

        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(spray, range(16)))
        assert statuses.count(401) == 6
        assert statuses.count(429) == 10
        locked = two.browser().login(me["email"], PASSWORD)
        assert locked.status_code == 429
        assert locked.json()["detail"] == "Too many failed attempts. Please try again in 15 minute(s)."
        assert 0 < int(locked.headers["retry-after"]) <= 900


@pytest.mark.slow
def test_sign_in_looks_the_same_for_known_and_unknown_emails(backend: Backend, world: World) -> None:
    """In status, body and the names of the headers, attempt by attempt, into the lock."""
    _, me = world.account()
    with Service(backend, backend.settings(login_attempts=3)) as service:

        def seen(address: str) -> list[Any]:
            answers = [service.browser().login(address, "not right") for _ in range(5)]
            volatile = {"date", "x-request-id", "ratelimit-reset", "retry-after"}  # told apart by time only
            return [
                (
                    a.status_code,
                    a.text,
                    sorted((k, "" if k in volatile else v) for k, v in a.headers.items()),
                )
                for a in answers
            ]

        assert seen(me["email"]) == seen(email())


# Answers


def paths() -> list[tuple[str, str]]:
    return [
        (method.upper(), with_values(path, "1a2b3c4d-5e6f-4a1b-8c2d-5d9e4f304a05"))
        for path, item in contract()["paths"].items()
        for method in item
        if method in {"get", "post", "put", "patch", "delete"}
    ] + [("GET", "/nowhere"), ("DELETE", "/api/doctors"), ("OPTIONS", "/api/patients")]


@pytest.mark.parametrize(("method", "path"), paths())
def test_security_headers_are_on_every_answer(method: str, path: str, anonymous: Browser) -> None:
    headers = anonymous.request(method, path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-site"
    assert headers["x-request-id"]
    assert "server" not in headers
    assert "x-powered-by" not in headers
    assert "strict-transport-security" not in headers  # plain http here
    if path.startswith("/api"):
        assert headers["cache-control"] == "no-store"


def test_hsts_is_sent_if_served_over_https(backend: Backend) -> None:
    with Service(backend, backend.settings(trusted_proxies=("127.0.0.1", "::1"))) as behind_tls:
        forwarded = {"x-forwarded-proto": "https", "x-forwarded-for": "203.0.113.9"}
        headers = behind_tls.browser().get("/health/live", headers=forwarded).headers
        assert headers["strict-transport-security"] == "max-age=31536000; includeSubDomains"


def test_security_txt_has_a_contact_and_an_expiry(anonymous: Browser) -> None:
    """RFC 9116: a contact, and a date of expiry within a year."""
    answer = anonymous.get("/.well-known/security.txt")
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.text.startswith("Contact: mailto:")
    assert "\nExpires: 20" in answer.text


# Requests


@pytest.mark.parametrize(
    "body",
    [
        '{"name": "A", "name": "B"}',
        '{"name": "A", "phone": "1", "name": "A"}',
        '{"name": "A", "n\\u0061me": "B"}',
    ],
)
def test_a_body_that_gives_a_field_twice_is_400(body: str, world: World) -> None:
    answer = world.patient.request(
        "PATCH", "/api/users/me", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400
    assert answer.json() == {"detail": "body: a field may be given only once"}


@pytest.mark.parametrize(
    "path",
    [
        *("//api/users", "/api//users", "/api/users/", "/api/users//", "/api/users%2f", "/api%2fusers/"),
        *("/API/users", "/api/Users", "/api/users;x=1", "/api/users%00"),
    ],
)
def test_other_spellings_of_a_path_are_404(path: str, world: World, anonymous: Browser) -> None:
    """They give access to nothing, not even to an administrator."""
    assert anonymous.get(path).status_code == 404
    assert world.admin.get(path).status_code == 404


# Logs


def test_logs_have_no_query_no_body_and_no_values(
    world: World, backend: Backend, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not even those of a request that ends in 500 (ASVS 5.0, 16.2.5): a search term is a patient's name."""
    secret = "Quatermass"
    caplog.set_level(logging.DEBUG)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("httpcore").setLevel(logging.WARNING)
    backend.sql("ALTER TABLE patients ADD CONSTRAINT broken CHECK (false) NOT VALID")
    try:
        assert world.staff.get(f"/api/patients?search={secret}").status_code == 200
        assert world.staff.post("/api/patients", chart(name=secret, allergies=secret)).status_code == 500
    finally:
        backend.sql("ALTER TABLE patients DROP CONSTRAINT broken")
    written = caplog.text + "".join(capfd.readouterr())
    assert "POST /api/patients" in written
    assert secret.lower() not in written.lower()
    assert PASSWORD not in written
    assert world.staff.cookies["access_token"] not in written
