"""Who comes on a day, to whom: what is printed for the desk."""

from collections.abc import Sequence
from datetime import date, datetime
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import bindparam, exists, or_, select

from persistence.models import Appointment, AppointmentStatus, Patient, User
from persistence.postgres.calendar import DayBounds, Span, bounds_of, within_day
from persistence.postgres.database import Source
from persistence.postgres.statements import ById, IdRow, Query
from persistence.relations import ACTIVE_DOCTOR


class VisitRow(NamedTuple):
    """An appointment that takes place or took place, with what is needed to receive the patient."""

    id: UUID
    begins: datetime
    ends: datetime
    status: AppointmentStatus
    reason: str
    doctor_id: UUID
    doctor: str
    patient_id: UUID
    patient: str
    date_of_birth: date
    phone: str


class Listed(DayBounds):
    doctor: UUID | None


COLUMNS = (
    Appointment.id,
    Appointment.date.label("begins"),
    Appointment.ends_at.label("ends"),
    Appointment.status,
    Appointment.reason,
    Appointment.doctor_id,
    User.name.label("doctor"),
    Appointment.patient_id,
    Patient.name.label("patient"),
    Patient.date_of_birth,
    Patient.phone,
)
# One who has left and still has appointments has a sheet of them, too.
DOCTOR = Query(
    IdRow,
    ById,
    select(User.id).where(
        User.id == bindparam("id"),
        or_(ACTIVE_DOCTOR[0] & ACTIVE_DOCTOR[1], exists().where(Appointment.doctor_id == User.id)),
    ),
)


@lru_cache
def listing(of_one: bool) -> Query[Listed, VisitRow]:
    where = [*within_day(Appointment.date), Appointment.status != AppointmentStatus.CANCELLED]
    if of_one:
        where.append(Appointment.doctor_id == bindparam("doctor"))
    return Query(
        VisitRow,
        Listed,
        select(*COLUMNS)
        .join(Patient, Patient.id == Appointment.patient_id)
        .join(User, User.id == Appointment.doctor_id)
        .where(*where)
        .order_by(User.sort_name, Appointment.doctor_id, Appointment.date, Appointment.id),
    )


async def visits(source: Source, spans: Sequence[Span], doctor_id: UUID | None) -> list[VisitRow]:
    """Those of the day that are not cancelled, by doctor, then time. `spans`: the day's. `doctor_id`: None
    for everybody's."""
    parameters = Listed(doctor=doctor_id, **bounds_of([*spans]))
    return await source.rows(listing(doctor_id is not None), parameters)


async def has_sheet(source: Source, doctor_id: UUID) -> bool:
    """Whether there is such a doctor."""
    return await source.first(DOCTOR, ById(id=doctor_id)) is not None
