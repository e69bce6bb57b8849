"""The audit trail: who did what to whose data, when, from where (ASVS 5.0, 16.3; 45 CFR 164.312(b))."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple, TypedDict
from uuid import UUID

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, Insert, Text, bindparam, cast, column, func, insert, select
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.types import Uuid

from persistence.models import AuditEvent
from persistence.postgres.counters import number_of
from persistence.postgres.database import Reader, Source
from persistence.postgres.deadline import REQUEST_SECONDS, in_time, start_clock
from persistence.postgres.declared import columns_of
from persistence.postgres.paging import Ids, PagedQuery
from persistence.postgres.statements import Statement


class Action(StrEnum):
    AUTH_LOGIN = "auth.login"
    AUTH_LOCK = "auth.lock"
    AUTH_REUSE = "auth.reuse"
    AUTH_LOGOUT = "auth.logout"
    ACCOUNT_CREATE = "account.create"
    ACCOUNT_LIST = "account.list"
    ACCOUNT_READ = "account.read"
    ACCOUNT_UPDATE = "account.update"
    ACCOUNT_PASSWORD = "account.password"  # noqa: S105  # the name of an act
    SESSION_LIST = "session.list"
    SESSION_END = "session.end"
    PATIENT_LIST = "patient.list"
    PATIENT_READ = "patient.read"
    PATIENT_CREATE = "patient.create"
    PATIENT_UPDATE = "patient.update"
    PATIENT_LINK = "patient.link"
    PATIENT_UNLINK = "patient.unlink"
    PATIENT_ACCESSES = "patient.accesses"
    PATIENT_DUPLICATES = "patient.duplicates"
    PATIENT_HISTORY = "patient.history"
    PATIENT_MERGE = "patient.merge"
    PATIENT_MERGES = "patient.merges"
    PATIENT_UNMERGE = "patient.unmerge"
    DOCTOR_READ = "doctor.read"
    HOURS_READ = "hours.read"
    HOURS_UPDATE = "hours.update"
    ABSENCE_LIST = "absence.list"
    ABSENCE_READ = "absence.read"
    ABSENCE_CREATE = "absence.create"
    ABSENCE_DELETE = "absence.delete"
    APPOINTMENT_LIST = "appointment.list"
    APPOINTMENT_READ = "appointment.read"
    APPOINTMENT_CREATE = "appointment.create"
    APPOINTMENT_UPDATE = "appointment.update"
    APPOINTMENT_OVERRIDE = "appointment.override"
    APPOINTMENT_OVERBOOK = "appointment.overbook"
    APPOINTMENT_HISTORY = "appointment.history"
    VISIT_READ = "visit.read"
    VISIT_UPDATE = "visit.update"
    APPOINTMENT_PRINT = "appointment.print"
    RECORD_LIST = "record.list"
    RECORD_READ = "record.read"
    RECORD_CREATE = "record.create"
    RECORD_VERSIONS = "record.versions"
    RECORD_AMEND = "record.amend"
    RECORD_RETRACT = "record.retract"
    RECORD_ACCESSES = "record.accesses"
    CALENDAR_CREATE = "calendar.create"
    CALENDAR_READ = "calendar.read"
    CALENDAR_END = "calendar.end"
    AUDIT_LIST = "audit.list"


class Outcome(StrEnum):
    SUCCESS = "success"
    FAILURE = "failure"  # a wrong password, a token used again
    REFUSED = "refused"  # 403 and, for what the caller may not see, 404


class Event(Struct, frozen=True, kw_only=True):
    """A row before it has an id. Holds no medical text, no password, no token, no search term."""

    at: datetime
    user_id: UUID | None
    email: str | None
    role: str | None
    session_id: UUID | None
    action: Action
    outcome: Outcome
    patient_id: UUID | None
    target_id: UUID | None
    target_ids: Ids
    patient_ids: Ids
    address: str
    request_id: UUID
    content: str | None = None  # set when it is stored (persistence/closing.py)


class EventRow(NamedTuple):
    """What a later release writes as a role, an action or an outcome may be none of ours."""

    id: int
    at: datetime
    user_id: UUID | None
    email: str | None
    role: str | None
    session_id: UUID | None
    action: str
    outcome: str
    patient_id: UUID | None
    target_id: UUID | None
    target_ids: list[UUID]
    address: str
    request_id: UUID


class Stored(TypedDict):
    """`events`: as JSON."""

    events: str


class Listed(TypedDict):
    """`patient`: an array of the one chart that is asked for."""

    user: UUID | None
    patient: list[UUID] | None
    action: Action | None
    since: datetime | None
    until: datetime | None


# Any number of events as one value, so that one statement, prepared once, stores them.
EVENTS = (
    func.jsonb_to_recordset(cast(bindparam("events", type_=Text), JSONB))
    .table_valued(*(column(name, AuditEvent.__table__.c[name].type) for name in Event.__struct_fields__))
    .render_derived(name="event", with_types=True)
)


def insert_events(*conditions: ColumnElement[bool]) -> Insert:
    """The statement that stores EVENTS, if these hold."""
    return insert(AuditEvent).from_select(Event.__struct_fields__, select(EVENTS).where(*conditions))


STORE = Statement(Stored, insert_events())
ORDER = (AuditEvent.at.desc(), AuditEvent.id.desc())
SHOWS_CHART = AuditEvent.patient_ids.contains(bindparam("patient", type_=ARRAY(Uuid)))


async def add(source: Source, *events: Event) -> None:
    """Store events; with a Transaction they stand or fall with what it writes."""
    await source.run(STORE, Stored(events=as_json(events)))


def as_json(events: Sequence[Event]) -> str:
    """As STORE takes them."""
    return msgspec.json.encode(events).decode()


class Journal:
    """Stores events of reads. `write` returns once the event is durable; those that come while a commit is
    under way share the next one.

    No event is stored twice. Where the connection is lost before PostgreSQL answers, the rows may be there or
    not; nobody asks again, the callers get an error, and the trail may name an answer that was never sent.
    """

    def __init__(self, reader: Reader) -> None:
        """`reader`: of a pool that nothing else uses."""
        self.reader = reader
        self.waiting: list[tuple[Event, asyncio.Future[None]]] = []
        self.writer: asyncio.Task[None] | None = None

    async def write(self, event: Event) -> None:
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append((event, stored))
        if self.writer is None or self.writer.done():
            self.writer = asyncio.create_task(self.drain())
        await in_time(stored, REQUEST_SECONDS)

    async def drain(self) -> None:
        while self.waiting:
            batch, self.waiting = self.waiting, []
            start_clock()  # not that of the request which happened to be the first
            try:
                events = as_json([event for event, _ in batch])
                await self.reader.once(STORE, Stored(events=events), alive=True)
            except Exception as error:  # those who wait get it, and answer 503 or 500
                resolve(batch, error)
            else:
                resolve(batch, None)


def resolve(batch: Sequence[tuple[Event, asyncio.Future[None]]], error: Exception | None) -> None:
    for _, stored in batch:
        if stored.done():  # the request was cancelled
            continue
        if error is None:
            stored.set_result(None)
        else:
            stored.set_exception(error)


async def page(
    source: Source,
    page: int,
    limit: int,
    *,
    user_id: UUID | None,
    patient_id: UUID | None,
    action: Action | None,
    since: datetime | None,
    until: datetime | None,
) -> tuple[list[EventRow], int]:
    """Events, newest first; `since` is included, `until` is not."""
    parameters = Listed(
        user=user_id,
        patient=None if patient_id is None else [patient_id],
        action=action,
        since=since,
        until=until,
    )
    filters = frozenset(name for name, value in parameters.items() if value is not None)
    return await listing(filters).fetch(source, page, limit, parameters)


@lru_cache
def listing(filters: frozenset[str]) -> PagedQuery[Listed, EventRow]:
    conditions: dict[str, ColumnElement[bool]] = {
        "user": AuditEvent.user_id == bindparam("user"),
        "patient": SHOWS_CHART,
        "action": AuditEvent.action == bindparam("action"),
        "since": AuditEvent.at >= bindparam("since"),
        "until": AuditEvent.at < bindparam("until"),
    }
    where = [conditions[name] for name in sorted(filters)]
    total = None if where else number_of(AuditEvent)
    columns = columns_of(EventRow, AuditEvent)
    return PagedQuery(
        EventRow, Listed, AuditEvent.id, columns, AuditEvent.__table__, ORDER, where, total=total
    )
