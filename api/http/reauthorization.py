"""Whether who asks is still signed in and still of that role, asked again after whatever made them wait.

Admission answers at the head of a request. A body that comes slowly, a password hash, a lock or a queue may
hold the rest back for long, and meanwhile the caller may have signed out, been disabled or demoted (ASVS 5.0,
7.4.1 and 8.3.2). So a request goes on after such a wait, a write is stored and an answer leaves only if that
still holds.
"""

from collections.abc import Mapping
from math import inf
from time import monotonic
from typing import Any

from litestar import Request
from litestar.exceptions import NotAuthorizedException
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from api.http.errors import NOT_SIGNED_IN, handle
from api.http.requests import StrictRequest
from persistence.postgres.database import Transaction
from security.admission import REMEMBERED
from security.roles import Caller

AnyRequest = Request[Any, Any, Any]
# In a handler's `opt`: its transaction looks after the session itself, which it renews or ends.
OF_A_SESSION: Mapping[str, Any] = {"of_a_session": True}


def has_waited(scope: Scope) -> bool:
    """Whether the caller was last asked for longer ago than "alive" may be remembered."""
    if not scope.get("user"):
        return False
    return bool(monotonic() - scope["state"].get("asked", scope["auth"].asked) > REMEMBERED)


async def ask_again(request: AnyRequest) -> None:
    """After a wait: find the caller anew, and pass the guards as who they are now, which raise 401 or 403."""
    if not has_waited(request.scope):
        return
    request.scope["state"]["asked"] = monotonic()
    request.scope["user"] = await request.app.state.sessions.find(request.user.session_id)
    await request.route_handler.authorize_connection(request)


def caller_of_write(request: AnyRequest) -> Caller | None:
    """Whose session must be alive when the transaction of the request is stored, if anybody's."""
    caller: Caller | None = request.scope.get("user")
    return None if request.route_handler.opt.get("of_a_session") else caller


def trust_to_the_end(request: AnyRequest) -> None:
    """The answer tells of what is stored, whatever happens after it."""
    request.scope["state"]["asked"] = inf


async def is_still_signed_in(transaction: Transaction, request: AnyRequest) -> bool:
    """Whether PostgreSQL says so inside this transaction. If it does, nobody ends the session before the
    transaction ends; and whatever it says, that is not asked again."""
    caller: Caller | None = request.scope.get("user")
    transaction.settle_caller()
    if caller is None or not await request.app.state.sessions.holds(transaction, caller):
        return False
    trust_to_the_end(request)
    return True


async def require_signed_in(transaction: Transaction, request: AnyRequest) -> None:
    """Raise 401 unless `is_still_signed_in`. Every transaction of a signed-in caller does this with its last
    statement (persistence/closing.py); one that may end the caller's own session must do it before."""
    if not await is_still_signed_in(transaction, request):
        raise NotAuthorizedException(NOT_SIGNED_IN)


async def require_the_same(request: AnyRequest) -> None:
    """As ask_again; the answer to somebody in another role is not for who they are now: 401."""
    before = request.user
    await ask_again(request)
    if request.user not in (before, None):
        raise NotAuthorizedException(NOT_SIGNED_IN)


class LastLook:
    """Nothing is told to a caller who was kept waiting, for a connection or by a slow query, and is
    signed out by then."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        withheld = False

        async def send_if_signed_in(message: Message) -> None:
            nonlocal withheld
            if withheld:
                return
            if message["type"] == "http.response.start" and message["status"] < 500 and has_waited(scope):
                request = StrictRequest(scope)
                try:
                    await require_the_same(request)
                except Exception as error:
                    withheld = True
                    answer = handle(request, error).to_asgi_response(None, request)
                    await answer(scope, receive, send)
                    return
            await send(message)

        await self.app(scope, receive, send_if_signed_in)
