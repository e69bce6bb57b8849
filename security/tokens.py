"""The two JWTs (requirement, "JWT Token Structure"; RFC 7519, RFC 8725)."""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache, cached_property
from typing import Any
from uuid import UUID, uuid4

import jwt
from jwt.utils import base64url_encode
from litestar.exceptions import ImproperlyConfiguredException, NotAuthorizedException
from litestar.security.jwt import Token

from security import clock
from security.roles import Caller

CLOCK_SKEW_SECONDS = 120  # that the clock of another server may be ahead of this one's
MAX_TOKEN_LENGTH = 4096  # characters, all ASCII; browsers keep no longer cookie
MAX_VERIFIED = 4096  # tokens that are remembered as verified, of some two kilobytes each
REQUIRED_CLAIMS = ("exp", "iat", "sub", "sid", "jti", "kind")
# What decoding a token raises, whatever is wrong with it.
DECODE_ERRORS = (NotAuthorizedException, ImproperlyConfiguredException, ValueError, TypeError, RecursionError)


class TokenKind(StrEnum):
    ACCESS = "access"
    REFRESH = "refresh"


class Utf8Encoder(json.JSONEncoder):
    """Writes characters as UTF-8, not as escapes of six bytes: a long e-mail must fit in a cookie."""

    def __init__(self, **options: Any) -> None:  # Any: the options of json, each of another type
        super().__init__(**{**options, "ensure_ascii": False})


@dataclass
class SessionToken(Token):
    """A token of a session: `sub` the user, `sid` the session, `kind` what it may be used for."""

    email: str = ""
    role: str = ""
    sid: str = ""
    kind: str = ""

    def __post_init__(self) -> None:
        """Not Litestar's check, which refuses an `iat` one second ahead; decode_payload checks both times."""

    @cached_property
    def user_id(self) -> UUID:
        return UUID(self.sub)

    @cached_property
    def session_id(self) -> UUID:
        return UUID(self.sid)

    @property
    def token_id(self) -> UUID:
        return UUID(str(self.jti))

    @cached_property
    def times(self) -> tuple[float, int]:
        """When it was issued and when it expires, in seconds since the epoch."""
        return self.iat.timestamp(), int(self.exp.timestamp())

    def is_current(self) -> bool:
        """Whether its times are valid now, by the rules of decode_payload. The clock may have been set back
        or forward since the token was verified."""
        issued, expires = self.times
        return issued - CLOCK_SKEW_SECONDS <= clock.now() < expires

    @classmethod
    def decode_payload(
        cls,
        encoded_token: str,
        secret: str,
        algorithms: list[str],
        issuer: Any = None,
        audience: Any = None,
        options: Any = None,
    ) -> Any:
        """The claims, with all of REQUIRED_CLAIMS, of a token signed with `secret` by one of `algorithms`.

        Raises jwt.InvalidTokenError otherwise. The token's header must be, byte for byte, the one that encode
        writes: no other `alg`, no `kid`, `jku` or `jwk` is so much as parsed (RFC 8725, 3.1 and 3.10).
        `Any`: Litestar's signature, and claims of any JSON type.
        """
        if len(encoded_token) > MAX_TOKEN_LENGTH or not encoded_token.isascii():
            raise jwt.InvalidTokenError("oversized or not ASCII")
        if encoded_token.partition(".")[0] not in [encoded_header(algorithm) for algorithm in algorithms]:
            raise jwt.InvalidTokenError("not the header that this service writes")
        checks: Any = {**(options or {}), "require": list(REQUIRED_CLAIMS), "verify_iat": False}
        # PyJWT takes what it is to allow for off this machine's time.
        claims = jwt.decode(encoded_token, secret, algorithms=algorithms, options=checks, leeway=-clock.ahead)
        if not isinstance(claims["iat"], int | float) or claims["iat"] > clock.now() + CLOCK_SKEW_SECONDS:
            raise jwt.InvalidTokenError("issued in the future")
        for name in ("sub", "sid", "jti"):
            if not isinstance(claims[name], str) or not is_uuid(claims[name]):
                raise jwt.InvalidTokenError(f"{name} is not an id")
        return claims

    def encode(self, secret: str, algorithm: str) -> str:
        claims = {
            "sub": self.sub,
            "email": self.email,
            "role": self.role,
            "exp": self.exp,
            "iat": self.iat,
            "sid": self.sid,
            "jti": self.jti,
            "kind": self.kind,
        }
        return jwt.encode(claims, secret, algorithm, json_encoder=Utf8Encoder)


@dataclass(frozen=True)
class TokenIssuer:
    """Signs and reads the tokens of sessions, with one algorithm. `previous_key` still verifies and never
    signs, so that a change of key signs nobody out.

    `verified` remembers access tokens whose signature was right, so that only their times are checked again.
    They are found by the whole token: the time that this takes tells nobody a token that they do not have.
    """

    key: str
    algorithm: str
    access_lifetime: timedelta
    previous_key: str | None = None
    verified: dict[str, SessionToken] = field(default_factory=dict, init=False, repr=False, compare=False)

    def issue_access(self, holder: Caller) -> str:
        return self.issue(TokenKind.ACCESS, holder, uuid4(), current_time() + self.access_lifetime)

    def issue_refresh(self, holder: Caller, token_id: UUID, until: datetime) -> str:
        return self.issue(TokenKind.REFRESH, holder, token_id, until)

    def issue(self, kind: TokenKind, holder: Caller, token_id: UUID, until: datetime) -> str:
        return SessionToken(
            sub=str(holder.id),
            email=holder.email,
            role=holder.role,
            sid=str(holder.session_id),
            jti=str(token_id),
            kind=kind,
            iat=current_time(),
            exp=until.replace(microsecond=0),
        ).encode(self.key, self.algorithm)

    def read(self, encoded: str | None, kind: TokenKind, *, expired: bool = False) -> SessionToken | None:
        """The token if this service signed it, it is of this kind, and it is current (`expired=True`: or has
        expired); else None."""
        if not encoded:
            return None
        token = self.verified.get(encoded)
        if token is None:
            token = self.decode(encoded, expired=expired)
            if token and token.kind == TokenKind.ACCESS and not expired:
                self.remember(encoded, token)
        elif not expired and not token.is_current():
            return None
        return token if token and token.kind == kind else None

    def decode(self, encoded: str, *, expired: bool) -> SessionToken | None:
        for key in filter(None, (self.key, self.previous_key)):
            with suppress(*DECODE_ERRORS):
                return SessionToken.decode(encoded, key, self.algorithm, verify_exp=not expired)
        return None

    def remember(self, encoded: str, token: SessionToken) -> None:
        """Remember a verified token, and forget the oldest ones that have expired or are too many."""
        while self.verified:
            oldest = next(iter(self.verified))
            if len(self.verified) < MAX_VERIFIED and self.verified[oldest].is_current():
                break
            del self.verified[oldest]
        self.verified[encoded] = token


def current_time() -> datetime:
    return datetime.fromtimestamp(clock.now(), UTC).replace(microsecond=0)


@cache
def encoded_header(algorithm: str) -> str:
    """The first part of every token that this service signs."""
    return base64url_encode(f'{{"alg":"{algorithm}","typ":"JWT"}}'.encode()).decode()


def is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
