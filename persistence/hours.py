"""The working hours of doctors, and the bookings that they concern."""

from datetime import datetime
from typing import NamedTuple, TypedDict
from uuid import UUID

from sqlalchemy import ColumnElement, bindparam, delete, func, select
from sqlalchemy.dialects.postgresql import JSONB, insert

from persistence.appointments import COLUMNS, SOURCE, AppointmentRow
from persistence.models import Appointment, AppointmentStatus, User
from persistence.postgres.database import Source, Transaction
from persistence.postgres.statements import ById, IdRow, Query
from persistence.relations import ACTIVE_DOCTOR, LONGEST_VISIT
from persistence.schedule_tables import DoctorHours, StoredHours
from persistence.survivors import lock_key


class HoursRow(NamedTuple):
    """None: the doctor has no hours of their own."""

    hours: StoredHours | None


class BookedRow(NamedTuple):
    appointment: AppointmentRow
    ends_at: datetime


class NewHours(TypedDict):
    doctor: UUID
    hours: StoredHours


OWN = select(DoctorHours.hours).where(DoctorHours.doctor_id == User.id).scalar_subquery()
ONE = Query(HoursRow, ById, select(OWN.label("hours")).where(User.id == bindparam("id"), *ACTIVE_DOCTOR))
NEXT_VERSION = func.nextval("doctor_hours_versions")
PUT = insert(DoctorHours).values(
    doctor_id=bindparam("doctor", type_=DoctorHours.doctor_id.type),
    hours=bindparam("hours", type_=JSONB),
    version=NEXT_VERSION,
)
STORED = (
    PUT.on_conflict_do_update(
        index_elements=[DoctorHours.doctor_id],
        set_={"hours": PUT.excluded.hours, "version": PUT.excluded.version},
    )
    .returning(DoctorHours.doctor_id.label("id"))
    .cte("stored")
)
STORE = Query(IdRow, NewHours, select(STORED.c.id))
TAKEN_BACK = (
    delete(DoctorHours)
    .where(DoctorHours.doctor_id == bindparam("id"))
    .returning(DoctorHours.doctor_id.label("id"))
    .cte("taken_back")
)
TAKE_BACK = Query(IdRow, ById, select(TAKEN_BACK.c.id))


def not_over(instant: ColumnElement[datetime]) -> tuple[ColumnElement[bool], ...]:
    """Appointments that are scheduled and go on after that."""
    return (
        Appointment.status == AppointmentStatus.SCHEDULED,
        Appointment.date > instant - LONGEST_VISIT,  # for an index
        Appointment.ends_at > instant,
    )


TO_COME = Query(
    BookedRow,
    ById,
    select(*COLUMNS, Appointment.ends_at)
    .select_from(SOURCE)
    .where(Appointment.doctor_id == bindparam("id"), *not_over(func.now()))
    .order_by(Appointment.date, Appointment.id),
)


async def one(source: Source, doctor_id: UUID) -> HoursRow | None:
    """None where there is no such doctor, or their account is not active."""
    return await source.first(ONE, ById(id=doctor_id))


async def lock(transaction: Transaction, doctor_id: UUID) -> HoursRow | None:
    """As `one`, once nobody else books with the doctor or changes their hours, until the transaction
    ends."""
    await transaction.lock(lock_key(doctor_id))
    return await one(transaction, doctor_id)


async def booked(source: Source, doctor_id: UUID) -> list[BookedRow]:
    """The doctor's scheduled appointments that are not over, by their date."""
    return await source.rows(TO_COME, ById(id=doctor_id))


async def change(transaction: Transaction, doctor_id: UUID, hours: StoredHours | None) -> None:
    """Concludes the transaction. None: those of the clinic."""
    if hours is None:
        await transaction.conclude(TAKE_BACK, ById(id=doctor_id))
    else:
        await transaction.conclude(STORE, NewHours(doctor=doctor_id, hours=hours))
