"""The figures of each role's dashboard, as the contract's table defines them; one statement each."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, BindParameter, Select, and_, bindparam, cast, exists, func, not_, select

from persistence.database import Source
from persistence.doctors import LISTED, assigned_patients
from persistence.models import AccountStatus, Appointment, AppointmentStatus, MedicalRecord, Patient, User
from security.roles import Role


def number_of(model: Any, *where: Any) -> Any:
    return select(func.count()).select_from(model).where(*where).scalar_subquery()


CALLER: BindParameter[Any] = bindparam("caller")
HIS = Appointment.doctor_id == CALLER
OWN_CHART = select(Patient.id).where(Patient.user_id == CALLER).scalar_subquery()


def clinic_day(instant: Any) -> Any:
    return func.date_trunc("day", instant, bindparam("timezone"))


# Written on or after the appointment's clinic day: what was noted before the visit does not report on it.
REPORTED = exists().where(
    and_(
        MedicalRecord.doctor_id == CALLER,
        MedicalRecord.patient_id == Appointment.patient_id,
        MedicalRecord.date >= clinic_day(Appointment.date),
    )
)
FEES = select(func.coalesce(func.sum(cast(Appointment.fee, BigInteger)), 0)).where(
    Appointment.status == AppointmentStatus.COMPLETED
)

ADMIN = select(
    number_of(Patient),
    number_of(User, *LISTED),
    number_of(Appointment),
    cast(FEES.scalar_subquery(), BigInteger),
)
DOCTOR = select(
    assigned_patients(CALLER),
    number_of(
        Appointment,
        HIS,
        Appointment.date >= bindparam("day_begins"),
        Appointment.date < bindparam("day_ends"),
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
        not_(exists().where(Patient.user_id == User.id)),
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


async def doctor(source: Source, user_id: UUID, today: tuple[datetime, datetime], zone: str) -> Sequence[int]:
    """(assigned patients, today's appointments, pending reports); `today` begins and ends in `zone`."""
    return await figures(
        source, DOCTOR, caller=user_id, day_begins=today[0], day_ends=today[1], timezone=zone
    )


async def staff(source: Source) -> Sequence[int]:
    """(charts, scheduled appointments, patient accounts that no chart is linked to)"""
    return await figures(source, STAFF)


async def patient(source: Source, user_id: UUID) -> Sequence[int]:
    """(upcoming appointments, records, records that prescribe something)"""
    return await figures(source, PATIENT, caller=user_id)


async def figures(source: Source, statement: Select[Any], **parameters: Any) -> Sequence[int]:
    [row] = await source.rows(statement, **parameters)
    return row
