"""Medical records: added and read, never changed or deleted."""

from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, bindparam, func, insert, literal_column, select

from persistence.models import MedicalRecord, Patient, User
from persistence.postgres.counters import number_of
from persistence.postgres.database import Source, Transaction
from persistence.postgres.paging import Found, PagedQuery
from persistence.postgres.statements import AnyRow
from persistence.relations import OWN_CHART
from security.roles import Caller, Role


def columns_of(record: Any) -> tuple[Any, ...]:
    return (
        record.id,
        record.patient_id,
        Patient.name.label("patient_name"),
        record.doctor_id,
        User.name.label("doctor_name"),
        record.date,
        record.diagnosis,
        record.prescription,
        func.coalesce(record.notes, "").label("notes"),
        func.coalesce(record.attachments, literal_column("'[]'::jsonb")).label("attachments"),
    )


COLUMNS = columns_of(MedicalRecord)
SOURCE = MedicalRecord.__table__.join(Patient.__table__).join(
    User.__table__, User.id == MedicalRecord.doctor_id
)
ORDER = (MedicalRecord.date.desc(), MedicalRecord.id.desc())
SENT = {
    name: bindparam(name, type_=MedicalRecord.__table__.c[name].type)
    for name in ("id", "patient_id", "doctor_id", "diagnosis", "prescription", "notes", "attachments")
}
# Dated now, by the clock that every instance shares; nothing where there is no such chart.
ADDED = (
    insert(MedicalRecord)
    .from_select(
        [*SENT, "date"],
        select(*SENT.values(), func.clock_timestamp()).where(Patient.id == SENT["patient_id"]),
    )
    .returning(*MedicalRecord.__table__.c)
    .cte("added")
)
ADD = select(*columns_of(ADDED.c)).select_from(
    ADDED.join(Patient, Patient.id == ADDED.c.patient_id).join(User, User.id == ADDED.c.doctor_id)
)


def readable_by(role: Role) -> tuple[ColumnElement[bool], ...]:
    """Doctors and administrators see every record, a patient those of their chart. Staff never come here."""
    return (MedicalRecord.patient_id == OWN_CHART,) if role is Role.PATIENT else ()


def of(caller: Caller) -> dict[str, Any]:
    return {"caller": caller.id} if readable_by(caller.role) else {}


@lru_cache
def single(role: Role) -> Any:
    query = select(*COLUMNS).select_from(SOURCE)
    return query.where(MedicalRecord.id == bindparam("id"), *readable_by(role))


@lru_cache
def listing(role: Role, of_one_patient: bool) -> PagedQuery:
    where = list(readable_by(role))
    if of_one_patient:
        where.append(MedicalRecord.patient_id == bindparam("patient"))
    names = (MedicalRecord.id, MedicalRecord.patient_id)
    total = None if where else number_of(MedicalRecord)
    return PagedQuery(
        MedicalRecord.id,
        COLUMNS,
        SOURCE,
        ORDER,
        where,
        names=names,
        by_filter=of_one_patient,
        total=total,
        marked=not where,
    )


async def one(source: Source, caller: Caller, record_id: UUID) -> AnyRow | None:
    rows = await source.rows(single(caller.role), id=record_id, **of(caller))
    return next(iter(rows), None)


async def page(source: Source, caller: Caller, page: int, limit: int, *, patient_id: UUID | None) -> Found:
    """Records, newest first, of one chart where `patient_id` is given."""
    parameters = of(caller)
    if patient_id is not None:
        parameters["patient"] = patient_id
    query = listing(caller.role, patient_id is not None)
    return await query.find(source, page, limit, **parameters)


async def add(transaction: Transaction, **values: Any) -> AnyRow | None:
    """The record in COLUMNS, which concludes the transaction; None where there is no such chart."""
    return next(iter(await transaction.conclude(ADD, ADDED, **values)), None)
