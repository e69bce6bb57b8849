"""Sign-ins. PostgreSQL is the truth about which of them are alive."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import NamedTuple, TypedDict
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Interval,
    Text,
    Uuid,
    bindparam,
    cast,
    delete,
    extract,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from persistence.models import AccountStatus, Session, User
from persistence.postgres.database import Reader, Source, Transaction
from persistence.postgres.declared import columns_of
from persistence.postgres.failures import DATABASE_ERRORS, Failure, classify
from persistence.postgres.paging import PagedQuery
from persistence.postgres.statements import ById, IdRow, Query, Statement, T
from security.roles import Caller, Role

# The precision of `last_seen_at`, and so of the idle limit. Admission adds up to 5 s, for which it does not
# ask PostgreSQL again.
LAST_SEEN_PRECISION = timedelta(seconds=15)


class CallerRow(NamedTuple):
    """`stale`: the session was last seen longer than LAST_SEEN_PRECISION ago."""

    id: UUID
    email: str
    role: Role
    session_id: UUID
    stale: bool


class RefreshRow(NamedTuple):
    """A session, its user, and PostgreSQL's clock, the one that every instance shares."""

    id: UUID
    refresh_jti: UUID
    used_refreshes: dict[str, float]
    expires_at: datetime
    user_id: UUID
    email: str
    role: Role
    now: datetime


class SessionRow(NamedTuple):
    id: UUID
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    address: str
    user_agent: str


class OpenedRow(NamedTuple):
    id: UUID
    expires_at: datetime


class BySession(TypedDict):
    session: UUID


class BySessions(TypedDict):
    sessions: list[UUID]


class OfUser(TypedDict):
    user: UUID


class OwnSession(BySession, OfUser):
    pass


class NewSession(TypedDict):
    user_id: UUID
    refresh_jti: UUID
    address: str
    user_agent: str
    lifetime: timedelta


class Rotated(BySession):
    """`current`: the token that counts as used from now on, like those in `used`; `refresh_jti`: the
    next one."""

    current: str
    used: dict[str, float]
    refresh_jti: UUID


class SameCaller(TypedDict):
    same_session: UUID
    same_user: UUID
    same_email: str
    same_role: Role


def living(idle: timedelta | None) -> tuple[ColumnElement[bool], ...]:
    """Neither ended nor expired nor, where the clinic sets `idle`, without a request for so long."""
    alive = (Session.ended_at.is_(None), Session.expires_at > func.now())
    return alive if idle is None else (*alive, Session.last_seen_at > func.now() - idle)


IS_STALE = Session.last_seen_at < func.now() - LAST_SEEN_PRECISION
CALLER = (
    select(*columns_of(CallerRow, User, session_id=Session.id, stale=IS_STALE))
    .join(User, User.id == Session.user_id)
    .where(Session.id == bindparam("id"), User.status == AccountStatus.ACTIVE)
)
THE_SESSION = update(Session).where(Session.id == bindparam("session"))
# Not worth waiting for a disk, or for a synchronous standby, which may be away.
IS_HASTY = text("set_config('synchronous_commit', 'off', true) = 'off'")
SEEN = Statement(BySession, THE_SESSION.where(IS_HASTY).values(last_seen_at=func.now()))
REFRESHED = columns_of(RefreshRow, Session, user_id=User.id, email=User.email, role=User.role, now=func.now())
LOCKED = Query(
    RefreshRow,
    ById,
    select(*REFRESHED)
    .join(User, User.id == Session.user_id)
    .where(Session.id == bindparam("id"), User.status == AccountStatus.ACTIVE, *living(None))
    .with_for_update(of=Session),
)
COLUMNS = columns_of(SessionRow, Session)
DELETE_EXPIRED = Statement(
    OfUser, delete(Session).where(Session.user_id == bindparam("user"), Session.expires_at < func.now())
)
ADD = Query(
    OpenedRow,
    NewSession,
    insert(Session)
    .values(expires_at=func.now() + bindparam("lifetime", type_=Interval))
    .returning(*columns_of(OpenedRow, Session)),
)
USED_NOW = func.jsonb_build_object(bindparam("current", type_=Text), extract("epoch", func.clock_timestamp()))
ROTATE = Statement(
    Rotated,
    THE_SESSION.values(
        used_refreshes=cast(bindparam("used", type_=JSONB), JSONB).concat(USED_NOW), last_seen_at=func.now()
    ),
)
ENDING = update(Session).where(Session.ended_at.is_(None)).values(ended_at=func.now()).returning(Session.id)
THESE = Session.id == func.any(bindparam("sessions", type_=ARRAY(Uuid)))
END = Query(IdRow, BySessions, ENDING.where(THESE))
END_ALL = Query(IdRow, OfUser, ENDING.where(Session.user_id == bindparam("user")))


@lru_cache
def ending_own(idle: timedelta | None) -> Query[OwnSession, IdRow]:
    own = (Session.id == bindparam("session"), Session.user_id == bindparam("user"))
    return Query(IdRow, OwnSession, ENDING.where(*own, *living(idle)))


