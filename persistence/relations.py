"""How people, charts and visits are related, for every query that asks: who is a doctor, whose chart it is,
whose patient somebody is, when a visit takes its people's time."""

from typing import TypedDict
from uuid import UUID

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Interval,
    Text,
    bindparam,
    exists,
    func,
    literal_column,
    select,
    union,
)

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
LONGEST_VISIT = literal_column("interval '24 hours'", Interval)  # no setting and no hours allow a longer one


class Seen(TypedDict):
    """What a statement takes that begins with what its caller may see."""

    caller: UUID


class SeenById(Seen, ById):
    """What a statement takes that reads one row, if its caller may see it."""


def charts_readable_by(role: Role) -> tuple[ColumnElement[bool], ...]:
    """Everyone at the clinic sees every chart; a patient the one linked to their account."""
    return (OWN,) if role is Role.PATIENT else ()


def taking_time(
    visit: type[Appointment], begins: AnyColumn, ends: AnyColumn
) -> tuple[ColumnElement[bool], ...]:
    """Appointments that are scheduled and have a moment from `begins` to `ends`; as look_before_booking has
    it (migration 0021). By the last condition an index on `date` is enough."""
    return (
        visit.status == AppointmentStatus.SCHEDULED,
        visit.date < ends,
        visit.ends_at > begins,
        visit.date > begins - LONGEST_VISIT,
    )


def assigned_patients(doctor: AnyColumn) -> AnyColumn:
    """How many distinct patients have a not-cancelled appointment or a record with the doctor."""
    patients = union(
        select(Appointment.patient_id).where(
            Appointment.doctor_id == doctor, Appointment.status != AppointmentStatus.CANCELLED
        ),
        select(MedicalRecord.patient_id).where(MedicalRecord.doctor_id == doctor),
    ).subquery()
    return select(func.count()).select_from(patients).scalar_subquery()
