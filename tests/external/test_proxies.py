"""Behind Debian's HAProxy and nginx: what callers send to get around them, and what idles in between."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.external.proxies import start_haproxy, start_nginx
from tests.external.running import OPERATOR, access_cookie, start_production

CALLER = "127.0.0.2"  # not the proxy's own address, which is trusted
FORGED = "198.51.100.7"
BODY_TIMEOUT_SECONDS = 2
KEEP_ALIVE_SECONDS = 4
LOGIN_HEAD = b"POST /api/auth/login HTTP/1.1\r\nHost: clinic.example\r\nContent-Type: application/json\r\n"
PROXIES = {"HAProxy": start_haproxy, "nginx": start_nginx}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = {
        "BODY_TIMEOUT_SECONDS": str(BODY_TIMEOUT_SECONDS),
        "KEEP_ALIVE_SECONDS": str(KEEP_ALIVE_SECONDS),
    }
    trusting = {"TRUSTED_PROXIES": "127.0.0.1", "LOGIN_ATTEMPTS": "1000"}
    with start_production(tmp_path_factory.mktemp("service"), **settings, **trusting) as url:
        yield url


@pytest.fixture(scope="module", params=PROXIES)
def proxy(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, url: str
) -> Iterator[int]:
    with PROXIES[request.param](tmp_path_factory.mktemp(request.param), url) as port:
        yield port


@contextmanager
def connect(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=20, source_address=(CALLER, 0)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield connection


def read_answer(connection: socket.socket) -> tuple[int, bytes]:
    """Status and what follows, up to the end of the connection."""
    received = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, rest = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), rest


def exchange(port: int, request: bytes) -> tuple[int, bytes]:
    with connect(port) as connection:
        connection.sendall(request)
        return read_answer(connection)


def credentials() -> bytes:
    return json.dumps({"email": "nobody@clinic.example", "password": "not right"}).encode()


def latest_address(url: str) -> str:
    """The address of the newest failed sign-in in the trail."""
    with httpx.Client(base_url=f"{url}/api", trust_env=False) as client:
        cookie = {"cookie": access_cookie(client.post("/auth/login", json=OPERATOR))}
        events = client.get("/audit", params={"action": "auth.login"}, headers=cookie).json()["events"]
    return next(str(event["address"]) for event in events if event["outcome"] != "success")


def test_audit_trail_names_the_caller_not_a_forged_x_forwarded_for(proxy: int, url: str) -> None:
    """HAProxy forwards trailers. Neither those nor the headers that the caller sends count."""
    body = credentials()
    trailer = f"X-Forwarded-For: {FORGED}\r\nX-Forwarded-Proto: https\r\n".encode()
    chunked = b"%x\r\n%s\r\n0\r\n%s\r\n" % (len(body), body, trailer)
    fields = b"Connection: close\r\nTransfer-Encoding: chunked\r\n"
    for forged in (b"", f"X-Forwarded-For: {FORGED}\r\n".encode()):
        status, rest = exchange(proxy, LOGIN_HEAD + fields + forged + b"\r\n" + chunked)
        assert status == 401
        assert b"Invalid email or password" in rest
        assert latest_address(url) == CALLER


@pytest.mark.parametrize("fields", [b"Content-Length: 100000\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_body_that_drips_through_a_proxy_is_timed_out(proxy: int, fields: bytes) -> None:
    drop = b" " if b"Length" in fields else b"1\r\n \r\n"
    with connect(proxy) as connection:
        began = time.monotonic()
        connection.sendall(LOGIN_HEAD + b"Connection: close\r\n" + fields + b"\r\n")
        connection.settimeout(0.2)
        received = b""
        while b"\r\n\r\n" not in received:
            assert time.monotonic() - began < 10 * BODY_TIMEOUT_SECONDS
            connection.sendall(drop)
            try:
                received += connection.recv(65536)
            except TimeoutError:
                continue
            assert received
        assert time.monotonic() - began > BODY_TIMEOUT_SECONDS - 1
    assert received.split()[1] == b"400"


@pytest.mark.parametrize(
    "path",
    [
        "/%61pi/users", "/api%2Fusers", "/api/%75sers", "//api/users", "/api//users", "/x/../api/users",
        "/api/users%2F", "/api/%2e/users", "/api/./users", "http://clinic.example/%61pi/users",
    ],
)  # fmt: skip
def test_no_spelling_of_a_path_bypasses_a_rule_of_the_proxy(proxy: int, url: str, path: str) -> None:
    """Even an administrator, whom the service would answer, is stopped by a proxy that denies /api/users."""
    with httpx.Client(base_url=url, trust_env=False) as client:
        cookie = access_cookie(client.post("/api/auth/login", json=OPERATOR)).encode()
    fields = b" HTTP/1.1\r\nHost: clinic.example\r\nConnection: close\r\nCookie: " + cookie + b"\r\n\r\n"
    assert exchange(proxy, b"GET /api/users" + fields)[0] == 403
    assert exchange(proxy, b"GET /api/patients" + fields)[0] == 200
    assert exchange(proxy, b"GET " + path.encode() + fields)[0] in {400, 403, 404}


def test_proxy_never_sends_a_request_on_a_connection_just_closed(proxy: int) -> None:
    """Our keep-alive is longer than that of the proxy (here 1 s; in practice 75 s and 60 s). Otherwise a POST
    would sometimes be answered 502, because a proxy must not send it twice."""
    body = credentials()
    request = LOGIN_HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    for pause in (0.0, 0.5, 0.9, 1.0, 1.1, KEEP_ALIVE_SECONDS - 1.0, KEEP_ALIVE_SECONDS + 1.0):
        time.sleep(pause)
        assert exchange(proxy, request)[0] == 401
