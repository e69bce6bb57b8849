"""Which pages may call us, and which may read our answers (requirement, "CORS Settings"; contract,
"Browsers")."""

from typing import Any
from uuid import uuid4

import pytest

from tests.api.http.helpers import (
    FOREIGN,
    LISTED,
    METHODS,
    assert_secured,
    calls_of_every_kind,
    contract_paths,
    preflight,
    raw,
    split_list,
)
from tests.support.client import Browser
from tests.support.factories import World, chart
from tests.support.service import Backend, Service

# Origins


@pytest.mark.slow
@pytest.mark.parametrize("origin", [LISTED, "http://localhost:3000", "own", "own over TLS", None])
@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "DELETE"])
def test_listed_and_own_origins_may_write(
    world: World, service: Service, method: str, origin: str | None
) -> None:
    """Contract, "Browsers": listed origins, our own by the Host header, and no origin at all."""
    own = {"own": service.url, "own over TLS": service.url.replace("http:", "https:")}
    headers = {} if origin is None else {"origin": own.get(origin, origin)}
    some = world.chart()
    path, body, status = {
        "POST": ("/api/patients", chart(), 201),
        "PATCH": (f"/api/patients/{some['id']}", {"name": "Changed"}, 200),
        "PUT": (f"/api/patients/{some['id']}/account", {"userId": str(uuid4())}, 404),
        "DELETE": (f"/api/patients/{some['id']}/account", None, 200),
    }[method]
    options = {} if body is None else {"json": body}
    assert world.staff.request(method, path, headers=headers, **options).status_code == status


