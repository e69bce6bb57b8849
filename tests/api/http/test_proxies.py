"""Where a request comes from (contract, "The limit": `X-Forwarded-For` only from `TRUSTED_PROXIES`)."""

import json
import re
import socket
from typing import Any

import pytest

from api.http.proxies import TrustedProxies, normalize_address
from api.http.server import listen_on
from tests.support.factories import PASSWORD, World
from tests.support.service import Backend, Service
from tests.support.wire import (
    LOGIN,
    Connection,
)


@pytest.mark.parametrize(
    ("trusted", "peer", "entry", "address"),
    [
        ("127.0.0.1", "127.0.0.1", "::ffff:203.0.113.7", "203.0.113.7"),
        ("127.0.0.1", "127.0.0.1", "::FFFF:cb00:7107", "203.0.113.7"),
        ("127.0.0.1", "127.0.0.1", "[::ffff:203.0.113.7]:4711", "203.0.113.7"),
        ("127.0.0.1", "127.0.0.1", "203.0.113.7:4711", "203.0.113.7"),
        ("127.0.0.1", "127.0.0.1", "2001:DB8:0::1", "2001:db8::1"),
        ("127.0.0.1", "127.0.0.1", "[2001:db8::1]:80", "2001:db8::1"),
        ("127.0.0.1", "127.0.0.1", "198.51.100.1, ::ffff:203.0.113.7", "203.0.113.7"),
        ("127.0.0.1,203.0.113.0/24", "127.0.0.1", "192.0.2.9, ::ffff:203.0.113.7", "192.0.2.9"),
        ("127.0.0.1,::ffff:203.0.113.7", "127.0.0.1", "192.0.2.9, 203.0.113.7", "192.0.2.9"),
        ("127.0.0.1,203.0.113.7", "127.0.0.1", "203.0.113.7, ::ffff:127.0.0.1", "203.0.113.7"),
        ("127.0.0.1", "::ffff:127.0.0.1", "192.0.2.9", "192.0.2.9"),
        ("::ffff:127.0.0.1", "127.0.0.1", "192.0.2.9", "192.0.2.9"),
        ("::ffff:127.0.0.0/104", "::ffff:127.8.9.10", "192.0.2.9", "192.0.2.9"),
        ("192.0.2.0/24", "::ffff:127.0.0.1", "192.0.2.9", "127.0.0.1"),
        ("", "::ffff:198.51.100.1", "192.0.2.9", "198.51.100.1"),
        ("::1", "::1", "", "::1"),
        ("::/0", "::1", "192.0.2.9, 2001:db8::1", "192.0.2.9"),
        ("127.0.0.1", "127.0.0.1", "192.0.2.9, unknown", "unknown"),
        ("127.0.0.1", "127.0.0.1", "192.0.2.9,", "127.0.0.1"),
    ],
)
def test_an_ipv4_mapped_address_counts_as_the_ipv4_address(
    trusted: str, peer: str, entry: str, address: str
) -> None:
    """As the peer, in TRUSTED_PROXIES and in X-Forwarded-For. The client is the last entry that is not a
    trusted proxy."""
    scope: dict[str, Any] = {"client": (peer, 1), "headers": [(b"x-forwarded-for", entry.encode())]}
    TrustedProxies(trusted.split(",") if trusted else ()).apply_forwarded(scope)
    assert scope["client"][0] == address


@pytest.mark.slow
def test_an_ipv4_client_of_a_dual_stack_listener_keeps_its_ipv4_address(
    world: World, backend: Backend
) -> None:
    """In the audit trail, in the list of sessions and for the limit, directly and through a trusted proxy."""
    _, account = world.account()
    body = json.dumps({"email": account["email"], "password": PASSWORD}).encode()
    me = b"GET /api/users/me/sessions HTTP/1.1\r\nHost: x\r\nCookie: access_token="
    settings = backend.settings(trusted_proxies=("127.0.0.1",), rate_limit_per_minute=3)
    with Service(backend, settings, listen_on("::", 0)) as dual:
        port = int(dual.url.rpartition(":")[2])
        for forwarded, address in (("", "127.0.0.1"), ("::ffff:203.0.113.7", "203.0.113.7")):
            field = f"X-Forwarded-For: {forwarded}\r\n" if forwarded else ""
            with socket.create_connection(("127.0.0.1", port), timeout=20) as opened:
                connection = Connection(opened)
                length = f"{field}Content-Length: {len(body)}\r\n\r\n".encode()
                connection.send(LOGIN + length + body)
                token = re.search(rb"access_token=([^;]+)", connection.head())
                assert token
                assert [status for status, _ in connection.answers(1)] == [200]
                connection.send(me + token[1] + b"\r\n\r\n")
                [(_, said)] = connection.answers(1)
                assert [session["address"] for session in said["sessions"]][:1] == [address]
            logins = "SELECT address FROM audit_events WHERE action = 'auth.login' ORDER BY at DESC LIMIT 1"
            assert [row["address"] for row in backend.sql(logins)] == [address]
        refresh = b"POST /api/auth/refresh HTTP/1.1\r\nHost: x\r\n"
        entries = (
            b"203.0.113.9",
            b"::ffff:203.0.113.9",
            b"::ffff:cb00:7109",
            b"203.0.113.9",
            b"::ffff:203.0.113.10",
        )
        with socket.create_connection(("127.0.0.1", port), timeout=20) as opened:
            connection = Connection(opened)
            connection.send(b"".join(refresh + b"X-Forwarded-For: %s\r\n\r\n" % entry for entry in entries))
            assert [status for status, _ in connection.answers(5)] == [401, 401, 401, 429, 401]


def test_text_longer_than_an_address_is_no_address() -> None:
    assert normalize_address("::ffff:1.2.3.4") == "1.2.3.4"
    assert normalize_address("::ffff:1.2.3.4".rjust(65)) == "::ffff:1.2.3.4".rjust(65)


def test_a_client_that_went_before_its_address_was_asked_for_has_none() -> None:
    scope: dict[str, Any] = {"client": None, "headers": []}
    TrustedProxies(["127.0.0.1"]).apply_forwarded(scope)
    assert scope["client"] is None
