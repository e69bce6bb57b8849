"""What free times are found by: which doctors there are, their hours, and when they have no time."""

from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple, TypedDict, Unpack
from uuid import UUID

from sqlalchemy import (
    Select,
    bindparam,
    func,
    literal,
    select,
    type_coerce,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSTZRANGE, array

from persistence.models import Appointment, AppointmentStatus, Instant, User
from persistence.postgres.database import Source
from persistence.postgres.declared import AnyColumn, columns_of
from persistence.postgres.statements import Query
from persistence.relations import (
    ACTIVE_DOCTOR,
    LONGEST_VISIT,
    OF_SPECIALIZATION,
    OWN_CHART,
    Seen,
    taking_time,
)
from persistence.schedule_tables import Absence, DoctorHours, StoredHours
from security.roles import Caller, Role


class DoctorTimes(NamedTuple):
    """`hours`: the doctor's own, None where they have none. The times in which they cannot be booked by the
    caller are in order and do not touch; each has a begin and an end, one after the other: `taken`, and
    `closed`, which is the same for every doctor. `open_visits`: how many scheduled visits to come a caller
    who is a patient has. `now`: by the database's clock."""

    id: UUID
    name: str
    hours: StoredHours | None
    taken: list[datetime]
    closed: list[datetime]
    open_visits: int
    now: datetime


class Wanted(Seen):
    begins: datetime
    ends: datetime


class Narrowed(TypedDict, total=False):
    """`itself`: an appointment that is moved, and so makes room."""

    doctor: UUID
    itself: UUID
    specialization: str


class Asked(Wanted, Narrowed):
    pass


BEGINS, ENDS = (bindparam(name, type_=Instant) for name in ("begins", "ends"))
UNTIL = ENDS + LONGEST_VISIT  # one that begins before `ends` may reach so far
SPAN = TSTZRANGE()
OPEN_VISITS = (
    select(func.count())
    .select_from(Appointment)
    .where(
        Appointment.patient_id == OWN_CHART,
        Appointment.status == AppointmentStatus.SCHEDULED,
        Appointment.date > func.clock_timestamp(),
    )
    .scalar_subquery()
)


def visits(*where: AnyColumn) -> Select[Any]:
    """When somebody has one."""
    span = func.tstzrange(Appointment.date, Appointment.ends_at, type_=SPAN).label("span")
    return select(span).where(*where, *taking_time(Appointment, BEGINS, UNTIL))


def absences(*where: AnyColumn) -> Select[Any]:
    span = func.tstzrange(Absence.begins, Absence.ends, type_=SPAN).label("span")
    return select(span).where(*where, Absence.begins < UNTIL, Absence.ends > BEGINS)


def edges_of(*spans: Select[Any]) -> AnyColumn:
    """All of them together, joined where they touch: begin, end, begin, end …"""
    every = union_all(*spans).subquery()
    joined = select(func.unnest(func.range_agg(every.c.span), type_=SPAN).label("span")).subquery()
    edges = array([func.lower(joined.c.span), func.upper(joined.c.span)])
    edge = select(func.unnest(edges)).scalar_subquery()
    return func.array(edge, type_=ARRAY(Instant))


@lru_cache
def times(role: Role, narrowed: frozenset[str]) -> Query[Asked, DoctorTimes]:
    """`narrowed`: by which keys of Narrowed."""
    others = [Appointment.id != bindparam("itself")] if "itself" in narrowed else []
    taken = edges_of(
        visits(Appointment.doctor_id == User.id, *others).correlate(User),
        absences(Absence.doctor_id == User.id).correlate(User),
    )
    closed = [absences(Absence.doctor_id.is_(None))]
    open_visits: AnyColumn = literal(0)
    if role is Role.PATIENT:
        closed.append(visits(Appointment.patient_id == OWN_CHART, *others))
        open_visits = OPEN_VISITS
    where = list(ACTIVE_DOCTOR)
    if "doctor" in narrowed:
        where.append(User.id == bindparam("doctor"))
    if "specialization" in narrowed:
        where.append(OF_SPECIALIZATION)
    columns = columns_of(
        DoctorTimes,
        User,
        hours=type_coerce(DoctorHours.hours, JSONB),  # NULL where there is no row
        taken=taken,
        closed=edges_of(*closed),
        open_visits=open_visits,
        now=func.clock_timestamp(type_=Instant),
    )
    source = User.__table__.outerjoin(DoctorHours.__table__)
    statement = select(*columns).select_from(source).where(*where).order_by(User.sort_name, User.id)
    return Query(DoctorTimes, Asked, statement)


async def find(
    source: Source, caller: Caller, begins: datetime, ends: datetime, **narrowed: Unpack[Narrowed]
) -> list[DoctorTimes]:
    """The active doctors, by name then id, with what stands against a visit that begins from `begins` on and
    before `ends`."""
    asked = Asked(caller=caller.id, begins=begins, ends=ends, **narrowed)
    return await source.rows(times(caller.role, frozenset(narrowed)), asked)


async def one(
    source: Source, caller: Caller, begins: datetime, ends: datetime, doctor: UUID, itself: UUID | None = None
) -> DoctorTimes | None:
    """The same of one doctor; None where there is no active one of that id."""
    narrowed = Narrowed(doctor=doctor)
    if itself is not None:
        narrowed["itself"] = itself
    asked = Asked(caller=caller.id, begins=begins, ends=ends, **narrowed)
    return await source.first(times(caller.role, frozenset(narrowed)), asked)
