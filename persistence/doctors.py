"""Doctors are the active accounts with that role; a doctor's id is that of the account."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, TypedDict
from uuid import UUID

from sqlalchemy import ColumnElement, Uuid, bindparam, func, select
from sqlalchemy.dialects.postgresql import ARRAY

from persistence.models import User
from persistence.postgres.counters import number_of
from persistence.postgres.database import Source
from persistence.postgres.declared import AnyColumn, columns_of
from persistence.postgres.folding import search_words
from persistence.postgres.paging import Found, PagedQuery
from persistence.postgres.search import SearchQuery
from persistence.postgres.sorting import DoctorSort, order_by
from persistence.postgres.statements import ById, Query
from persistence.relations import ACTIVE_DOCTOR, OF_SPECIALIZATION, assigned_patients


class Filters(NamedTuple):
    """Which doctors are asked for: those whose name, e-mail or phone contains every word of `search`, and
    with this specialization, whatever its case."""

    search: str = ""
    specialization: str | None = None
    ids: Sequence[UUID] | None = None


class SummaryRow(NamedTuple):
    id: UUID
    name: str
    email: str
    specialization: str | None
    phone: str | None


class DoctorRow(NamedTuple):
    id: UUID
    name: str
    email: str
    specialization: str | None
    phone: str | None
    assigned_patients: int


class Listed(TypedDict):
    """What narrows the list."""

    specialization: str | None
    ids: list[UUID]


COLUMNS = columns_of(DoctorRow, User, assigned_patients=assigned_patients(bindparam("id")))
ONE = Query(DoctorRow, ById, select(*COLUMNS).where(User.id == bindparam("id"), *ACTIVE_DOCTOR))
# What each filter demands of a row.
CONDITIONS: dict[str, ColumnElement[bool]] = {
    "specialization": OF_SPECIALIZATION,
    "ids": User.id == func.any(bindparam("ids", type_=ARRAY(Uuid))),
}
NO_FILTERS = Filters()
SUMMARY = columns_of(SummaryRow, User)


def narrowed(given: frozenset[str]) -> list[ColumnElement[bool]]:
    return [*ACTIVE_DOCTOR, *(CONDITIONS[name] for name in sorted(given))]


def ordered(sort: DoctorSort) -> tuple[AnyColumn, AnyColumn]:
    return order_by(sort, User.id, {"name": User.sort_name})


@lru_cache
def listing(given: frozenset[str], sort: DoctorSort) -> PagedQuery[Listed, SummaryRow]:
    """`given`: the keys of CONDITIONS that hold."""
    total = None if given else number_of(User, "doctor active")
    return PagedQuery(
        SummaryRow, Listed, User.id, SUMMARY, User.__table__, ordered(sort), narrowed(given), total=total
    )


@lru_cache
def searching(given: frozenset[str], sort: DoctorSort) -> SearchQuery[Listed, SummaryRow]:
    return SearchQuery(SummaryRow, Listed, User, SUMMARY, ordered(sort), narrowed(given))


async def page(
    source: Source,
    page: int,
    limit: int,
    filters: Filters = NO_FILTERS,
    sort: DoctorSort = DoctorSort.NAME,
) -> Found[SummaryRow]:
    given = frozenset(name for name in CONDITIONS if getattr(filters, name) is not None)
    parameters = Listed(specialization=filters.specialization, ids=[*(filters.ids or ())])
    if words := search_words(filters.search):
        return await searching(given, sort).find(source, page, limit, words, parameters)
    return await listing(given, sort).find(source, page, limit, parameters)


async def one(source: Source, doctor_id: UUID) -> DoctorRow | None:
    return await source.first(ONE, ById(id=doctor_id))
