from datetime import datetime
from functools import lru_cache
from typing import NamedTuple, Required, TypedDict, Unpack
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    bindparam,
    select,
    update,
)

from persistence.history import differences, keep_appointment_changes
from persistence.models import Appointment, AppointmentStatus, Patient, User
from persistence.postgres.database import Source, Transaction
from persistence.postgres.declared import AnyColumn, columns_of, require_parameters
from persistence.postgres.statements import Query
from persistence.relations import CALLER, OWN_CHART, SeenById
from security.roles import Caller, Role


class AppointmentRow(NamedTuple):
    id: UUID
    patient_id: UUID
    patient_name: str
    doctor_id: UUID
    doctor_name: str
    date: datetime
    status: AppointmentStatus
    reason: str
    notes: str | None


class AppointmentChanges(TypedDict, total=False):
    date: datetime
    ends_at: datetime
    overbooked: bool
    status: AppointmentStatus
    notes: str | None


class Changed(AppointmentChanges):
    appointment: Required[UUID]


def columns_from(
    appointment: AnyColumn, patient_name: AnyColumn = Patient.name, doctor_name: AnyColumn = User.name
) -> tuple[AnyColumn, ...]:
    """`appointment`: where the columns of the table are."""
    return columns_of(AppointmentRow, appointment, patient_name=patient_name, doctor_name=doctor_name)


COLUMNS = columns_from(Appointment)
SOURCE = Appointment.__table__.join(Patient.__table__).join(User.__table__, User.id == Appointment.doctor_id)
SEEN_BY: dict[Role, tuple[ColumnElement[bool], ...]] = {
    Role.ADMIN: (),
    Role.STAFF: (),
    Role.DOCTOR: (Appointment.doctor_id == CALLER,),
    Role.PATIENT: (Appointment.patient_id == OWN_CHART,),
}
TABLE = Appointment.__table__


def readable_by(role: Role) -> tuple[ColumnElement[bool], ...]:
    """Administrators and staff see every appointment, doctors and patients their own."""
    return SEEN_BY[role]


@lru_cache
def single(role: Role) -> Query[SeenById, AppointmentRow]:
    where = (Appointment.id == bindparam("id"), *readable_by(role))
    return Query(AppointmentRow, SeenById, select(*COLUMNS).select_from(SOURCE).where(*where))


async def one(source: Source, caller: Caller, appointment_id: UUID) -> AppointmentRow | None:
    """The appointment, if the caller may see it."""
    return await source.first(single(caller.role), SeenById(id=appointment_id, caller=caller.id))


async def change(
    transaction: Transaction, current: AppointmentRow, by: str, **values: Unpack[AppointmentChanges]
) -> AppointmentRow:
    """The appointment with these values, which are in its history too; concludes the transaction. `by`: the
    name of who changes it."""
    changes = differences(current, values)
    keep_appointment_changes(transaction, current.id, by, changes)
    parameters = Changed(appointment=current.id, **values)
    [row] = await transaction.conclude(changed(frozenset(values)), parameters)
    return row


THE_APPOINTMENT = update(Appointment).where(Appointment.id == bindparam("appointment"))
require_parameters([Changed], THE_APPOINTMENT)


@lru_cache
def changed(names: frozenset[str]) -> Query[Changed, AppointmentRow]:
    values = {name: bindparam(name, type_=TABLE.c[name].type) for name in names}
    row = THE_APPOINTMENT.values(values).returning(*TABLE.c).cte("changed")
    people = row.join(Patient, Patient.id == row.c.patient_id).join(User, User.id == row.c.doctor_id)
    return Query(AppointmentRow, Changed, select(*columns_from(row.c)).select_from(people))
