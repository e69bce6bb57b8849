"""Doctors are the active accounts with that role; a doctor's id is his account's."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, func, select, union

from persistence.database import AnyRow, Source
from persistence.models import AccountStatus, Appointment, AppointmentStatus, MedicalRecord, User
from persistence.paging import PagedQuery
from security.roles import Role

SUMMARY = (User.id, User.name, User.email, User.specialization, User.phone)
LISTED = (User.role == Role.DOCTOR, User.status == AccountStatus.ACTIVE)


def assigned_patients(doctor: Any) -> Any:
    """How many distinct patients have a not-cancelled appointment or a record with the doctor."""
    patients = union(
        select(Appointment.patient_id).where(
            Appointment.doctor_id == doctor, Appointment.status != AppointmentStatus.CANCELLED
        ),
        select(MedicalRecord.patient_id).where(MedicalRecord.doctor_id == doctor),
    ).subquery()
    return select(func.count()).select_from(patients).scalar_subquery()


LISTING = PagedQuery(User.id, SUMMARY, User.__table__, (User.sort_name, User.id), LISTED)
ONE = select(*SUMMARY, assigned_patients(bindparam("id"))).where(User.id == bindparam("id"), *LISTED)


async def page(source: Source, page: int, limit: int) -> tuple[list[Sequence[Any]], int]:
    return await LISTING.fetch(source, page, limit)


async def one(source: Source, doctor_id: UUID) -> AnyRow | None:
    return next(iter(await source.rows(ONE, id=doctor_id)), None)


async def is_listed(source: Source, doctor_id: UUID) -> bool:
    return bool(await source.rows(select(User.id).where(User.id == doctor_id, *LISTED)))
