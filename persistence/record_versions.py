"""What became of a record: its versions, and its retraction. Both are added, and never changed."""

from datetime import datetime
from functools import lru_cache
from typing import NamedTuple, TypedDict
from uuid import UUID

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Text,
    bindparam,
    exists,
    func,
    insert,
    literal,
    literal_column,
    not_,
    select,
    true,
    union_all,
)
from sqlalchemy.orm import aliased

from persistence.contents import Kept, SealedTable
from persistence.models import MedicalRecord, User
from persistence.postgres.database import Source, Transaction
from persistence.postgres.declared import columns_of
from persistence.postgres.paging import Window
from persistence.postgres.statements import ById, Query
from persistence.record_tables import RecordRetraction, RecordVersion, stored_chart_of
from persistence.records import COLUMNS, SOURCE, RecordRow
from persistence.relations import CALLER, OWN_CHART, SeenById
from persistence.survivors import lock_key
from security.roles import Caller, Role


class VersionRow(NamedTuple):
    """`reason`: None of the original."""

    at: datetime
    user_id: UUID
    name: str
    role: str
    reason: str | None
    diagnosis: str
    prescription: str
    notes: str
    attachments: list[str]


class RetractionRow(NamedTuple):
    retracted_at: datetime
    retracted_by: UUID
    retracted_name: str
    retracted_role: str
    retracted_for: str


class VersionPageRow(NamedTuple):
    """`version`: None in the one row of a page past the end. `total`: of all pages."""

    version: VersionRow | None
    retraction: RetractionRow | None
    patient_id: UUID
    total: int


class HeldRecord(NamedTuple):
    """A record that nobody else amends or retracts until the transaction ends. `stored_for`: its chart,
    before any merge. `author_name`: as it was when the record was written. `is_original`: it was never
    amended. `by`: the caller's name."""

    record: RecordRow
    stored_for: UUID
    author_name: str
    created_at: datetime
    is_original: bool
    by: str


class PlaceRow(NamedTuple):
    """Whose a record is, whether it stands or was retracted."""

    patient_id: UUID
    doctor_id: UUID


class KeptRow(NamedTuple):
    record_id: UUID


class Act(TypedDict):
    """What somebody does to a record."""

    record_id: UUID
    at: datetime
    user_id: UUID
    name: str
    role: Role
    reason: str
    request_id: UUID


class Amendment(Act):
    """With the whole text, that which stays as it was included."""

    diagnosis: str
    prescription: str
    notes: str
    attachments: list[str]


class Paged(SeenById, Window):
    pass


class SealedVersion(NamedTuple):
    """What is sealed of a version."""

    record_id: UUID
    is_original: bool
    at: datetime
    user_id: UUID
    name: str
    role: str
    reason: str | None
    diagnosis: str
    prescription: str
    notes: str
    attachments: list[str]
    request_id: UUID


class SealedRetraction(NamedTuple):
    record_id: UUID
    at: datetime
    user_id: UUID
    name: str
    role: str
    reason: str
    request_id: UUID
    patient_id: UUID
    doctor_id: UUID
    date: datetime
    created_at: datetime


VERSIONS = SealedTable(SealedVersion, RecordVersion)
RETRACTIONS = SealedTable(SealedRetraction, RecordRetraction, patient_id=stored_chart_of(RecordRetraction))
BY_ID: ColumnElement[bool] = MedicalRecord.id == bindparam("id")
RETRACTED: ColumnElement[bool] = RecordRetraction.record_id == bindparam("id")
AMEND = Query(KeptRow, Amendment, insert(RecordVersion).returning(RecordVersion.record_id))
RETRACT = Query(KeptRow, Act, insert(RecordRetraction).returning(RecordRetraction.record_id))
PLACE = Query(
    PlaceRow,
    ById,
    union_all(
        select(*columns_of(PlaceRow, MedicalRecord)).where(BY_ID),
        select(*columns_of(PlaceRow, RecordRetraction)).where(RETRACTED),
    ),
)
ACTOR = aliased(User)
HELD = Query(
    HeldRecord,
    SeenById,
    select(
        *COLUMNS,
        stored_chart_of(MedicalRecord).label("stored_for"),
        func.coalesce(MedicalRecord.author_name, User.name).label("author_name"),
        MedicalRecord.created_at,
        not_(exists().where(RecordVersion.record_id == MedicalRecord.id)).label("is_original"),
        select(ACTOR.name).where(ACTOR.id == CALLER).scalar_subquery().label("by"),
    )
    .select_from(SOURCE)
    .where(BY_ID),
)
VERSION = columns_of(VersionRow, RecordVersion)
KEPT = select(RecordVersion.id.label("number"), RecordVersion.is_original, *VERSION).where(
    RecordVersion.record_id == bindparam("id")
)
# The only text of a record that nobody has amended is in the table of records.
ONLY = (
    select(
        literal_column("0", BigInteger).label("number"),
        true().label("is_original"),
        *columns_of(
            VersionRow,
            MedicalRecord,
            at=MedicalRecord.date,
            user_id=MedicalRecord.doctor_id,
            name=func.coalesce(MedicalRecord.author_name, User.name),
            role=literal(Role.DOCTOR.value, Text),
            reason=literal_column("NULL", Text),
            notes=func.coalesce(MedicalRecord.notes, ""),
            attachments=func.coalesce(MedicalRecord.attachments, literal_column("'[]'::jsonb")),
        ),
    )
    .join(User, User.id == MedicalRecord.doctor_id)
    .where(BY_ID, not_(exists().where(RecordVersion.record_id == bindparam("id"))))
)
RETRACTION = (
    RecordRetraction.at.label("retracted_at"),
    RecordRetraction.user_id.label("retracted_by"),
    RecordRetraction.name.label("retracted_name"),
    RecordRetraction.role.label("retracted_role"),
    RecordRetraction.reason.label("retracted_for"),
)


