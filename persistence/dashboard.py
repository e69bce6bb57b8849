"""The figures of each role's dashboard, as the contract's table defines them; one statement each."""

from collections.abc import Sequence
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Interval, Select, and_, cast, exists, func, literal_column, not_, select

from persistence.calendar import Calendar, day_of, spans_of, table_of, within_day
from persistence.database import Source
from persistence.models import AccountStatus, Appointment, AppointmentStatus, MedicalRecord, Patient, User
from persistence.relations import ACTIVE_DOCTOR, CALLER, HAS_CHART, OWN_CHART, assigned_patients
from security.roles import Role


def number_of(model: Any, *where: Any) -> Any:
    return select(func.count()).select_from(model).where(*where).scalar_subquery()


HIS = Appointment.doctor_id == CALLER
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
FEES = select(func.coalesce(func.sum(cast(Appointment.fee, BigInteger)), 0)).where(
    Appointment.status == AppointmentStatus.COMPLETED
)

ADMIN = select(
    number_of(Patient),
    number_of(User, *ACTIVE_DOCTOR),
    number_of(Appointment),
    cast(FEES.scalar_subquery(), BigInteger),
)
DOCTOR = select(
    assigned_patients(CALLER),
    number_of(
        Appointment,
        HIS,
        *within_day(Appointment.date),
        Appointment.status != AppointmentStatus.CANCELLED,
    ),
    number_of(Appointment, HIS, Appointment.status == AppointmentStatus.COMPLETED, not_(REPORTED)),
)
STAFF = select(
    number_of(Patient),
    number_of(Appointment, Appointment.status == AppointmentStatus.SCHEDULED),
    number_of(
        User,
        User.role == Role.PATIENT,
        User.status == AccountStatus.ACTIVE,
        not_(HAS_CHART),
    ),
)
PATIENT = select(
    number_of(
        Appointment,
        Appointment.patient_id == OWN_CHART,
        Appointment.status == AppointmentStatus.SCHEDULED,
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