@lru_cache
def own_sessions(idle: timedelta | None) -> PagedQuery[OfUser, SessionRow]:
    newest_first = (Session.created_at.desc(), Session.id.desc())
    where = (Session.user_id == bindparam("user"), *living(idle))
    return PagedQuery(SessionRow, OfUser, Session.id, COLUMNS, Session.__table__, newest_first, where)


@lru_cache
def same_caller(idle: timedelta | None) -> Query[SameCaller, IdRow]:
    """One row if the caller's session is alive and their e-mail and role are unchanged. It is locked, so that
    nobody can end the session before the transaction ends."""
    statement = (
        select(Session.id)
        .join(User, User.id == Session.user_id)
        .where(
            Session.id == bindparam("same_session"),
            User.id == bindparam("same_user"),
            User.email == bindparam("same_email"),
            User.role == bindparam("same_role", type_=User.role.type),
            User.status == AccountStatus.ACTIVE,
            *living(idle),
        )
        .with_for_update(read=True, of=Session)
    )
    return Query(IdRow, SameCaller, statement)


def same_as(caller: Caller) -> SameCaller:
    return SameCaller(
        same_session=caller.session_id, same_user=caller.id, same_email=caller.email, same_role=caller.role
    )


class Sessions:
    """Finds living sessions for security/admission.py, which knows no tables."""

    def __init__(self, reader: Reader, idle: timedelta | None) -> None:
        self.reader = reader
        self.alive = Query(CallerRow, ById, CALLER.where(*living(idle)))
        self.same = same_caller(idle)

    async def find(self, session_id: UUID) -> Caller | None:
        """Who the session belongs to, or None where it has ended, expired, idled out or its account is
        not active."""
        row = await self.reader.first(self.alive, ById(id=session_id))
        if row is None:
            return None
        if row.stale:
            await self.note_seen(session_id)
        return Caller(id=row.id, email=row.email, role=row.role, session_id=row.session_id)

    async def note_seen(self, session_id: UUID) -> None:
        """Where nothing can be stored, callers are who they are all the same, and may read."""
        try:
            await self.reader.run(SEEN, BySession(session=session_id))
        except DATABASE_ERRORS as error:
            if classify(error) is not Failure.UNAVAILABLE:
                raise

    async def is_current(self, transaction: Transaction, caller: Caller) -> bool:
        """Whether the caller's session is alive and their e-mail and role are unchanged. If so, that
        stays true until the transaction ends."""
        return await transaction.first(self.same, same_as(caller)) is not None


async def add(
    transaction: Transaction,
    *,
    user_id: UUID,
    refresh_jti: UUID,
    lifetime: timedelta,
    address: str,
    user_agent: str,
) -> OpenedRow:
    """Open a session; it ends `lifetime` from now whatever happens."""
    await transaction.run(DELETE_EXPIRED, OfUser(user=user_id))
    values = NewSession(
        user_id=user_id, refresh_jti=refresh_jti, lifetime=lifetime, address=address, user_agent=user_agent
    )
    [row] = await transaction.rows(ADD, values)
    return row


async def locked(transaction: Transaction, session_id: UUID) -> RefreshRow | None:
    """The living session, which no other refresh changes until the transaction ends."""
    return await transaction.first(LOCKED, ById(id=session_id))


async def rotate(
    transaction: Transaction, session: RefreshRow, used: dict[str, float], refresh_jti: UUID
) -> None:
    """Make `refresh_jti` the current token. The one before it counts as used, like those in `used`."""
    current = str(session.refresh_jti)
    values = Rotated(session=session.id, current=current, used=used, refresh_jti=refresh_jti)
    await transaction.run(ROTATE, values)


async def end(transaction: Transaction, *session_ids: UUID) -> Sequence[UUID]:
    return await ids_of_ended(transaction, END, BySessions(sessions=list(session_ids)))


async def end_own(
    transaction: Transaction, user_id: UUID, session_id: UUID, idle: timedelta | None
) -> Sequence[UUID]:
    """End the session if it is the user's and alive."""
    return await ids_of_ended(transaction, ending_own(idle), OwnSession(session=session_id, user=user_id))


async def page(
    source: Source, page: int, limit: int, user_id: UUID, idle: timedelta | None
) -> tuple[list[SessionRow], int]:
    """The user's living sessions, the newest sign-in first."""
    return await own_sessions(idle).fetch(source, page, limit, OfUser(user=user_id))


async def end_all(transaction: Transaction, user_id: UUID) -> Sequence[UUID]:
    """End the user's sessions; returns the ids of those that were alive."""
    return await ids_of_ended(transaction, END_ALL, OfUser(user=user_id))


async def ids_of_ended(transaction: Transaction, which: Query[T, IdRow], parameters: T) -> Sequence[UUID]:
    return [row.id for row in await transaction.rows(which, parameters)]


def seconds_left(expires_at: datetime, now: datetime) -> int:
    return max(0, int((expires_at - now).total_seconds()))
