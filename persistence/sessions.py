"""Sign-ins. PostgreSQL is the truth about which of them are alive."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Executable,
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
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from persistence.models import AccountStatus, Session, User
from persistence.postgres.database import Reader, Source, Transaction
from persistence.postgres.paging import PagedQuery
from persistence.postgres.statements import AnyRow
from security.roles import Caller

# How exact `last_seen_at` is, and so the idle limit, but for the 5 s that a session is believed in unasked.
SEEN_EVERY = timedelta(seconds=15)


def living(idle: timedelta | None) -> tuple[ColumnElement[bool], ...]:
    """Neither ended nor expired nor, where the clinic sets `idle`, without a request for so long."""
    alive = (Session.ended_at.is_(None), Session.expires_at > func.now())
    return alive if idle is None else (*alive, Session.last_seen_at > func.now() - idle)


CALLER = (
    select(
        User.id,
        User.email,
        User.role,
        Session.id,
        (Session.last_seen_at < func.now() - SEEN_EVERY).label("stale"),
    )
    .join(User, User.id == Session.user_id)
    .where(Session.id == bindparam("id"), User.status == AccountStatus.ACTIVE)
)
SEEN = update(Session).where(Session.id == bindparam("session")).values(last_seen_at=func.now())
LOCKED = (
    select(
        Session.id,
        Session.refresh_jti,
        Session.used_refreshes,
        Session.expires_at,
        User.id.label("user_id"),
        User.email,
        User.role,
        func.now().label("now"),
    )
    .join(User, User.id == Session.user_id)
    .where(Session.id == bindparam("id"), User.status == AccountStatus.ACTIVE, *living(None))
    .with_for_update(of=Session)
)
COLUMNS = (
    Session.id,
    Session.created_at,
    Session.last_seen_at,
    Session.expires_at,
    Session.address,
    Session.user_agent,
)
DELETE_EXPIRED = delete(Session).where(Session.user_id == bindparam("user"), Session.expires_at < func.now())
ADD = (
    insert(Session)
    .values(expires_at=func.now() + bindparam("lifetime", type_=Interval))
    .returning(Session.id, Session.expires_at)
)
ROTATE = (
    update(Session)
    .where(Session.id == bindparam("session"))
    .values(
        used_refreshes=cast(bindparam("used", type_=JSONB), JSONB).concat(
            func.jsonb_build_object(
                bindparam("current", type_=Text), extract("epoch", func.clock_timestamp())
            )
        ),
        last_seen_at=func.now(),
    )
)
ENDING = update(Session).where(Session.ended_at.is_(None)).values(ended_at=func.now()).returning(Session.id)
END = ENDING.where(Session.id == func.any(bindparam("sessions", type_=ARRAY(Uuid))))
END_ALL = ENDING.where(Session.user_id == bindparam("user"))


@lru_cache
def ending_own(idle: timedelta | None) -> Any:
    return ENDING.where(
        Session.id == bindparam("session"), Session.user_id == bindparam("user"), *living(idle)
    )


@lru_cache
def own(idle: timedelta | None) -> PagedQuery:
    newest_first = (Session.created_at.desc(), Session.id.desc())
    where = (Session.user_id == bindparam("user"), *living(idle))
    return PagedQuery(Session.id, COLUMNS, Session.__table__, newest_first, where)


@lru_cache
def same_caller(idle: timedelta | None) -> Any:
    """A row where the caller's session is alive, and they are who they were; nobody ends it then before the
    transaction ends."""
    return (
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


def same_as(caller: Caller) -> dict[str, Any]:
    """As `same_caller` takes it."""
    return {
        "same_session": caller.session_id,
        "same_user": caller.id,
        "same_email": caller.email,
        "same_role": caller.role,
    }


class Sessions:
    """Finds living sessions for security/admission.py, which knows no tables."""

    def __init__(self, reader: Reader, idle: timedelta | None) -> None:
        self.reader = reader
        self.alive = CALLER.where(*living(idle))
        self.same = same_caller(idle)

    async def find(self, session_id: UUID) -> Caller | None:
        """Who the session belongs to, or None where it has ended, expired, idled out or its account is
        not active."""
        row = next(iter(await self.reader.rows(self.alive, id=session_id)), None)
        if row is None:
            return None
        if row.stale:
            await self.reader.rows(SEEN, session=session_id)
        return Caller(*row[:4])

    async def holds(self, transaction: Transaction, caller: Caller) -> bool:
        """Whether the caller's session is alive, and they are who they were; if so, so it stays until the
        transaction ends."""
        return bool(await transaction.rows(self.same, **same_as(caller)))


async def add(
    transaction: Transaction, *, user_id: UUID, refresh_jti: UUID, lifetime: timedelta, **seen: str
) -> AnyRow:
    """Open a session; it ends `lifetime` from now whatever happens. Returns (id, expires_at)."""
    await transaction.run(DELETE_EXPIRED, user=user_id)
    [row] = await transaction.rows(ADD, lifetime=lifetime, user_id=user_id, refresh_jti=refresh_jti, **seen)
    return row


async def locked(transaction: Transaction, session_id: UUID) -> AnyRow | None:
    """The living session, which no other refresh changes until the transaction ends; `now` is PostgreSQL's
    clock, the one that every instance shares."""
    return next(iter(await transaction.rows(LOCKED, id=session_id)), None)


async def rotate(
    transaction: Transaction, session: AnyRow, used: dict[str, float], refresh_jti: UUID
) -> None:
    """Put `refresh_jti` in the place of the current token, which is used from now on, as `used` are."""
    await transaction.run(
        ROTATE, session=session.id, current=str(session.refresh_jti), used=used, refresh_jti=refresh_jti
    )


async def end(transaction: Transaction, *session_ids: UUID) -> Sequence[UUID]:
    return await ended(transaction, END, sessions=list(session_ids))


async def end_own(
    transaction: Transaction, user_id: UUID, session_id: UUID, idle: timedelta | None
) -> Sequence[UUID]:
    """End the session if it is the user's and alive."""
    return await ended(transaction, ending_own(idle), session=session_id, user=user_id)


async def page(
    source: Source, page: int, limit: int, user_id: UUID, idle: timedelta | None
) -> tuple[list[Sequence[Any]], int]:
    """The user's living sessions, the newest sign-in first."""
    return await own(idle).fetch(source, page, limit, user=user_id)


async def end_all(transaction: Transaction, user_id: UUID) -> Sequence[UUID]:
    """End the user's sessions; returns the ids of those that were alive."""
    return await ended(transaction, END_ALL, user=user_id)


async def ended(transaction: Transaction, which: Executable, **parameters: Any) -> Sequence[UUID]:
    return [row.id for row in await transaction.rows(which, **parameters)]


def seconds_left(expires_at: datetime, now: datetime) -> int:
    return max(0, int((expires_at - now).total_seconds()))
