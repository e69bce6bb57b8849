"""Who comes when to whom: what a clinic needs on paper while the service is down."""

from datetime import date, datetime
from typing import NamedTuple, TypedDict
from uuid import UUID

from sqlalchemy import bindparam, select, text

from persistence.models import Appointment, AppointmentStatus, AuditEvent, Patient, User
from persistence.postgres.database import Source
from persistence.postgres.statements import NOTHING, Nothing, Query


class Visit(NamedTuple):
    """A scheduled appointment, with what is needed to receive or to call the patient."""

    id: UUID
    begins: datetime
    ends: datetime
    doctor_id: UUID
    doctor: str
    patient_id: UUID
    patient: str
    date_of_birth: date
    phone: str
    allergies: str | None


class Age(NamedTuple):
    """`as_of`: the last write that a replica has replayed; None on a primary, or before the first."""

    is_replica: bool
    as_of: datetime | None


class EventId(NamedTuple):
    id: int


class OfSheet(TypedDict):
    """When a sheet was made, and its number."""

    at: datetime
    number: UUID


class Period(TypedDict):
    """`since` is included, `until` is not."""

    since: datetime
    until: datetime


COLUMNS = (
    Appointment.id,
    Appointment.date.label("begins"),
    Appointment.ends_at.label("ends"),
    Appointment.doctor_id,
    User.name.label("doctor"),
    Appointment.patient_id,
    Patient.name.label("patient"),
    Patient.date_of_birth,
    Patient.phone,
    Patient.allergies,
)
VISITS = Query(
    Visit,
    Period,
    select(*COLUMNS)
    .join(Patient, Patient.id == Appointment.patient_id)
    .join(User, User.id == Appointment.doctor_id)
    .where(
        Appointment.status == AppointmentStatus.SCHEDULED,
        Appointment.date >= bindparam("since"),
        Appointment.date < bindparam("until"),
    )
    .order_by(User.sort_name, Appointment.doctor_id, Appointment.date, Appointment.id),
)
EVENT = Query(
    EventId,
    OfSheet,
    select(AuditEvent.id)
    .where(AuditEvent.at == bindparam("at"), AuditEvent.request_id == bindparam("number"))
    .limit(1),
)
AGE = Query(
    Age,
    Nothing,
    text("SELECT pg_is_in_recovery() AS is_replica, pg_last_xact_replay_timestamp() AS as_of"),
)


async def visits(source: Source, since: datetime, until: datetime) -> list[Visit]:
    """By doctor, then time."""
    return await source.rows(VISITS, Period(since=since, until=until))


async def is_in_trail(source: Source, at: datetime, number: UUID) -> bool:
    return bool(await source.rows(EVENT, OfSheet(at=at, number=number)))


async def age(source: Source) -> Age:
    [row] = await source.rows(AGE, NOTHING)
    return row