FOREIGN_ORIGINS = [
    "null", "", FOREIGN, "http://localhost", "http://localhost:5174", "http://localhost:51730",
    "https://localhost:5173", "http://localhost:5173.evil.example", "http://localhost:5173@evil.example",
    "http://LOCALHOST:5173", "http://localhost:5173/", "http://127.0.0.1:5173", "ftp://localhost:5173",
    "http://[", "https://[::1", "http://\u00e9", "file://", "chrome-extension://x", f"{LISTED}, {FOREIGN}",
    "*", "localhost:5173",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
def test_foreign_origins_cannot_write(world: World, origin: str) -> None:
    """403 for every unsafe method; nothing changes, and no CORS header lets the page read the answer."""
    some = world.chart()
    headers: Any = {"origin": origin.encode("latin-1")}  # bytes, because httpx encodes text as ASCII
    for method, path, body in [
        ("PATCH", f"/api/patients/{some['id']}", {"name": "Forged"}),
        ("POST", "/api/auth/logout", None),
        ("PUT", f"/api/patients/{some['id']}/account", {"userId": world.patient.me()["id"]}),
        ("DELETE", f"/api/patients/{some['id']}/account", None),
    ]:
        options: dict[str, Any] = {} if body is None else {"json": body}
        refused = world.staff.request(method, path, headers=headers, **options)
        assert (refused.status_code, refused.json()) == (403, {"detail": "This origin is not allowed"})
        assert "set-cookie" not in refused.headers
        assert not [name for name in refused.headers if name.startswith("access-control-")]
    assert world.staff.get(f"/api/patients/{some['id']}").json() == some
    assert world.staff.get(f"/api/patients/{some['id']}/account").status_code == 404


def test_our_own_origin_is_the_one_of_the_host_header(service: Service, world: World) -> None:
    """A page of another host or port is foreign; behind a proxy, the host is the one that the proxy passes
    on."""
    cookie = f"Cookie: access_token={world.staff.cookies['access_token']}"
    for host, origin, status in [
        ("clinic.example", "https://clinic.example", 415),
        ("clinic.example", "http://clinic.example", 415),
        ("clinic.example:8443", "https://clinic.example:8443", 415),
        ("clinic.example:443", "https://clinic.example", 415),
        ("clinic.example", "http://clinic.example:80", 415),
        ("CLINIC.example", "https://clinic.example", 415),
        ("[::1]:443", "https://[::1]", 415),
        ("clinic.example:443", "http://clinic.example", 403),
        ("clinic.example:80", "https://clinic.example", 403),
        ("clinic.example", "https://clinic.example:8443", 403),
        ("clinic.example:8443", "https://clinic.example", 403),
        ("clinic.example", "https://evil.clinic.example", 403),
        ("clinic.example", "https://clinic.example.evil", 403),
        ("clinic.example", service.url, 403),
        ("clinic.example", "ftp://clinic.example", 403),
    ]:
        lines = ["POST /api/patients HTTP/1.1", f"Host: {host}", f"Origin: {origin}", cookie]
        assert raw(service, *lines)[0] == status, (host, origin)
    no_host = ["POST /api/patients HTTP/1.0", cookie]
    for origin in ("http://", "http://None", "https://localhost"):
        assert raw(service, *no_host, f"Origin: {origin}")[0] == 403


def test_a_request_with_two_origins_is_403(service: Service) -> None:
    lines = ["POST /api/auth/logout HTTP/1.1", "Host: localhost", f"Origin: {LISTED}", f"Origin: {LISTED}"]
    assert raw(service, *lines)[0] == 403


@pytest.mark.parametrize("origin", ["null", FOREIGN, "http://["])
def test_foreign_origins_may_send_safe_methods_but_not_read_the_answer(world: World, origin: str) -> None:
    """No CORS header lets the page read the answer."""
    for method, path, status in [("GET", "/api/patients", 200), ("OPTIONS", "/api/patients", 204)]:
        answer = world.staff.request(method, path, headers={"origin": origin})
        assert answer.status_code == status
        assert not [name for name in answer.headers if name.startswith("access-control-")]


# CORS


def assert_shared(headers: Any, origin: str) -> None:
    """The headers with which a browser lets a page at `origin` read the answer and use cookies (requirement,
    CORS Settings, "CRITICAL for HttpOnly Cookies": `allow_credentials=True`)."""
    assert headers["access-control-allow-origin"] == origin
    assert headers["access-control-allow-credentials"] == "true"
    exposed = split_list(headers["access-control-expose-headers"].lower())
    assert {"retry-after", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"} <= exposed
    assert "x-request-id" in exposed
    assert "*" not in "".join(value for name, value in headers.items() if name.startswith("access-control-"))


@pytest.mark.parametrize("origin", [LISTED, "http://localhost:3000"])
def test_listed_origins_may_read_every_answer(world: World, anonymous: Browser, origin: str) -> None:
    """Requirement, CORS Settings: `allow_origins`, both of them. Errors too: without these headers a page
    sees "Network Error" instead of a 401."""
    for browser, method, path, options, status in calls_of_every_kind(world, anonymous):
        headers = {**options.pop("headers", {}), "origin": origin}
        answer = browser.request(method, path, headers=headers, **options)
        assert answer.status_code == status
        assert_shared(answer.headers, origin)
        assert "origin" in split_list(answer.headers["vary"].lower())


def test_listed_origins_may_read_a_429(world: World, backend: Backend) -> None:
    """Its Retry-After as well."""
    with Service(backend, backend.settings(rate_limit_per_minute=1)) as strict:
        browser = strict.browser(world.other_doctor.cookies)
        browser.get("/api/users/me")
        answer = browser.get("/api/users/me", headers={"origin": LISTED})
        refused = browser.get("/api/users/me", headers={"origin": FOREIGN})
    assert answer.status_code == refused.status_code == 429
    assert_shared(answer.headers, LISTED)
    assert int(answer.headers["retry-after"]) >= 1
    assert_secured(answer.headers)
    assert "access-control-allow-origin" not in refused.headers


def test_cors_origins_replaces_the_default_origins(world: World, backend: Backend) -> None:
    """CORS_ORIGINS replaces the two of the requirement (CORS Settings: "Add production domains")."""
    with Service(backend, backend.settings(cors_origins=("https://clinic.example",))) as other:
        browser = other.browser(world.staff.cookies)
        page = {"origin": "https://clinic.example"}
        assert_shared(browser.get("/api/users/me", headers=page).headers, "https://clinic.example")
        assert browser.patch("/api/users/me", {}, headers=page).status_code == 200
        former = browser.get("/api/users/me", headers={"origin": LISTED})
        assert "access-control-allow-origin" not in former.headers
        assert browser.patch("/api/users/me", {}, headers={"origin": LISTED}).status_code == 403


NO_PATHS = ["/api/nothing", "/", "//api/users", "/api/users/", "/%61pi/users", "/api/patients/%00", "/é"]


@pytest.mark.slow
@pytest.mark.parametrize("path", [*contract_paths(), *NO_PATHS])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_preflights_from_listed_origins_are_204(anonymous: Browser, path: str, method: str) -> None:
    """Requirement, CORS Settings: `allow_methods=["*"]`, `allow_headers=["*"]`, spelt out, because cookies
    come along. 204 for a listed origin, without cookies, whatever the path: the request itself will be
    judged, and the page may read that it is 404. No header is `*`."""
    asked = {"access-control-request-headers": "content-type, x-requested-with,X-Anything, *"}
    answer = preflight(anonymous, path, LISTED, method, **asked)
    assert (answer.status_code, answer.content) == (204, b"")
    assert_shared(answer.headers, LISTED)
    assert split_list(answer.headers["access-control-allow-methods"]) >= METHODS - {"HEAD"}
    assert answer.headers["access-control-allow-headers"] == "content-type, x-requested-with, X-Anything"
    assert int(answer.headers["access-control-max-age"]) > 0
    assert "origin" in split_list(answer.headers["vary"].lower())
    assert "set-cookie" not in answer.headers


def test_a_preflight_that_asks_for_no_header_allows_none(anonymous: Browser) -> None:
    answer = preflight(anonymous, "/api/patients", LISTED, "GET")
    assert answer.status_code == 204
    assert "access-control-allow-headers" not in answer.headers


@pytest.mark.parametrize("path", ["/api/patients", *NO_PATHS])
@pytest.mark.parametrize("origin", [FOREIGN, "null", "", "http://localhost:5174", "http://["])
def test_preflights_from_foreign_origins_are_400(anonymous: Browser, origin: str, path: str) -> None:
    """Contract, "Errors": 400 as JSON, without CORS headers."""
    answer = preflight(anonymous, path, origin, "POST")
    assert (answer.status_code, answer.json()) == (400, {"detail": "This origin is not allowed"})
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "BREW", "get", "*", ""])
def test_preflights_for_unknown_methods_are_400(anonymous: Browser, method: str) -> None:
    answer = preflight(anonymous, "/api/patients", LISTED, method)
    assert (answer.status_code, answer.json()) == (400, {"detail": "Method not allowed"})


def test_preflights_do_not_count_for_the_limit(backend: Backend) -> None:
    """Contract, "The limit": OPTIONS is exempt."""
    with Service(backend, backend.settings(rate_limit_per_minute=1)) as strict:
        browser = strict.browser()
        for _ in range(5):
            assert preflight(browser, "/api/patients", LISTED, "GET").status_code == 204
            assert browser.request("OPTIONS", "/api/patients").status_code == 204
