"""Whether the caller is still signed in and still has their role, checked again after whatever made them
wait.

Admission checks at the head of a request. A body that comes slowly, a password hash, a lock or a queue may
hold up the rest for long, and meanwhile the caller may have signed out, been disabled or demoted (ASVS 5.0,
7.4.1 and 8.3.2). So after such a wait a request goes on, a write is stored and an answer leaves only if the
caller may still do that.
"""

from time import monotonic

from litestar.exceptions import NotAuthorizedException
from litestar.types import ASGIApp, Message, Receive, Send

from api.http.errors import handle_exception
from api.http.headers import HttpScope
from api.http.requests import StrictRequest
from persistence.postgres.database import Transaction
from persistence.sessions import Sessions
from security.admission import ALIVE_CACHE_SECONDS, Admitted
from security.guards import NOT_SIGNED_IN
from security.roles import Caller


def is_stale(admitted: Admitted | None) -> bool:
    """Whether the caller was last checked longer ago than "alive" may be remembered."""
    if admitted is None or admitted.caller is None:
        return False
    return monotonic() - admitted.checked_at > ALIVE_CACHE_SECONDS


async def reauthorize(request: StrictRequest) -> None:
    """After a wait: look the caller up again, and run the guards for who they are now: 401 or 403."""
    checked_at = monotonic()
    caller = await request.service(Sessions).find(request.user.session_id)
    request.set_caller(caller, checked_at=checked_at)
    await request.route_handler.authorize_connection(request)


def caller_to_recheck(request: StrictRequest) -> Caller | None:
    """The caller whose session must be alive when the request's transaction is stored; None if no session is
    checked."""
    return None if request.policy.manages_session else request.caller


def stop_rechecking(request: StrictRequest) -> None:
    """The answer tells of what is stored, whatever happens to the caller's session afterwards."""
    request.set_caller(request.caller)


async def is_still_signed_in(transaction: Transaction, request: StrictRequest) -> bool:
    """Whether PostgreSQL says so inside this transaction. If it does, nobody ends the session before the
    transaction ends. Whatever it says, the session is not checked again."""
    caller = request.caller
    transaction.skip_session_check()
    if caller is None or not await request.service(Sessions).is_current(transaction, caller):
        return False
    stop_rechecking(request)
    return True


async def forget_ended_session(transaction: Transaction, request: StrictRequest) -> None:
    """Make the caller anonymous unless `is_still_signed_in`, for an operation that serves both."""
    if not await is_still_signed_in(transaction, request):
        request.set_caller(None)


async def require_signed_in(transaction: Transaction, request: StrictRequest) -> None:
    """Raise 401 unless `is_still_signed_in`. Every transaction of a signed-in caller does this with its last
    statement (persistence/closing.py); one that may end the caller's own session must do it before."""
    if not await is_still_signed_in(transaction, request):
        raise NotAuthorizedException(NOT_SIGNED_IN)


async def require_same_caller(request: StrictRequest) -> None:
    """As reauthorize, and 401 if the caller's role has changed: the answer was made for their old one."""
    before = request.user
    await reauthorize(request)
    if request.caller not in (before, None):
        raise NotAuthorizedException(NOT_SIGNED_IN)


class ReauthorizationMiddleware:
    """Withhold an answer from a caller who was kept waiting, for a connection or by a slow query, and has
    been signed out meanwhile."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: HttpScope, receive: Receive, send: Send) -> None:
        withheld = False

        async def send_if_signed_in(message: Message) -> None:
            nonlocal withheld
            if withheld:
                return
            is_start = message["type"] == "http.response.start" and message["status"] < 500
            if is_start and is_stale(scope["auth"]):
                request = StrictRequest(scope)
                try:
                    await require_same_caller(request)
                except Exception as error:
                    withheld = True
                    answer = handle_exception(request, error).to_asgi_response(None, request)
                    await answer(scope, receive, send)
                    return
            await send(message)

        await self.app(scope, receive, send_if_signed_in)
