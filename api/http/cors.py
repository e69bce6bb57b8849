"""Cross-origin resource sharing (Fetch standard): which pages may read our answers.

Litestar's own CORS middleware says `*` in places, drops a Vary and answers a refused preflight in plain text.
"""

import re
from collections.abc import Iterable

from litestar.types import HTTPScope, Scope

from api.http.headers import RawHeaders, header_value
from api.http.problems import ErrorCode

ALLOWED_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
PREFLIGHT_MAX_AGE_SECONDS = 600
FOREIGN_ORIGIN = "This origin is not allowed"
LOCALHOST_ORIGIN = re.compile(r"http://localhost(:[1-9][0-9]{0,4})?")
EXPOSED_HEADERS = (
    "Retry-After, RateLimit-Policy, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, X-Request-Id, ETag"
    ", Idempotency-Replayed, Content-Disposition"
)
ALLOW_ORIGIN = b"access-control-allow-origin"
LISTED_ORIGIN_HEADERS: RawHeaders = [
    (b"access-control-allow-credentials", b"true"),
    (b"access-control-expose-headers", EXPOSED_HEADERS.encode()),
]


class Origins:
    """The origins whose pages may call us: the listed ones. `any_local_port`: every port of http://localhost
    as well, for developers, whose tools choose one."""

    def __init__(self, listed: Iterable[str], *, any_local_port: bool = False) -> None:
        self.listed = frozenset(listed)
        self.any_local_port = any_local_port

    def __contains__(self, origin: object) -> bool:
        is_local = self.any_local_port and LOCALHOST_ORIGIN.fullmatch(str(origin)) is not None
        return is_local or origin in self.listed


def is_preflight(scope: HTTPScope, origin: str | None) -> bool:
    """Whether a browser asks before it sends another request (Fetch standard, "CORS-preflight request")."""
    is_options = scope["method"] == "OPTIONS" and origin is not None
    return is_options and header_value(scope, b"access-control-request-method") is not None


def preflight_refusal(scope: Scope, origins: Origins) -> tuple[str, ErrorCode] | None:
    """Why the browser must not send what it asks for; None where it may."""
    if header_value(scope, b"origin") not in origins:
        return FOREIGN_ORIGIN, ErrorCode.ORIGIN_NOT_ALLOWED
    if header_value(scope, b"access-control-request-method") not in ALLOWED_METHODS:
        return "Method not allowed", ErrorCode.METHOD_NOT_ALLOWED
    return None


def preflight_headers(scope: Scope) -> RawHeaders:
    """What the answer to an allowed preflight says (Fetch standard, "CORS-preflight fetch")."""
    allowed = [
        (b"access-control-allow-methods", ", ".join(ALLOWED_METHODS).encode()),
        (b"access-control-max-age", b"%d" % PREFLIGHT_MAX_AGE_SECONDS),
    ]
    requested = header_value(scope, b"access-control-request-headers") or ""
    named = [name for part in requested.split(",") if (name := part.strip()) and name != "*"]
    if named:
        allowed.append((b"access-control-allow-headers", ", ".join(named).encode("latin-1")))
    return allowed
