"""How people and charts are related, for every query that asks: who is a doctor, whose chart it is, whose
patient somebody is."""

from typing import TypedDict
from uuid import UUID

from sqlalchemy import BindParameter, ColumnElement, Text, bindparam, exists, func, select, union

from persistence.models import AccountStatus, Appointment, AppointmentStatus, MedicalRecord, Patient, User
from persistence.postgres.declared import AnyColumn
from persistence.postgres.statements import ById
from security.roles import Role

CALLER: BindParameter[UUID] = bindparam("caller")
ACTIVE_DOCTOR = (User.role == Role.DOCTOR, User.status == AccountStatus.ACTIVE)
OF_SPECIALIZATION = func.lower(User.specialization) == func.lower(bindparam("specialization", type_=Text))
OWN = Patient.user_id == CALLER  # of a chart: a person has linked it to the caller's account
OWN_CHART = select(Patient.id).where(OWN).scalar_subquery()
CALLERS_NAME = select(User.name).where(User.id == CALLER).scalar_subquery()
HAS_CHART = exists().where(Patient.user_id == User.id)


class Seen(TypedDict):
    """What a statement takes that begins with what its caller may see."""

    caller: UUID


class SeenById(Seen, ById):
    """What a statement takes that reads one row, if its caller may see it."""


def charts_readable_by(role: Role) -> tuple[ColumnElement[bool], ...]:
    """Everyone at the clinic sees every chart; a patient the one linked to their account."""
    return (OWN,) if role is Role.PATIENT else ()


def assigned_patients(doctor: AnyColumn) -> AnyColumn:
    """How many distinct patients have a not-cancelled appointment or a record with the doctor."""
    patients = union(
        select(Appointment.patient_id).where(
            Appointment.doctor_id == doctor, Appointment.status != AppointmentStatus.CANCELLED
        ),
        select(MedicalRecord.patient_id).where(MedicalRecord.doctor_id == doctor),
    ).subquery()
    return select(func.count()).select_from(patients).scalar_subquery()
