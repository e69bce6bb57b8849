"""What a chart or an appointment said before: who changed which of its fields, and when."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple, TypedDict
from uuid import UUID

import msgspec
from sqlalchemy import Uuid, bindparam
from sqlalchemy.orm import InstrumentedAttribute

from persistence.audit import Event
from persistence.contents import Kept, SealedTable
from persistence.history_tables import AppointmentChange, PatientChange
from persistence.postgres.database import Source, Transaction
from persistence.postgres.declared import columns_of
from persistence.postgres.paging import PagedQuery
from security.roles import Caller, Role

ACCOUNT = "account"  # the field of a chart whose values are ids of the account that is linked to it


class Difference(NamedTuple):
    """`field`: its key in an answer."""

    field: str
    before: str | None
    after: str | None


class ChangeRow(NamedTuple):
    """What is shown of one."""

    at: datetime
    user_id: UUID | None
    name: str | None
    role: str | None
    field: str
    before: str | None
    after: str | None


class PatientChangeRow(NamedTuple):
    """What is sealed of one."""

    at: datetime
    user_id: UUID | None
    name: str | None
    role: str | None
    request_id: UUID
    field: str
    before: str | None
    after: str | None
    patient_id: UUID


class AppointmentChangeRow(NamedTuple):
    at: datetime
    user_id: UUID | None
    name: str | None
    role: str | None
    request_id: UUID
    field: str
    before: str | None
    after: str | None
    appointment_id: UUID


class Listed(TypedDict):
    """`of`: the chart or the appointment."""

    of: UUID


PATIENT_CHANGES = SealedTable(PatientChangeRow, PatientChange)
APPOINTMENT_CHANGES = SealedTable(AppointmentChangeRow, AppointmentChange)
# Staff read the text of today, and never one that was taken back.
HIDDEN_FROM = {Role.STAFF: ("medicalHistory",)}
AnyRow = Callable[..., tuple[object, ...]]


def text_of(value: object) -> str | None:
    """As an answer shows it, whose values are texts or null."""
    return None if value is None else str(msgspec.to_builtins(value))


def key_of(name: str) -> str:
    """Of a column, in an answer."""
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def differences(current: tuple[object, ...], values: Mapping[str, object]) -> list[Difference]:
    """Between a row, whose fields an answer shows, and `values`, which may have others besides."""
    return [
        Difference(key_of(name), text_of(getattr(current, name)), text_of(value))
        for name, value in values.items()
        if hasattr(current, name)
    ]


def keep_chart_changes(
    transaction: Transaction, chart_id: UUID, by: str | None, changes: Iterable[Difference]
) -> None:
    """Have them stored with the event that is noted in the transaction, as what its person did. `by`: their
    name."""
    transaction.keep(Kept(PATIENT_CHANGES, rows_of(PatientChangeRow, chart_id, by, changes)))


def keep_appointment_changes(
    transaction: Transaction,
    appointment_id: UUID,
    by: str | None,
    changes: Iterable[Difference],
    event: Event | None = None,
) -> None:
    """`event`: that of the appointment, where the transaction notes several."""
    rows = rows_of(AppointmentChangeRow, appointment_id, by, changes)
    transaction.keep(Kept(APPOINTMENT_CHANGES, rows, event=event))


def rows_of(
    row: AnyRow, object_id: UUID, by: str | None, changes: Iterable[Difference]
) -> Callable[[Event], Sequence[tuple[object, ...]]]:
    def make(event: Event) -> Sequence[tuple[object, ...]]:
        person = event.at, event.user_id, by, event.role, event.request_id
        return [row(*person, *change, object_id) for change in changes]

    return make


@lru_cache
def listing(of: InstrumentedAttribute[UUID], hidden: tuple[str, ...] = ()) -> PagedQuery[Listed, ChangeRow]:
    """Newest first: a row's id is given under the lock of what it tells of, as clocks are not."""
    model = of.class_
    where = [of == bindparam("of", type_=Uuid), *(model.field != name for name in hidden)]
    columns = columns_of(ChangeRow, model)
    return PagedQuery(ChangeRow, Listed, model.id, columns, model.__table__, (model.id.desc(),), where)


async def of_chart(
    source: Source, caller: Caller, page: int, limit: int, chart_id: UUID
) -> tuple[list[ChangeRow], int]:
    """For callers who may read the chart."""
    query = listing(PatientChange.patient_id, HIDDEN_FROM.get(caller.role, ()))
    return await query.fetch(source, page, limit, Listed(of=chart_id))


async def of_appointment(
    source: Source, page: int, limit: int, appointment_id: UUID
) -> tuple[list[ChangeRow], int]:
    """For callers who may read the appointment."""
    query = listing(AppointmentChange.appointment_id)
    return await query.fetch(source, page, limit, Listed(of=appointment_id))
