"""Which tokens are accepted (requirement, "JWT Token Structure"; RFC 8725)."""

import base64
import json
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import pytest

from tests.support.client import Browser
from tests.support.factories import PASSWORD, World
from tests.support.service import KEY, Backend, Service
from tests.support.tokens import Claims, claims, signed


@pytest.fixture(scope="module")
def fresh_cookies(world: World) -> dict[str, str]:
    """Of a patient who has signed in just now."""
    browser = world.service.browser()
    assert browser.login(world.patient.me()["email"], PASSWORD).status_code == 200
    return dict(browser.cookies)


@pytest.fixture(scope="module")
def access(fresh_cookies: dict[str, str]) -> str:
    return fresh_cookies["access_token"]


@pytest.fixture(scope="module")
def refresh(fresh_cookies: dict[str, str]) -> str:
    return fresh_cookies["refresh_token"]


def encoded(part: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def with_payload(token: str, payload: Any) -> str:
    """The token with another payload and the old signature."""
    header, _, signature = token.split(".")
    return f"{header}.{encoded(payload)}.{signature}"


def unsigned(payload: Claims, algorithm: str) -> str:
    return f"{encoded({'alg': algorithm, 'typ': 'JWT'})}.{encoded(payload)}."


def without(payload: Claims, name: str) -> Claims:
    return {key: value for key, value in payload.items() if key != name}


def signed_without(name: str) -> Callable[[Claims], str]:
    return lambda payload: signed(without(payload, name))


def status_of(service: Service, token: str) -> int:
    """The status that a request with this access token gets."""
    return service.browser({"access_token": token}).get("/api/users/me").status_code


def test_tokens_have_the_claims_of_the_requirement_and_of_a_session(
    world: World, access: str, refresh: str
) -> None:
    """Requirement, JWT Token Structure: `sub`, `email`, `role`, `exp`; contract: "plus `iat` …, `sid`,
    `jti` and a claim that tells access from refresh"."""
    me, kinds = world.patient.me(), {"access": (access, 900), "refresh": (refresh, 604_800)}
    for kind, (token, life) in kinds.items():
        assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}
        carried = claims(token)
        assert carried.keys() == {"sub", "email", "role", "exp", "iat", "sid", "jti", "kind"}
        assert (carried["sub"], carried["email"], carried["role"]) == (me["id"], me["email"], "patient")
        assert carried["kind"] == kind
        assert carried["exp"] - carried["iat"] == pytest.approx(life, abs=2)
        assert {type(carried["exp"]), type(carried["iat"])} == {int}
        assert UUID(carried["sid"])
        assert UUID(carried["jti"])
    assert claims(access)["sid"] == claims(refresh)["sid"]
    assert claims(access)["jti"] != claims(refresh)["jti"]


def test_a_token_signed_again_with_our_key_is_accepted(service: Service, access: str) -> None:
    """So the tests below fail for what they change, and for nothing else."""
    assert status_of(service, signed(claims(access))) == 200


