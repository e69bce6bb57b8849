from collections.abc import Sequence
from datetime import date, datetime
from functools import lru_cache
from typing import NamedTuple, Required, TypedDict, Unpack
from uuid import UUID

from sqlalchemy import ColumnElement, Uuid, bindparam, func, insert, select, update
from sqlalchemy.dialects.postgresql import ARRAY

from persistence.history import ACCOUNT, Difference, differences, keep_chart_changes, text_of
from persistence.models import Gender, Patient
from persistence.postgres.counters import number_of
from persistence.postgres.database import Source, Transaction
from persistence.postgres.declared import columns_of
from persistence.postgres.folding import Keys, keys_of, search_words
from persistence.postgres.latin import latin_trigrams
from persistence.postgres.paging import Found, PagedQuery
from persistence.postgres.search import SearchQuery
from persistence.postgres.sorting import PatientSort, order_by
from persistence.postgres.statements import ById, Query, Statement
from persistence.relations import CALLERS_NAME, Seen, SeenById
from persistence.relations import charts_readable_by as readable_by
from persistence.survivors import charts_now, current_chart, lock_current_chart
from security.roles import Caller, Role


class Filters(NamedTuple):
    """What is asked for of the charts that the caller may see: those whose name, e-mail or phone contains
    every word of `search`. `ids`: of charts, or of some that were merged into them."""

    search: str = ""
    date_of_birth: date | None = None
    ids: Sequence[UUID] | None = None


class SummaryRow(NamedTuple):
    id: UUID
    name: str
    email: str
    phone: str
    date_of_birth: date
    gender: Gender
    address: str
    created_at: datetime


class PatientRow(NamedTuple):
    """`user_id`: of the linked account. `merge_count`: how often the chart was merged with another or parted
    from one."""

    id: UUID
    name: str
    email: str
    phone: str
    date_of_birth: date
    gender: Gender
    address: str
    blood_type: str | None
    allergies: str | None
    medical_history: str | None
    created_at: datetime
    user_id: UUID | None
    merge_count: int


class LockedChart(NamedTuple):
    """A chart that nobody else changes until the transaction ends. `by`: the name of who locked it."""

    by: str
    chart: PatientRow


class LinkRow(NamedTuple):
    """The account that is linked to a chart, and whether any ever was."""

    user_id: UUID | None
    ever_linked: bool


class NewPatient(TypedDict):
    id: UUID
    name: str
    email: str
    phone: str
    date_of_birth: date
    gender: Gender
    address: str
    blood_type: str | None
    allergies: str | None


class PatientChanges(TypedDict, total=False):
    name: str
    email: str
    phone: str
    date_of_birth: date
    gender: Gender
    address: str
    blood_type: str | None
    allergies: str | None
    medical_history: str | None


class ChartKeys(Keys):
    """And those by which duplicates of it are found."""

    latin_trigrams: list[int] | None


class Added(NewPatient, ChartKeys):
    pass


class Changed(PatientChanges, ChartKeys):
    chart: Required[UUID]


class Listed(Seen):
    date_of_birth: date | None
    ids: list[UUID]


class Linked(TypedDict):
    chart: UUID
    user_id: UUID | None


NO_FILTERS = Filters()
SUMMARY = columns_of(SummaryRow, Patient)
COLUMNS = columns_of(PatientRow, Patient)
BY_ID = Patient.id == bindparam("id")
LOCKED = Query(
    LockedChart,
    SeenById,
    select(CALLERS_NAME.label("by"), *COLUMNS).where(BY_ID).with_for_update(key_share=True),
)
ADD = Query(PatientRow, Added, insert(Patient).returning(*COLUMNS))
THE_CHART = update(Patient).where(Patient.id == bindparam("chart"))
CHANGE = Query(PatientRow, Changed, THE_CHART.returning(*COLUMNS))
LINK_TO = Statement(Linked, THE_CHART)
# What each filter demands of a row.
CONDITIONS: dict[str, ColumnElement[bool]] = {
    "date_of_birth": Patient.date_of_birth == bindparam("date_of_birth"),
    "ids": Patient.id == func.any(charts_now(bindparam("ids", type_=ARRAY(Uuid)))),
}
ORDERS = {"name": Patient.sort_name, "created_at": Patient.created_at}
LINK = Query(LinkRow, ById, select(*columns_of(LinkRow, Patient)).where(BY_ID))


