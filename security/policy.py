"""What an operation asks of its caller: its decorator takes it (api/http/operation.py), the middlewares and
the guards of this folder read it."""

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Self

from litestar.handlers import BaseRouteHandler

from security.tokens import TokenKind

POLICY = "policy"  # the key of a handler's `opt`; only AccessPolicy.of reads it


class Authentication(Enum):
    """How an operation learns who calls. `token`: whose cookie it reads, if any. `is_public`: callers who are
    not signed in are served, and do not get a 401. `counts_anonymous`: they are counted on their address."""

    REQUIRED = (TokenKind.ACCESS, False, False)
    OPTIONAL = (TokenKind.ACCESS, True, True)
    REFRESH_TOKEN = (TokenKind.REFRESH, False, True)
    NONE = (None, True, False)  # callers are neither identified nor counted
    SECRET = (None, True, True)  # what they call with is in the path

    def __init__(self, token: TokenKind | None, is_public: bool, counts_anonymous: bool) -> None:
        self.token = token
        self.is_public = is_public
        self.counts_anonymous = counts_anonymous


class Counter(StrEnum):
    """The counters of a user, each with the same limit. What they need against a thief of their cookie has a
    counter of its own, so that the thief cannot use it up by calling other operations. `FEED` is one of an
    address: the calendars of many people may ask from one, and must not use up what they need to sign in."""

    USER = "user"
    SAFEGUARD = "safeguard"
    FEED = "feed"


@dataclass(frozen=True, kw_only=True)
class AccessPolicy:
    """How an operation learns who calls, and which counter the call is counted on. `changes_access`: it may
    change what other people see: a link between an account and a chart, or somebody's role or status."""

    authentication: Authentication = Authentication.REQUIRED
    counter: Counter = Counter.USER
    changes_access: bool = False

    @classmethod
    def of(cls, handler: BaseRouteHandler) -> Self:
        policy: Self = handler.opt[POLICY]
        return policy
