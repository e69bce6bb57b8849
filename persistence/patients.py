from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, insert, select, update

from persistence.models import Patient
from persistence.postgres.counters import number_of
from persistence.postgres.database import Source, Transaction
from persistence.postgres.paging import Found, PagedQuery
from persistence.postgres.searching import SearchQuery
from persistence.postgres.statements import AnyRow
from persistence.postgres.text import keys_of, words_of
from persistence.relations import charts_readable_by as readable_by
from security.roles import Caller, Role

SUMMARY = (
    Patient.id,
    Patient.name,
    Patient.email,
    Patient.phone,
    Patient.date_of_birth,
    Patient.gender,
    Patient.address,
    Patient.created_at,
)
COLUMNS = (
    *SUMMARY[:-1],
    Patient.blood_type,
    Patient.allergies,
    Patient.medical_history,
    Patient.created_at,
)
LOCKED = select(*COLUMNS).where(Patient.id == bindparam("id")).with_for_update(key_share=True)
ADD = insert(Patient).returning(*COLUMNS)
CHANGE = update(Patient).where(Patient.id == bindparam("chart")).returning(*COLUMNS)
LINK_TO = update(Patient).where(Patient.id == bindparam("chart"))
LINK = select(Patient.user_id, Patient.ever_linked).where(Patient.id == bindparam("id"))


def of(caller: Caller) -> dict[str, Any]:
    return {"caller": caller.id} if readable_by(caller.role) else {}


@lru_cache
def single(role: Role) -> Any:
    return select(*COLUMNS).where(Patient.id == bindparam("id"), *readable_by(role))


@lru_cache
def listing(role: Role) -> PagedQuery:
    where = readable_by(role)
    return PagedQuery(
        Patient.id,
        SUMMARY,
        Patient.__table__,
        (Patient.sort_name, Patient.id),
        where,
        names=(Patient.id,),
        total=None if where else number_of(Patient),
        marked=not where,
    )


@lru_cache
def searching(role: Role) -> SearchQuery:
    return SearchQuery(Patient, SUMMARY, readable_by(role))


async def one(source: Source, caller: Caller, patient_id: UUID) -> AnyRow | None:
    rows = await source.rows(single(caller.role), id=patient_id, **of(caller))
    return next(iter(rows), None)


async def page(source: Source, caller: Caller, page: int, limit: int, search: str) -> Found:
    """Charts by name, then id, whose name, e-mail or phone contains every word of `search`."""
    words = words_of(search)
    if words:
        return await searching(caller.role).find(source, page, limit, words, **of(caller))
    return await listing(caller.role).find(source, page, limit, **of(caller))


async def locked(transaction: Transaction, patient_id: UUID) -> AnyRow | None:
    """The chart, which nobody else changes until the transaction ends. For callers who may see them all."""
    rows = await transaction.rows(LOCKED, id=patient_id)
    return next(iter(rows), None)


async def add(transaction: Transaction, **values: Any) -> AnyRow:
    """Concludes the transaction."""
    [row] = await transaction.conclude(ADD, **values, **keys_of(values))
    return row


async def change(transaction: Transaction, current: AnyRow, **values: Any) -> AnyRow:
    """Store `values` over `current`, a locked row, and conclude the transaction."""
    if not values:
        return current
    keys = keys_of({**current._asdict(), **values})
    [row] = await transaction.conclude(CHANGE, chart=current.id, **values, **keys)
    return row


async def linked_account(source: Source, patient_id: UUID) -> UUID | None:
    """The id of the account linked to the chart, None where there is none (or no such chart)."""
    rows = await source.rows(LINK, id=patient_id)
    return next((row.user_id for row in rows), None)


async def link_of(transaction: Transaction, patient_id: UUID) -> AnyRow:
    """(user_id, ever_linked): the account that is linked to the chart, and whether any ever was."""
    [row] = await transaction.rows(LINK, id=patient_id)
    return row


async def link(transaction: Transaction, patient_id: UUID, user_id: UUID | None) -> None:
    await transaction.run(LINK_TO, chart=patient_id, user_id=user_id)
