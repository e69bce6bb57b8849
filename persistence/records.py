"""Medical records: added and read. What changes or removes one is in persistence/record_versions.py."""

from datetime import datetime
from functools import lru_cache, partial
from typing import NamedTuple, TypedDict, Unpack
from uuid import UUID

from sqlalchemy import ColumnElement, Uuid, bindparam, func, insert, literal_column, select

from persistence.audit import Event
from persistence.audit_chain import Key
from persistence.contents import Kept, mac_of
from persistence.models import MedicalRecord, Patient, User
from persistence.postgres.counters import number_of
from persistence.postgres.database import Source, Transaction
from persistence.postgres.declared import AnyColumn, columns_of
from persistence.postgres.paging import Found, PagedQuery
from persistence.postgres.sorting import RecordSort, order_by
from persistence.postgres.statements import Query
from persistence.relations import OWN_CHART, Seen, SeenById
from persistence.survivors import chart_now
from security.roles import Caller, Role


class RecordRow(NamedTuple):
    id: UUID
    patient_id: UUID
    patient_name: str
    doctor_id: UUID
    doctor_name: str
    date: datetime
    diagnosis: str
    prescription: str
    notes: str
    attachments: list[str]


class NewRecord(TypedDict):
    id: UUID
    patient_id: UUID
    doctor_id: UUID
    diagnosis: str
    prescription: str
    notes: str
    attachments: list[str]


class WrittenRecord(NamedTuple):
    """What the event of a new record vouches for: not its date, which PostgreSQL's clock gives, and not its
    chart, which the event names."""

    id: UUID
    doctor_id: UUID
    diagnosis: str
    prescription: str
    notes: str
    attachments: list[str]
    request_id: UUID


class WrittenRecords:
    """As a SealedTable (contents.py), of rows that may be replaced or moved by the book. So they are not
    found by their request, but by their id, which the event names (record_verification.py)."""

    name = MedicalRecord.__tablename__

    def mac(self, key: Key, row: WrittenRecord) -> str:
        return mac_of(key, self.name, zip(row._fields, row, strict=True))


class Filters(NamedTuple):
    """What is asked for of the records that the caller may see. None: whatever it is. `patient`: a chart, or
    one that was merged into it. `since` is included, `until` is not."""

    patient: UUID | None = None
    doctor: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None


class Listed(Seen):
    """And the fields of Filters."""

    patient: UUID | None
    doctor: UUID | None
    since: datetime | None
    until: datetime | None


def columns_from(record: AnyColumn) -> tuple[AnyColumn, ...]:
    """`record`: where the columns of the table are."""
    return columns_of(
        RecordRow,
        record,
        patient_name=Patient.name,
        doctor_name=User.name,
        notes=func.coalesce(record.notes, ""),
        attachments=func.coalesce(record.attachments, literal_column("'[]'::jsonb")),
    )


NO_FILTERS = Filters()
WRITTEN = WrittenRecords()
COLUMNS = columns_from(MedicalRecord)
SOURCE = MedicalRecord.__table__.join(Patient.__table__).join(
    User.__table__, User.id == MedicalRecord.doctor_id
)
# What each filter demands of a row.
CONDITIONS: dict[str, ColumnElement[bool]] = {
    "patient": MedicalRecord.patient_id == chart_now(bindparam("patient", type_=Uuid())),
    "doctor": MedicalRecord.doctor_id == bindparam("doctor"),
    "since": MedicalRecord.date >= bindparam("since"),
    "until": MedicalRecord.date < bindparam("until"),
}
SENT = {
    name: bindparam(name, type_=MedicalRecord.__table__.c[name].type) for name in NewRecord.__annotations__
}
# Dated now, by the clock that every instance shares; nothing where there is no such chart.
ADDED = (
    insert(MedicalRecord)
    .from_select(
        [*SENT, "author_name", "date"],
        select(*SENT.values(), User.name, func.clock_timestamp())
        .where(Patient.id == SENT["patient_id"], User.id == SENT["doctor_id"])
        .with_for_update(read=True, key_share=True, of=Patient),  # it stays a chart until this is stored
    )
    .returning(*MedicalRecord.__table__.c)
    .cte("added")
)
PEOPLE = ADDED.join(Patient, Patient.id == ADDED.c.patient_id).join(User, User.id == ADDED.c.doctor_id)
ADD = Query(RecordRow, NewRecord, select(*columns_from(ADDED.c)).select_from(PEOPLE), only_if=ADDED)


def readable_by(role: Role) -> tuple[ColumnElement[bool], ...]:
    """Doctors and administrators see every record, a patient those of their chart. Staff never come here."""
    return (MedicalRecord.patient_id == OWN_CHART,) if role is Role.PATIENT else ()


@lru_cache
def single(role: Role) -> Query[SeenById, RecordRow]:
    where = (MedicalRecord.id == bindparam("id"), *readable_by(role))
    return Query(RecordRow, SeenById, select(*COLUMNS).select_from(SOURCE).where(*where))


@lru_cache
def listing(role: Role, given: frozenset[str], sort: RecordSort) -> PagedQuery[Listed, RecordRow]:
    """`given`: the keys of CONDITIONS that hold."""
    where = [*readable_by(role), *(CONDITIONS[name] for name in sorted(given))]
    return PagedQuery(
        RecordRow,
        Listed,
        MedicalRecord.id,
        COLUMNS,
        SOURCE,
        order_by(sort, MedicalRecord.id, {"date": MedicalRecord.date}),
        where,
        names=(MedicalRecord.id, MedicalRecord.patient_id),
        by_filter=bool(given),
        total=None if where else number_of(MedicalRecord),
        marked=not where,
    )


async def one(source: Source, caller: Caller, record_id: UUID) -> RecordRow | None:
    return await source.first(single(caller.role), SeenById(id=record_id, caller=caller.id))


async def page(
    source: Source,
    caller: Caller,
    page: int,
    limit: int,
    filters: Filters = NO_FILTERS,
    sort: RecordSort = RecordSort.DATE_DESCENDING,
) -> Found[RecordRow]:
    """Records, newest first if nothing else is asked for."""
    given = frozenset(name for name in CONDITIONS if getattr(filters, name) is not None)
    parameters = Listed(
        caller=caller.id,
        patient=filters.patient,
        doctor=filters.doctor,
        since=filters.since,
        until=filters.until,
    )
    return await listing(caller.role, given, sort).find(source, page, limit, parameters)


async def add(transaction: Transaction, **values: Unpack[NewRecord]) -> RecordRow | None:
    """Concludes the transaction, whose event vouches for the text. None where there is no such chart."""
    transaction.keep(Kept(WRITTEN, partial(written_records, values), is_stored=True))
    return next(iter(await transaction.conclude(ADD, values)), None)


def written_records(record: NewRecord, event: Event) -> list[WrittenRecord]:
    return [
        WrittenRecord(
            record["id"],
            record["doctor_id"],
            record["diagnosis"],
            record["prescription"],
            record["notes"],
            record["attachments"],
            event.request_id,
        )
    ]
