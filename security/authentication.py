"""Litestar's cookie authentication, narrowed: cookies only, and the session decides, not the claims.

The stock middleware also takes Bearer headers, prefers them, and answers 401 itself; here a caller
without a living session is anonymous, and the guard `signed_in` says so after the limit was applied.
"""

from collections.abc import Mapping
from typing import Any

from litestar.connection import ASGIConnection
from litestar.middleware.authentication import AuthenticationResult
from litestar.security.jwt import JWTCookieAuth
from litestar.security.jwt.middleware import JWTCookieAuthenticationMiddleware

from security.admission import SAFEGUARD, USER, Admission
from security.cookies import ACCESS, REFRESH, read_cookie
from security.roles import Caller
from security.tokens import Kind, SessionToken, TokenIssuer

# Values of a handler's `opt`. Without one: signed in, counted on the user.
EXEMPT: Mapping[str, Any] = {"exclude_from_auth": True, "public": True}  # neither counted nor asked who it is
OPTIONAL: Mapping[str, Any] = {
    "public": True,
    "anonymous": True,
}  # whoever has not signed in counts by address
# The refresh cookie says who it is; without a living session 401, counted by address.
BY_REFRESH_TOKEN: Mapping[str, Any] = {"credential": Kind.REFRESH, "anonymous": True}
# What a user needs against a thief of a cookie: a count of its own, shared by these operations.
COUNTED_APART: Mapping[str, Any] = {"counter": SAFEGUARD}

MAX_ADDRESS = 64  # characters of an address that we keep; no real one is longer


class SessionMiddleware(JWTCookieAuthenticationMiddleware):
    async def authenticate_request(
        self, connection: ASGIConnection[Any, Any, Any, Any]
    ) -> AuthenticationResult:
        scope = connection.scope
        opt = scope["route_handler"].opt
        kind = opt.get("credential", Kind.ACCESS)
        cookie = read_cookie(scope["headers"], ACCESS if kind is Kind.ACCESS else REFRESH)
        state = scope["litestar_app"].state
        issuer: TokenIssuer = state.issuer
        admission: Admission = state.admission
        admitted = await admission.admit(
            issuer.read(cookie, kind),
            address_of(connection),
            counter=opt.get("counter", USER),
            anonymous=opt.get("anonymous", False),
        )
        return AuthenticationResult(user=admitted.caller, auth=admitted)


async def no_stock_lookup(
    token: SessionToken, connection: ASGIConnection[Any, Any, Any, Any]
) -> Caller | None:
    """Never called: SessionMiddleware asks the admission instead."""
    return None


def session_auth(issuer: TokenIssuer) -> JWTCookieAuth[Caller, SessionToken]:
    return JWTCookieAuth[Caller, SessionToken](
        token_secret=issuer.key,
        algorithm=issuer.algorithm,
        token_cls=SessionToken,
        key=ACCESS,
        retrieve_user_handler=no_stock_lookup,
        exclude_http_methods=["OPTIONS"],
        authentication_middleware_class=SessionMiddleware,
        default_token_expiration=issuer.access_lifetime,
    )


def address_of(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """The peer's address; the server has already judged X-Forwarded-For by who sent it. Cut to what the
    contract holds, because a proxy may write anything there."""
    client = connection.scope.get("client")
    return client[0][:MAX_ADDRESS] if client else "unknown"
