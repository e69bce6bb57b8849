from functools import lru_cache
from typing import Any
from unicodedata import normalize
from uuid import UUID

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Text,
    Uuid,
    and_,
    bindparam,
    func,
    insert,
    not_,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from persistence.models import AccountStatus, User
from persistence.postgres.counters import number_of
from persistence.postgres.database import Source, Transaction
from persistence.postgres.paging import Found, PagedQuery
from persistence.postgres.searching import SearchQuery
from persistence.postgres.statements import AnyRow
from persistence.postgres.text import keys_of, trimmed, words_of
from persistence.relations import HAS_CHART
from security.roles import Caller, Role

COLUMNS = (
    User.id,
    User.email,
    User.name,
    User.role,
    User.phone,
    User.specialization,
    User.department,
    User.created_at,
    User.status,
)
ONE = select(*COLUMNS).where(User.id == bindparam("id"))
# No KEY UPDATE: an insert that refers to the row (FOR KEY SHARE) need not wait for us. A booking does: it
# holds its doctor's row (FOR SHARE), so that nobody leaves while they are booked.
LOCKED = ONE.with_for_update(key_share=True)
CREDENTIALS = select(User.id, User.email, User.name, User.role, User.status, User.password_hash).where(
    User.email == bindparam("email")
)
PASSWORD = select(User.password_hash).where(User.id == bindparam("id"))
KEEPING = (
    select(User.id, User.email, User.name, User.role, User.status)
    .where(User.id == bindparam("id"), User.password_hash == bindparam("hashed"))
    .with_for_update(key_share=True)
)
# Several accounts are always locked in the order of their ids, so that nobody waits for each other.
ACTIVE_ADMINS = (
    select(User.id, User.role, User.status)
    .where(
        or_(
            and_(User.role == Role.ADMIN, User.status == AccountStatus.ACTIVE),
            User.id == bindparam("id"),
        )
    )
    .order_by(User.id)
    .with_for_update(key_share=True)
)
TOGETHER = (
    select(User.id)
    .where(User.id == func.any(bindparam("ids", type_=ARRAY(Uuid))))
    .order_by(User.id)
    .with_for_update(key_share=True)
)
ADD = insert(User).returning(*COLUMNS)
CHANGE = update(User).where(User.id == bindparam("account")).returning(*COLUMNS)
SET_PASSWORD = update(User).where(User.id == bindparam("account")).values(updated_at=func.now())

KINDS: BindParameter[Any] = bindparam("kinds", type_=ARRAY(Text))


def normal_email(email: str) -> str:
    """Account e-mails are compared and stored trimmed, NFC and lower-cased: one account, one counter."""
    return normalize("NFC", normalize("NFC", trimmed(email)).lower())


async def one(source: Source, user_id: UUID) -> AnyRow | None:
    return next(iter(await source.rows(ONE, id=user_id)), None)


async def locked(transaction: Transaction, user_id: UUID) -> AnyRow | None:
    """The account, which nobody else changes until the transaction ends."""
    return next(iter(await transaction.rows(LOCKED, id=user_id)), None)


async def lock(transaction: Transaction, *user_ids: UUID) -> None:
    """Let nobody else change these accounts until the transaction ends."""
    await transaction.rows(TOGETHER, ids=list(user_ids))


async def credentials(source: Source, email: str) -> AnyRow | None:
    """(id, email, name, role, status, password_hash) of the account with this normal e-mail."""
    return next(iter(await source.rows(CREDENTIALS, email=email)), None)


async def password_hash(source: Source, user_id: UUID) -> str:
    [(hashed,)] = await source.rows(PASSWORD, id=user_id)
    return str(hashed)


async def keeping_password(transaction: Transaction, user_id: UUID, hashed: str) -> AnyRow | None:
    """(id, email, name, role, status) of the account as it is now, if `hashed`, against which a password
    was checked, is still its own; nobody changes it until the transaction ends."""
    return next(iter(await transaction.rows(KEEPING, id=user_id, hashed=hashed)), None)


async def add(transaction: Transaction, **values: Any) -> AnyRow:
    [row] = await transaction.rows(ADD, **values, **keys_of(values))
    return row


async def change(transaction: Transaction, current: AnyRow, **values: Any) -> AnyRow:
    """Store `values` over `current`, a locked row."""
    if not values:
        return current
    keys = keys_of({**current._asdict(), **values})
    [row] = await transaction.rows(CHANGE, account=current.id, **values, **keys)
    return row


async def is_last_active_admin(transaction: Transaction, user_id: UUID) -> bool:
    """Locks the account and every active administrator, so that two of them cannot demote each other at
    once."""
    rows = await transaction.rows(ACTIVE_ADMINS, id=user_id)
    active = [row.id for row in rows if (row.role, row.status) == (Role.ADMIN, AccountStatus.ACTIVE)]
    return active == [user_id]


def readable_by(role: Role) -> tuple[ColumnElement[bool], ...]:
    """Administrators see every account, staff those of patients; nobody else lists them."""
    return () if role is Role.ADMIN else (User.role == Role.PATIENT,)


async def page(
    source: Source,
    caller: Caller,
    page: int,
    limit: int,
    *,
    role: Role | None,
    status: AccountStatus | None,
    linked: bool | None,
    search: str,
) -> Found:
    """Accounts by name, then id. `linked`: whether a chart is linked to the account."""
    parameters: dict[str, Any] = {}
    if role is not None:
        parameters["role"] = role
    if status is not None:
        parameters["status"] = status
    filters = frozenset(parameters)
    parameters["kinds"] = kinds_of(caller.role, role, status)
    words = words_of(search)
    if words:
        return await searching(caller.role, filters, linked).find(source, page, limit, words, **parameters)
    return await listing(caller.role, filters, linked).find(source, page, limit, **parameters)


def chosen(caller: Role, filters: frozenset[str], linked: bool | None) -> list[ColumnElement[bool]]:
    where = list(readable_by(caller))
    if "role" in filters:
        where.append(User.role == bindparam("role", type_=User.role.type))
    if "status" in filters:
        where.append(User.status == bindparam("status", type_=User.status.type))
    if linked is not None:
        where.append(HAS_CHART if linked else not_(HAS_CHART))
    return where


def kinds_of(caller: Role, role: Role | None, status: AccountStatus | None) -> list[str]:
    """What the counters call the accounts that are asked for, of those that the caller may see."""
    roles = Role if caller is Role.ADMIN else (Role.PATIENT,)
    return [
        f"{one} {state}"
        for one in roles
        for state in AccountStatus
        if role in (None, one) and status in (None, state)
    ]


@lru_cache
def listing(caller: Role, filters: frozenset[str], linked: bool | None) -> PagedQuery:
    where = chosen(caller, filters, linked)
    order = (User.sort_name, User.id)
    return PagedQuery(
        User.id,
        COLUMNS,
        User.__table__,
        order,
        where,
        names=(User.id,),
        by_filter=bool(filters) or linked is not None,
        total=number_of(User, KINDS) if linked is None else None,
        marked=not where,
    )


@lru_cache
def searching(caller: Role, filters: frozenset[str], linked: bool | None) -> SearchQuery:
    return SearchQuery(User, COLUMNS, chosen(caller, filters, linked))


async def set_password(transaction: Transaction, user_id: UUID, hashed: str) -> None:
    await transaction.run(SET_PASSWORD, account=user_id, password_hash=hashed)