REFUSED: dict[str, Callable[[Claims], str]] = {
    "alg none": lambda c: unsigned(c, "none"),
    "alg None": lambda c: unsigned(c, "None"),
    "alg empty": lambda c: unsigned(c, ""),
    "alg HS256, unsigned": lambda c: unsigned(c, "HS256"),
    "another algorithm, our key": lambda c: signed(c, algorithm="HS512"),
    "another key": lambda c: signed(c, "another key " * 4),
    "an empty key": lambda c: f"{unsigned(c, 'HS256')}{encoded('')}",
    "payload tampered": lambda c: with_payload(signed(c), {**c, "role": "admin"}),
    "payload a list": lambda c: with_payload(signed(c), [c]),
    "signature cut": lambda c: signed(c)[:-1],
    "signature of another": lambda c: f"{unsigned(c, 'HS256')}{signed({**c, 'x': 1}).split('.')[2]}",
    "two parts": lambda c: signed(c).rpartition(".")[0],
    "four parts": lambda c: f"{signed(c)}.{encoded('')}",
    "oversized": lambda c: signed({**c, "padding": "x" * 4096}),
    "not a token": lambda c: "null",
    **{f"no {name}": signed_without(name) for name in ("exp", "iat", "sub", "sid", "jti", "kind")},
    "expired": lambda c: signed({**c, "exp": int(time.time()) - 1}),
    "expired an hour ago": lambda c: signed({**c, "iat": c["iat"] - 4500, "exp": int(time.time()) - 3600}),
    "exp null": lambda c: signed({**c, "exp": None}),
    "exp a word": lambda c: f"{(t := signed(c)).split('.')[0]}.{encoded({**c, 'exp': 'never'})}.{t[-43:]}",
    "iat 150 s ahead": lambda c: signed({**c, "iat": int(time.time()) + 150}),
    "iat five minutes ahead": lambda c: signed({**c, "iat": int(time.time()) + 300}),
    "iat a word": lambda c: signed({**c, "iat": "now"}),
    "nbf ahead": lambda c: signed({**c, "nbf": int(time.time()) + 3600}),
    "sub not a UUID": lambda c: signed({**c, "sub": "1"}),
    "sub a number": lambda c: signed({**c, "sub": 1}),
    "sub in braces": lambda c: signed({**c, "sub": f"{{{c['sub']}}}"}),
    "sub another user": lambda c: signed({**c, "sub": str(uuid4())}),
    "sid not a UUID": lambda c: signed({**c, "sid": "' OR true --"}),
    "sid unknown": lambda c: signed({**c, "sid": str(uuid4())}),
    "jti not a UUID": lambda c: signed({**c, "jti": "x"}),
    "kind refresh": lambda c: signed({**c, "kind": "refresh"}),
    "kind unknown": lambda c: signed({**c, "kind": "admin"}),
    "kind a list": lambda c: signed({**c, "kind": ["access"]}),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED.keys())
def test_an_access_token_that_is_wrong_in_any_way_is_401(
    service: Service, access: str, make: Callable[[Claims], str]
) -> None:
    """Contract, accounts: "`exp` is required, the algorithm is the configured one only"."""
    answer = service.browser({"access_token": make(claims(access))}).get("/api/users/me")
    assert (answer.status_code, answer.json()) == (401, {"detail": "Not authenticated"})
    assert answer.headers["www-authenticate"]


@pytest.mark.parametrize("name", ["alg none", "another key", "no exp", "expired", "sub another user"])
def test_a_refresh_token_that_is_wrong_in_any_way_is_401(service: Service, refresh: str, name: str) -> None:
    """Requirement 1, POST /api/auth/refresh: "Backend validates it"."""
    browser = service.browser({"refresh_token": REFUSED[name](claims(refresh))})
    assert browser.post("/api/auth/refresh").status_code == 401


def test_access_and_refresh_tokens_do_not_replace_each_other(
    service: Service, access: str, refresh: str
) -> None:
    """Contract, accounts: "a claim that tells access from refresh"."""
    assert status_of(service, refresh) == 401
    assert service.browser({"refresh_token": access}).post("/api/auth/refresh").status_code == 401


@pytest.mark.parametrize("ahead", [-60, 60, 110])
def test_a_token_issued_up_to_120_s_ahead_is_accepted(service: Service, access: str, ahead: int) -> None:
    """Contract, accounts: "`iat` (up to 120 s ahead is a clock, more is 401)"."""
    assert status_of(service, signed({**claims(access), "iat": int(time.time()) + ahead})) == 200


def test_a_claim_of_a_role_gives_nobody_that_role(service: Service, world: World, access: str) -> None:
    """Contract, who may do what: a claim of ours that says "admin" makes nobody an administrator."""
    browser = service.browser({"access_token": signed({**claims(access), "role": "admin", "email": "x"})})
    assert browser.me() == world.patient.me()
    assert browser.get("/api/users").status_code == 403


