"""Doctors are the active accounts with that role; a doctor's id is that of the account."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, select

from persistence.models import User
from persistence.postgres.counters import number_of
from persistence.postgres.database import Source
from persistence.postgres.paging import PagedQuery
from persistence.postgres.statements import AnyRow
from persistence.relations import ACTIVE_DOCTOR, assigned_patients

SUMMARY = (User.id, User.name, User.email, User.specialization, User.phone)
LISTING = PagedQuery(
    User.id,
    SUMMARY,
    User.__table__,
    (User.sort_name, User.id),
    ACTIVE_DOCTOR,
    total=number_of(User, "doctor active"),
)
ONE = select(*SUMMARY, assigned_patients(bindparam("id"))).where(User.id == bindparam("id"), *ACTIVE_DOCTOR)


async def page(source: Source, page: int, limit: int) -> tuple[list[Sequence[Any]], int]:
    return await LISTING.fetch(source, page, limit)


async def one(source: Source, doctor_id: UUID) -> AnyRow | None:
    return next(iter(await source.rows(ONE, id=doctor_id)), None)
