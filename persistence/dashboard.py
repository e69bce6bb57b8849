"""The figures of each role's dashboard, as the contract's table defines them; one statement each."""

from collections.abc import Sequence
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import Interval, Select, and_, exists, func, literal_column, not_, or_, select

from persistence.models import AccountStatus, Appointment, AppointmentStatus, MedicalRecord, Patient, User
from persistence.postgres import counters
from persistence.postgres.calendar import Calendar, day_of, spans_of, table_of, within_day
from persistence.postgres.database import Source
from persistence.relations import CALLER, HAS_CHART, OWN_CHART, assigned_patients
from security.roles import Role


def number_of(model: Any, *where: Any) -> Any:
    return select(func.count()).select_from(model).where(*where).scalar_subquery()


COMPLETED = Appointment.status == AppointmentStatus.COMPLETED
SCHEDULED = Appointment.status == AppointmentStatus.SCHEDULED
# Every other state of an account, each of which an index finds.
NO_ACTIVE_PATIENT = or_(
    *(User.role == role for role in Role if role is not Role.PATIENT),
    *(
        and_(User.role == Role.PATIENT, User.status == status)
        for status in AccountStatus
        if status is not AccountStatus.ACTIVE
    ),
)


THEIRS = Appointment.doctor_id == CALLER
# Written on or after the appointment's clinic day: what was noted before the visit does not report on it.
# No day on earth has lasted 50 hours; the bound is for the index.
REPORTED = exists().where(
    and_(
        MedicalRecord.doctor_id == CALLER,
        MedicalRecord.patient_id == Appointment.patient_id,
        MedicalRecord.date > Appointment.date - literal_column("interval '50 hours'", Interval),
        day_of(MedicalRecord.date) >= day_of(Appointment.date),
    )
)
ADMIN = select(
    counters.number_of(Patient),
    counters.number_of(User, "doctor active"),
    counters.number_of(Appointment),
    counters.sum_of(Appointment, "completed"),
)
DOCTOR = select(
    assigned_patients(CALLER),
    number_of(
        Appointment,
        THEIRS,
        *within_day(Appointment.date),
        Appointment.status != AppointmentStatus.CANCELLED,
    ),
    number_of(Appointment, THEIRS, COMPLETED, not_(REPORTED)),
)
# Nearly all charts that are linked are linked to the account of an active patient; the others are looked for.
STAFF = select(
    counters.number_of(Patient),
    counters.number_of(Appointment, "scheduled"),
    counters.number_of(User, "patient active")
    - counters.number_of(Patient, "linked")
    + number_of(User, NO_ACTIVE_PATIENT, HAS_CHART),
)
PATIENT = select(
    number_of(
        Appointment,
        Appointment.patient_id == OWN_CHART,
        SCHEDULED,
        Appointment.date > func.now(),
    ),
    number_of(MedicalRecord, MedicalRecord.patient_id == OWN_CHART),
    number_of(MedicalRecord, MedicalRecord.patient_id == OWN_CHART, MedicalRecord.prescription != ""),
)


async def admin(source: Source) -> Sequence[int]:
    """(patients, active doctors, appointments, revenue)"""
    return await figures(source, ADMIN)


async def doctor(source: Source, user_id: UUID, calendar: Calendar, today: date) -> Sequence[int]:
    """(assigned patients, today's appointments, pending reports); `today` at the clinic, by its calendar."""
    days = spans_of(calendar.spans(today)) | table_of(calendar)
    return await figures(source, DOCTOR, caller=user_id, **days)


async def staff(source: Source) -> Sequence[int]:
    """(charts, scheduled appointments, patient accounts that no chart is linked to)"""
    return await figures(source, STAFF)


async def patient(source: Source, user_id: UUID) -> Sequence[int]:
    """(upcoming appointments, records, records that prescribe something)"""
    return await figures(source, PATIENT, caller=user_id)


async def figures(source: Source, statement: Select[Any], **parameters: Any) -> Sequence[int]:
    row: Sequence[int]
    [row] = await source.rows(statement, **parameters)
    return row