@lru_cache
def single(role: Role) -> Query[SeenById, PatientRow]:
    return Query(PatientRow, SeenById, select(*COLUMNS).where(BY_ID, *readable_by(role)))


def narrowed(role: Role, given: frozenset[str]) -> list[ColumnElement[bool]]:
    return [*readable_by(role), *(CONDITIONS[name] for name in sorted(given))]


@lru_cache
def listing(role: Role, given: frozenset[str], sort: PatientSort) -> PagedQuery[Listed, SummaryRow]:
    """`given`: the keys of CONDITIONS that hold."""
    where = narrowed(role, given)
    return PagedQuery(
        SummaryRow,
        Listed,
        Patient.id,
        SUMMARY,
        Patient.__table__,
        order_by(sort, Patient.id, ORDERS),
        where,
        names=(Patient.id,),
        by_filter=bool(given),
        total=None if where else number_of(Patient),
        marked=not where and "created_at" not in sort,
        few="ids" in given,
    )


@lru_cache
def searching(role: Role, given: frozenset[str], sort: PatientSort) -> SearchQuery[Listed, SummaryRow]:
    order = order_by(sort, Patient.id, ORDERS)
    return SearchQuery(SummaryRow, Listed, Patient, SUMMARY, order, narrowed(role, given))


def chart_keys(name: str, email: str, phone: str) -> ChartKeys:
    return ChartKeys(**keys_of(name, email, phone), latin_trigrams=latin_trigrams(name))


async def one(source: Source, caller: Caller, patient_id: UUID) -> PatientRow | None:
    """The chart, or the one that it was merged into, if the caller may see it."""
    query = single(caller.role)
    row = await source.first(query, SeenById(id=patient_id, caller=caller.id))
    if row is None and (current := await current_chart(source, patient_id)):
        row = await source.first(query, SeenById(id=current, caller=caller.id))
    return row


async def page(
    source: Source,
    caller: Caller,
    page: int,
    limit: int,
    filters: Filters = NO_FILTERS,
    sort: PatientSort = PatientSort.NAME,
) -> Found[SummaryRow]:
    given = frozenset(name for name in CONDITIONS if getattr(filters, name) is not None)
    parameters = Listed(caller=caller.id, date_of_birth=filters.date_of_birth, ids=[*(filters.ids or ())])
    if words := search_words(filters.search):
        return await searching(caller.role, given, sort).find(source, page, limit, words, parameters)
    return await listing(caller.role, given, sort).find(source, page, limit, parameters)


async def locked(transaction: Transaction, caller: Caller, patient_id: UUID) -> LockedChart | None:
    """As `one`, for callers who may see every chart."""
    found = await transaction.first(LOCKED, SeenById(id=patient_id, caller=caller.id))
    if found is None and (current := await lock_current_chart(transaction, patient_id)):
        found = await transaction.first(LOCKED, SeenById(id=current, caller=caller.id))
    return found


async def add(transaction: Transaction, **values: Unpack[NewPatient]) -> PatientRow:
    """Concludes the transaction."""
    keys = chart_keys(values["name"], values["email"], values["phone"])
    [row] = await transaction.conclude(ADD, Added(**values, **keys))
    return row


async def change(
    transaction: Transaction, locked: LockedChart, **values: Unpack[PatientChanges]
) -> PatientRow:
    """Store `values` over a locked chart, and in its history, and conclude the transaction."""
    current = locked.chart
    if not values:
        return current
    changes = differences(current, values)
    keep_chart_changes(transaction, current.id, locked.by, changes)
    after = current._replace(**values)
    keys = chart_keys(after.name, after.email, after.phone)
    [row] = await transaction.conclude(CHANGE, Changed(chart=current.id, **values, **keys))
    return row


async def link_of(transaction: Transaction, patient_id: UUID) -> LinkRow:
    [row] = await transaction.rows(LINK, ById(id=patient_id))
    return row


async def link(
    transaction: Transaction, current: PatientRow, user_id: UUID | None, *, by: str | None
) -> None:
    """Link an account to a locked chart, or none; it is in the history too. `by`: the name of who does it."""
    await transaction.run(LINK_TO, Linked(chart=current.id, user_id=user_id))
    change = Difference(ACCOUNT, text_of(current.user_id), text_of(user_id))
    keep_chart_changes(transaction, current.id, by, [change])
