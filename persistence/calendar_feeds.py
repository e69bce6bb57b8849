"""Feeds for people's own calendars: who has which, and what is in it."""

from datetime import datetime
from typing import NamedTuple, TypedDict
from uuid import UUID

from sqlalchemy import LargeBinary, bindparam, delete, func, select, text
from sqlalchemy.dialects.postgresql import insert

from persistence.calendar_tables import CalendarFeed
from persistence.models import User
from persistence.postgres.database import Source, Transaction
from persistence.postgres.statements import ById, IdRow, Query
from security.roles import Caller, Role

MAX_VISITS = 4000  # in one feed: half a year of somebody who sees forty patients a day


class VisitRow(NamedTuple):
    """An appointment. `sequence` grows with each change that a feed shows of it, at `changed_at`: not with
    what is said of the visit, which is for the clinic only."""

    id: UUID
    begins: datetime
    ends: datetime
    status: str
    reason: str
    patient_id: UUID
    patient: str
    doctor: str
    sequence: int
    changed_at: datetime


class FeedRow(NamedTuple):
    """`visit`: None in the one row of a feed without any."""

    user_id: UUID
    email: str
    role: str
    visit: VisitRow | None


class Feed(NamedTuple):
    """Whose it is, and their appointments by date."""

    id: UUID
    email: str
    role: Role
    visits: list[VisitRow]


class ByDigest(TypedDict):
    digest: bytes
    limit: int


class NewFeed(TypedDict):
    user_id: UUID
    digest: bytes
    role: Role


# One statement, whether there is such a feed, or was one, or its account is disabled: it takes the same time.
FEED_SQL = text(
    """
    WITH feed AS MATERIALIZED (
        SELECT users.id, users.email, users.role
        FROM calendar_feeds JOIN users ON users.id = calendar_feeds.user_id
        WHERE calendar_feeds.digest = CAST(:digest AS bytea)
          AND users.status = 'active' AND users.role = calendar_feeds.role
          AND calendar_feeds.password = sha256(convert_to(users.password_hash, 'UTF8'))
    ), own AS (
        SELECT visits.* FROM feed JOIN appointments AS visits ON visits.doctor_id = feed.id
        WHERE feed.role = 'doctor' AND visits.date >= now() - interval '31 days'
        UNION ALL
        SELECT visits.* FROM feed JOIN patients ON patients.user_id = feed.id
        JOIN appointments AS visits ON visits.patient_id = patients.id
        WHERE feed.role = 'patient' AND visits.date >= now() - interval '31 days'
        ORDER BY date, id LIMIT CAST(:limit AS bigint)
    )
    SELECT feed.id AS user_id, feed.email, CAST(feed.role AS text) AS role,
           own.id, own.date AS begins, own.ends_at AS ends, CAST(own.status AS text) AS status, own.reason,
           own.patient_id, patients.name AS patient, doctors.name AS doctor,
           changes.number AS sequence, coalesce(changes.at, own.created_at) AS changed_at
    FROM feed LEFT JOIN own ON true
    LEFT JOIN patients ON patients.id = own.patient_id
    LEFT JOIN users AS doctors ON doctors.id = own.doctor_id
    LEFT JOIN LATERAL (
        SELECT count(*) AS number, max(at) AS at FROM appointment_changes
        WHERE appointment_id = own.id AND field IN ('date', 'doctorId', 'status')
    ) AS changes ON true
    ORDER BY own.date, own.id
    """
)
FEED = Query(FeedRow, ByDigest, FEED_SQL)
# Of the password as it is now: if it is being changed meanwhile, the feed never works.
PASSWORD = func.sha256(func.convert_to(User.password_hash, "UTF8"), type_=LargeBinary)
NEW = insert(CalendarFeed).from_select(
    ["user_id", "digest", "role", "password"],
    select(
        User.id,
        bindparam("digest", type_=LargeBinary),
        bindparam("role", type_=CalendarFeed.role.type),
        PASSWORD,
    ).where(User.id == bindparam("user_id")),
)
ADD = Query(
    IdRow,
    NewFeed,
    NEW.on_conflict_do_update(
        index_elements=["user_id"],
        set_={
            "digest": NEW.excluded.digest,
            "role": NEW.excluded.role,
            "password": NEW.excluded.password,
            "created_at": func.now(),
        },
    ).returning(CalendarFeed.user_id.label("id")),
)
END = Query(
    IdRow,
    ById,
    delete(CalendarFeed)
    .where(CalendarFeed.user_id == bindparam("id"))
    .returning(CalendarFeed.user_id.label("id")),
)


async def find(source: Source, digest: bytes) -> Feed | None:
    """The feed at this address; None if there is none, or its account is not active, of another role, or has
    another password."""
    rows = await source.rows(FEED, ByDigest(digest=digest, limit=MAX_VISITS))
    if not rows:
        return None
    visits = [row.visit for row in rows if row.visit is not None]
    return Feed(rows[0].user_id, rows[0].email, Role(rows[0].role), visits)


async def add(transaction: Transaction, caller: Caller, digest: bytes) -> None:
    """In the place of the one that the caller had; concludes the transaction."""
    await transaction.conclude(ADD, NewFeed(user_id=caller.id, digest=digest, role=caller.role))


async def end(transaction: Transaction, user_id: UUID) -> bool:
    """Whether there was one."""
    return bool(await transaction.rows(END, ById(id=user_id)))
