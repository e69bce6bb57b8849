"""Doctors are the active accounts with that role; a doctor's id is that of the account."""

from typing import NamedTuple
from uuid import UUID

from sqlalchemy import bindparam, select

from persistence.models import User
from persistence.postgres.counters import number_of
from persistence.postgres.database import Source
from persistence.postgres.declared import columns_of
from persistence.postgres.paging import PagedQuery
from persistence.postgres.statements import NOTHING, ById, Nothing, Query
from persistence.relations import ACTIVE_DOCTOR, assigned_patients


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


COLUMNS = columns_of(DoctorRow, User, assigned_patients=assigned_patients(bindparam("id")))
ONE = Query(DoctorRow, ById, select(*COLUMNS).where(User.id == bindparam("id"), *ACTIVE_DOCTOR))
LISTING = PagedQuery(
    SummaryRow,
    Nothing,
    User.id,
    columns_of(SummaryRow, User),
    User.__table__,
    (User.sort_name, User.id),
    ACTIVE_DOCTOR,
    total=number_of(User, "doctor active"),
)


async def page(source: Source, page: int, limit: int) -> tuple[list[SummaryRow], int]:
    return await LISTING.fetch(source, page, limit, NOTHING)


async def one(source: Source, doctor_id: UUID) -> DoctorRow | None:
    return await source.first(ONE, ById(id=doctor_id))
