"""The sessions of the caller's account: the devices on which they are signed in (ASVS 5.0, 7.5.2)."""

from typing import Annotated

from litestar import Controller
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from msgspec import Meta

from api.accounts import MAX_USER_AGENT_LENGTH, SessionService
from api.http.auditing import record_read, record_write
from api.http.fields import (
    MAX_PAGE_SIZE,
    TEXT,
    Count,
    Id,
    Instant,
    Limit,
    Message,
    Output,
    Page,
    PathId,
    PeerAddress,
    path_id,
)
from api.http.operation import delete, get
from api.http.reauthorization import require_signed_in
from api.http.requests import StrictRequest
from persistence import sessions, users
from persistence.audit import Action
from persistence.postgres.database import Reader, Transaction
from persistence.sessions import SessionRow
from security.policy import Counter
from security.roles import Caller


class Session(Output):
    id: Id
    created_at: Instant
    last_seen_at: Instant
    expires_at: Instant
    address: PeerAddress
    user_agent: Annotated[str, Meta(max_length=MAX_USER_AGENT_LENGTH, pattern=TEXT)]
    current: bool


class SessionPage(Output):
    sessions: Annotated[list[Session], Meta(max_length=MAX_PAGE_SIZE)]
    total: Count


def session_of(row: SessionRow, caller: Caller) -> Session:
    return Session(
        id=row.id,
        created_at=row.created_at,
        last_seen_at=row.last_seen_at,
        expires_at=row.expires_at,
        address=row.address,
        user_agent=row.user_agent,
        current=row.id == caller.session_id,
    )


class SessionController(Controller):
    path = "/api/users/me/sessions"

    @get(operation_id="listMySessions", counter=Counter.SAFEGUARD, action=Action.SESSION_LIST)
    async def list_my_sessions(
        self,
        request: StrictRequest,
        session_service: NamedDependency[SessionService],
        reader: NamedDependency[Reader],
        page: Page = 1,
        limit: Limit = 10,
    ) -> SessionPage:
        caller = request.user
        rows, total = await sessions.page(reader, page, limit, caller.id, session_service.idle_lifetime)
        await record_read(request, target_ids=[row.id for row in rows])
        return SessionPage([session_of(row, caller) for row in rows], total)

    @delete(
        "/{id:str}",
        operation_id="endMySession",
        status_code=200,
        counter=Counter.SAFEGUARD,
        action=Action.SESSION_END,
    )
    async def end_my_session(
        self,
        id: PathId,
        request: StrictRequest,
        session_service: NamedDependency[SessionService],
        transaction: NamedDependency[Transaction],
    ) -> Message:
        session_id = path_id(id, "Session")
        await users.lock(transaction, request.user.id)  # one request at a time ends sessions of an account
        await require_signed_in(transaction, request)
        ended = await session_service.revoke_own(transaction, request.user.id, session_id)
        if not ended:
            raise NotFoundException("Session not found")
        record_write(transaction, request, target_id=ended[0])
        return Message("Session ended")
