"""Litestar's cookie authentication, narrowed: cookies only, and the session decides, not the claims.

The stock middleware also takes Bearer headers, prefers them, and answers 401 itself; here a caller without a
living session is anonymous, and the guard `require_authentication` says so, after the limit was applied.
"""

from typing import Any

from litestar.connection import ASGIConnection
from litestar.middleware import DefineMiddleware
from litestar.middleware.authentication import AuthenticationResult
from litestar.security.jwt import JWTCookieAuth
from litestar.security.jwt.middleware import JWTCookieAuthenticationMiddleware

from security.admission import Admission
from security.cookies import ACCESS, REFRESH, read_cookie
from security.fences import Fences
from security.policy import AccessPolicy
from security.roles import Caller
from security.tokens import SessionToken, TokenIssuer, TokenKind

AnyConnection = ASGIConnection[Any, Any, Any, Any]  # before it is known who calls
MAX_ADDRESS_LENGTH = 64  # characters; no real address is longer


class SessionMiddleware(JWTCookieAuthenticationMiddleware):
    def __init__(
        self, issuer: TokenIssuer, admission: Admission, fences: Fences | None, **stock: Any
    ) -> None:
        """`fences`: where there is a replica. `stock`: what Litestar's own takes, as JWTCookieAuth puts it
        together."""
        super().__init__(**stock)
        self.issuer = issuer
        self.admission = admission
        self.fences = fences

    async def authenticate_request(self, connection: AnyConnection) -> AuthenticationResult:
        scope = connection.scope
        policy = AccessPolicy.of(scope["route_handler"])
        kind, token = policy.authentication.token, None
        if kind is not None:
            cookie = read_cookie(scope["headers"], ACCESS if kind is TokenKind.ACCESS else REFRESH)
            token = self.issuer.read(cookie, kind)
        elif not policy.authentication.counts_anonymous:
            return AuthenticationResult(user=None, auth=None)
        admitted = await self.admission.admit(
            token,
            address_of(connection),
            counter=policy.counter,
            anonymous=policy.authentication.counts_anonymous,
            passage=self.fences.passage(
                token.sub, writes=scope.get("method") != "GET", changes_access=policy.changes_access
            )
            if self.fences and token
            else None,
        )
        return AuthenticationResult(user=admitted.caller, auth=admitted)


async def no_stock_lookup(token: SessionToken, connection: AnyConnection) -> Caller | None:
    """Never called: SessionMiddleware asks the admission instead."""
    return None  # pragma: no cover  # as it says


def authentication_middleware(
    issuer: TokenIssuer, admission: Admission, fences: Fences | None = None
) -> DefineMiddleware:
    stock = JWTCookieAuth[Caller, SessionToken](
        token_secret=issuer.key,
        algorithm=issuer.algorithm,
        token_cls=SessionToken,
        key=ACCESS,
        retrieve_user_handler=no_stock_lookup,
        exclude_http_methods=["OPTIONS"],
        default_token_expiration=issuer.access_lifetime,
    ).middleware
    return DefineMiddleware(
        SessionMiddleware, issuer=issuer, admission=admission, fences=fences, **stock.kwargs
    )


def address_of(connection: AnyConnection) -> str:
    """The client's address, in as many characters as the contract holds: a proxy may write anything there.
    Which X-Forwarded-For to believe was decided before (api/http/proxies.py)."""
    client = connection.scope.get("client")
    return client[0][:MAX_ADDRESS_LENGTH] if client else "unknown"