def readable_by(role: Role) -> CTE:
    """The chart of the record, if the role may read its versions: doctors and administrators also those of a
    retracted one, a patient those of a record of their chart that stands. Staff never come here."""
    stands = select(MedicalRecord.patient_id).where(BY_ID)
    if role is Role.PATIENT:
        return stands.where(MedicalRecord.patient_id == OWN_CHART).cte("found")
    return union_all(stands, select(RecordRetraction.patient_id).where(RETRACTED)).cte("found")


@lru_cache
def listing(role: Role) -> Query[Paged, VersionPageRow]:
    """One row for each version of the page, the original the last of all."""
    found, versions = readable_by(role), union_all(KEPT, ONLY).cte("versions")
    limit, offset = (bindparam(name, type_=BigInteger) for name in ("limit", "offset"))
    order = (versions.c.is_original, versions.c.number.desc())
    shown = select(versions).order_by(*order).limit(limit).offset(offset).subquery("shown")
    columns = (
        *(shown.c[name] for name in VersionRow._fields),
        *RETRACTION,
        found.c.patient_id,
        select(func.count()).select_from(versions).scalar_subquery().label("total"),
    )
    rows = found.outerjoin(RecordRetraction, RETRACTED).outerjoin(shown, true())
    statement = select(*columns).select_from(rows).order_by(shown.c.is_original, shown.c.number.desc())
    return Query(VersionPageRow, Paged, statement)


async def page(
    source: Source, caller: Caller, page: int, limit: int, record_id: UUID
) -> list[VersionPageRow]:
    """The versions, newest first, each with what all share; nothing where the caller may not see them."""
    parameters = Paged(id=record_id, caller=caller.id, limit=limit, offset=(page - 1) * limit)
    return await source.rows(listing(caller.role), parameters)


async def place(source: Source, record_id: UUID) -> PlaceRow | None:
    """None where there never was such a record. For callers who may see them all."""
    return await source.first(PLACE, ById(id=record_id))


async def held(transaction: Transaction, caller: Caller, record_id: UUID) -> HeldRecord | None:
    """None where there is no such record, or not any more. For callers who may see them all."""
    await transaction.lock(lock_key(record_id))
    return await transaction.first(HELD, SeenById(id=record_id, caller=caller.id))


async def amend(transaction: Transaction, held: HeldRecord, values: Amendment) -> None:
    """Keep the original, put this text in its place, and conclude the transaction."""
    rows = [*original_of(held, values["request_id"]), SealedVersion(is_original=False, **values)]
    transaction.keep(Kept(VERSIONS, lambda _: rows, is_stored=True))
    await transaction.conclude(AMEND, values)


async def retract(transaction: Transaction, held: HeldRecord, values: Act) -> None:
    """Keep the original, take the record out of all lists, and conclude the transaction."""
    row = SealedRetraction(
        **values,
        patient_id=held.stored_for,
        doctor_id=held.record.doctor_id,
        date=held.record.date,
        created_at=held.created_at,
    )
    originals = original_of(held, values["request_id"])
    transaction.keep(Kept(VERSIONS, lambda _: originals, is_stored=True))
    transaction.keep(Kept(RETRACTIONS, lambda _: [row], is_stored=True))
    await transaction.conclude(RETRACT, values)


def original_of(held: HeldRecord, request_id: UUID) -> list[SealedVersion]:
    """What the trigger keeps, where it has not done so before."""
    if not held.is_original:
        return []
    record = held.record
    return [
        SealedVersion(
            record_id=record.id,
            is_original=True,
            at=record.date,
            user_id=record.doctor_id,
            name=held.author_name,
            role=Role.DOCTOR,
            reason=None,
            diagnosis=record.diagnosis,
            prescription=record.prescription,
            notes=record.notes,
            attachments=record.attachments,
            request_id=request_id,
        )
    ]