def test_a_token_is_read_from_its_cookie_only(
    service: Service, anonymous: Browser, world: World, access: str
) -> None:
    """Requirement 2, "Automatic via HttpOnly cookie (no Authorization header needed)"; contract: "No Bearer
    header, no query token"."""
    bearer = {"authorization": f"Bearer {access}"}
    assert anonymous.get("/api/users/me", headers=bearer).status_code == 401
    assert anonymous.get(f"/api/users/me?access_token={access}&token={access}").status_code == 401
    assert anonymous.get("/api/users/me", headers={"access_token": access}).status_code == 401

    both = world.staff.get("/api/users/me", headers=bearer)
    assert both.json()["role"] == "staff"
    assert world.staff.get("/api/users/me", headers={"authorization": "Bearer x"}).status_code == 200


@pytest.mark.parametrize(
    ("cookies", "status"),
    [
        (["access_token={good}"], 200),
        (["theme=dark; access_token={good}; lang=en"], 200),
        (["theme=dark", "access_token={good}"], 200),
        (["access_token={good}; access_token={good}"], 401),
        (["access_token={good}; access_token=planted"], 401),
        (["access_token=planted; access_token={good}"], 401),
        (["access_token={good}", "access_token=planted"], 401),
        (["xaccess_token={good}"], 401),
        (["ACCESS_TOKEN={good}"], 401),
        (["access_token="], 401),
        (["access_token=\u00e9{good}"], 401),
    ],
)
def test_an_access_cookie_that_is_sent_twice_is_401(
    anonymous: Browser, access: str, cookies: list[str], status: int
) -> None:
    """RFC 6265, 8.6: another site of the domain may have set one of two, and nobody can tell which."""
    headers = httpx.Headers([(b"cookie", line.format(good=access).encode("latin-1")) for line in cookies])
    assert anonymous.get("/api/users/me", headers=headers).status_code == status


def test_tokens_are_signed_with_the_algorithm_of_the_setting(backend: Backend, world: World) -> None:
    """Requirement, Environment Variables: ALGORITHM; the one configured is the only one taken."""
    key = KEY * 2  # RFC 7518, 3.2: a key as long as the hash
    with Service(backend, backend.settings(algorithm="HS512", secret_key=key)) as strict:
        browser = strict.browser()
        assert browser.login(world.patient.me()["email"], PASSWORD).status_code == 200
        assert browser.get("/api/users/me").status_code == 200
        token = browser.cookies["access_token"]
        assert jwt.get_unverified_header(token)["alg"] == "HS512"
        assert status_of(strict, signed(jwt.decode(token, key, algorithms=["HS512"]), key)) == 401


def test_tokens_live_as_long_as_the_settings_say(backend: Backend, world: World) -> None:
    """Requirement, Environment Variables: ACCESS_TOKEN_EXPIRE_MINUTES, REFRESH_TOKEN_EXPIRE_DAYS."""
    settings = backend.settings(access_token_expire_minutes=5, refresh_token_expire_days=1)
    with Service(backend, settings) as brief:
        browser = brief.browser()
        answer = browser.login(world.patient.me()["email"], PASSWORD)
        lives = [cookie.rpartition("Max-Age=")[2] for cookie in answer.headers.get_list("set-cookie")]
        assert lives == ["300", "86400"]
        for name, life in (("access_token", 300), ("refresh_token", 86_400)):
            carried = claims(browser.cookies[name])
            assert carried["exp"] - carried["iat"] == pytest.approx(life, abs=2)


@pytest.mark.slow
def test_a_new_secret_key_signs_everybody_out(backend: Backend, access: str) -> None:
    """Requirement, Environment Variables: SECRET_KEY."""
    with Service(backend, backend.settings(secret_key="rotated-" * 5)) as rotated:
        assert status_of(rotated, access) == 401


@pytest.mark.slow
def test_the_tokens_of_the_longest_email_fit_in_a_cookie(world: World) -> None:
    """Browsers keep 4,096 bytes of a cookie (RFC 6265, 6.1)."""
    browser, me = world.account(email="\N{GRINNING FACE}" * 241 + uuid4().hex[:8] + "@x.io")
    assert len(me["email"]) == 254
    assert max(len(cookie) for cookie in browser.cookies.values()) < 3_900
