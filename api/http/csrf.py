"""Against requests that a foreign page makes with its reader's cookies (ASVS 5.0, 3.5)."""

import re
from http import HTTPStatus

from litestar.enums import HttpMethod
from litestar.types import ASGIApp, Receive, Scope, Send

from api.http.cors import FOREIGN_ORIGIN, Origins
from api.http.errors import Forbidden
from api.http.headers import HttpScope, header_lines, header_value
from api.http.problems import ErrorCode
from api.http.responses import send_response

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
DEFAULT_PORTS = {"http": "80", "https": "443"}
HAS_PORT = re.compile(r":[0-9]+$")


class OriginCheckMiddleware:
    """Refuse an unsafe method from a foreign page. SameSite does not: it ignores ports, so that the browser
    sends the cookies along. A request without Origin does not come from a page.

    OPTIONS is answered here, because Litestar's own answer leaves methods out."""

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        self.app = app
        self.origins = origins

    async def __call__(self, scope: HttpScope, receive: Receive, send: Send) -> None:
        if scope["method"] == HttpMethod.OPTIONS:
            await send_response(send, HTTPStatus.NO_CONTENT, [(b"allow", allowed_methods(scope).encode())])
            return
        if scope["method"] not in SAFE_METHODS and self.is_foreign(scope):
            raise Forbidden(FOREIGN_ORIGIN, ErrorCode.ORIGIN_NOT_ALLOWED)
        await self.app(scope, receive, send)

    def is_foreign(self, scope: Scope) -> bool:
        origins = header_lines(scope, b"origin")
        if not origins:
            return False
        if len(origins) > 1:
            return True
        [origin] = origins
        return origin not in self.origins and not is_same_origin(origin, header_value(scope, b"host") or "")


def is_same_origin(origin: str, host: str) -> bool:
    """Whether the origin's host and port are those of the Host header. Only the proxy knows which of the two
    schemes the request came by, and it may name the scheme's default port or leave it out."""
    scheme, _, authority = origin.partition("://")
    port = DEFAULT_PORTS.get(scheme)
    return bool(host) and port is not None and with_port(authority, port) == with_port(host, port)


def with_port(authority: str, default: str) -> str:
    return authority.lower() if HAS_PORT.search(authority) else f"{authority.lower()}:{default}"


def allowed_methods(scope: HttpScope) -> str:
    """Every method of the path, as in a 405's Allow."""
    methods = {
        method
        for route in scope["litestar_app"].routes
        if route.path_format == scope["path_template"]
        for method in getattr(route, "methods", ())
    }
    return ", ".join(sorted(methods))
