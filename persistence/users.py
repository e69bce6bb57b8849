from datetime import datetime
from functools import lru_cache
from typing import NamedTuple, Required, TypedDict, Unpack
from unicodedata import normalize
from uuid import UUID

from sqlalchemy import ColumnElement, Text, Uuid, and_, bindparam, func, insert, not_, or_, select, update
from sqlalchemy.dialects.postgresql import ARRAY

from persistence.models import AccountStatus, User
from persistence.postgres.counters import number_of
from persistence.postgres.database import Source, Transaction
from persistence.postgres.declared import columns_of
from persistence.postgres.folding import Keys, keys_of, search_words, trim_email
from persistence.postgres.paging import Found, PagedQuery
from persistence.postgres.search import SearchQuery
from persistence.postgres.statements import ById, IdRow, Query
from persistence.relations import HAS_CHART
from security.roles import Caller, Role


class UserRow(NamedTuple):
    id: UUID
    email: str
    name: str
    role: Role
    phone: str | None
    specialization: str | None
    department: str | None
    created_at: datetime
    status: AccountStatus


class HolderRow(NamedTuple):
    """An account, as far as it signs in."""

    id: UUID
    email: str
    name: str
    role: Role
    status: AccountStatus


class CredentialsRow(NamedTuple):
    id: UUID
    email: str
    role: Role
    password_hash: str


class PasswordRow(NamedTuple):
    password_hash: str


class OptionalOfNewUser(TypedDict, total=False):
    id: UUID
    specialization: str | None
    department: str | None


class NewUser(OptionalOfNewUser):
    email: str
    name: str
    role: Role
    status: AccountStatus
    phone: str | None
    password_hash: str


class UserChanges(TypedDict, total=False):
    email: str
    name: str
    role: Role
    phone: str | None
    specialization: str | None
    department: str | None
    status: AccountStatus


class ByEmail(TypedDict):
    email: str


class ByIds(TypedDict):
    ids: list[UUID]


class WithPassword(ById):
    hashed: str


class Added(NewUser, Keys):
    pass


class Changed(UserChanges, Keys):
    account: Required[UUID]


class NewPassword(TypedDict):
    account: UUID
    password_hash: str


class Listed(TypedDict):
    """`kinds`: what the counters call the accounts that are asked for."""

    role: Role | None
    status: AccountStatus | None
    kinds: list[str]


COLUMNS = columns_of(UserRow, User)
BY_ID = User.id == bindparam("id")
THE_USER = update(User).where(User.id == bindparam("account"))
ONE = Query(UserRow, ById, select(*COLUMNS).where(BY_ID))
# FOR NO KEY UPDATE: an insert that refers to the row does not wait for it. A booking does, because it locks
# its doctor's row FOR SHARE: a doctor cannot be disabled while they are being booked.
LOCKED = Query(UserRow, ById, select(*COLUMNS).where(BY_ID).with_for_update(key_share=True))
CREDENTIALS = Query(
    CredentialsRow,
    ByEmail,
    select(*columns_of(CredentialsRow, User)).where(User.email == bindparam("email")),
)
PASSWORD = Query(PasswordRow, ById, select(User.password_hash).where(BY_ID))
LOCK_WITH_PASSWORD = Query(
    HolderRow,
    WithPassword,
    select(*columns_of(HolderRow, User))
    .where(BY_ID, User.password_hash == bindparam("hashed"))
    .with_for_update(key_share=True),
)
HAS_ID = User.id == func.any(bindparam("ids", type_=ARRAY(Uuid)))
AMONG = select(User.id).where(HAS_ID)
# Several accounts are always locked in the order of their ids, so that two transactions cannot deadlock.
ACTIVE_ADMINS = Query(
    HolderRow,
    ByIds,
    select(*columns_of(HolderRow, User))
    .where(or_(and_(User.role == Role.ADMIN, User.status == AccountStatus.ACTIVE), HAS_ID))
    .order_by(User.id)
    .with_for_update(key_share=True),
)
TOGETHER = Query(IdRow, ByIds, AMONG.order_by(User.id).with_for_update(key_share=True))
ADD = Query(UserRow, Added, insert(User).returning(*COLUMNS))
CHANGE = Query(UserRow, Changed, THE_USER.returning(*COLUMNS))
SET_PASSWORD = Query(UserRow, NewPassword, THE_USER.values(updated_at=func.now()).returning(*COLUMNS))
KINDS = bindparam("kinds", type_=ARRAY(Text))
ORDER = (User.sort_name, User.id)


def normal_email(email: str) -> str:
    """Account e-mails are compared and stored trimmed, NFC and lower-cased: one account, one counter."""
    return normalize("NFC", normalize("NFC", trim_email(email)).lower())


async def one(source: Source, user_id: UUID) -> UserRow | None:
    return await source.first(ONE, ById(id=user_id))


async def readable(source: Source, caller: Caller, user_id: UUID) -> UserRow | None:
    """The account, if the caller may see it, who may list accounts."""
    return await source.first(readable_one(caller.role), ById(id=user_id))


async def locked(transaction: Transaction, user_id: UUID) -> UserRow | None:
    """The account, which nobody else changes until the transaction ends."""
    return await transaction.first(LOCKED, ById(id=user_id))


async def lock(transaction: Transaction, *user_ids: UUID) -> None:
    """Let nobody else change these accounts until the transaction ends."""
    await transaction.run(TOGETHER, ByIds(ids=list(user_ids)))


async def credentials(source: Source, email: str) -> CredentialsRow | None:
    """Of the account with this normal e-mail."""
    return await source.first(CREDENTIALS, ByEmail(email=email))


async def password_hash(source: Source, user_id: UUID) -> str:
    [row] = await source.rows(PASSWORD, ById(id=user_id))
    return row.password_hash


async def lock_if_password_unchanged(
    transaction: Transaction, user_id: UUID, hashed: str
) -> HolderRow | None:
    """The account as it is now, if `hashed`, against which a password was checked, is still its own; nobody
    changes it until the transaction ends."""
    return await transaction.first(LOCK_WITH_PASSWORD, WithPassword(id=user_id, hashed=hashed))


async def add(transaction: Transaction, **values: Unpack[NewUser]) -> UserRow:
    keys = keys_of(values["name"], values["email"], values["phone"])
    [row] = await transaction.rows(ADD, Added(**values, **keys))
    return row


async def change(transaction: Transaction, current: UserRow, **values: Unpack[UserChanges]) -> UserRow:
    """Store `values` over `current`, a locked row."""
    if not values:
        return current
    after = current._replace(**values)
    keys = keys_of(after.name, after.email, after.phone)
    [row] = await transaction.rows(CHANGE, Changed(account=current.id, **values, **keys))
    return row


async def is_last_active_admin(transaction: Transaction, user_id: UUID, *others: UUID) -> bool:
    """Locks the account, the `others` and every active administrator, so that two of them cannot demote each
    other at once."""
    rows = await transaction.rows(ACTIVE_ADMINS, ByIds(ids=[user_id, *others]))
    active = [row.id for row in rows if (row.role, row.status) == (Role.ADMIN, AccountStatus.ACTIVE)]
    return active == [user_id]


def readable_by(role: Role) -> tuple[ColumnElement[bool], ...]:
    """Administrators see every account, staff those of patients; nobody else lists them."""
    return () if role is Role.ADMIN else (User.role == Role.PATIENT,)


@lru_cache
def readable_one(role: Role) -> Query[ById, UserRow]:
    return Query(UserRow, ById, select(*COLUMNS).where(BY_ID, *readable_by(role)))


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
) -> Found[UserRow]:
    """Accounts by name, then id. `linked`: whether a chart is linked to the account."""
    given = {"role": role, "status": status}
    filters = frozenset(name for name, value in given.items() if value is not None)
    parameters = Listed(role=role, status=status, kinds=kinds_of(caller.role, role, status))
    words = search_words(search)
    if words:
        return await searching(caller.role, filters, linked).find(source, page, limit, words, parameters)
    return await listing(caller.role, filters, linked).find(source, page, limit, parameters)


def filters_for(caller: Role, filters: frozenset[str], linked: bool | None) -> list[ColumnElement[bool]]:
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
def listing(caller: Role, filters: frozenset[str], linked: bool | None) -> PagedQuery[Listed, UserRow]:
    where = filters_for(caller, filters, linked)
    return PagedQuery(
        UserRow,
        Listed,
        User.id,
        COLUMNS,
        User.__table__,
        ORDER,
        where,
        names=(User.id,),
        by_filter=bool(filters) or linked is not None,
        total=number_of(User, KINDS) if linked is None else None,
        marked=not where,
    )


@lru_cache
def searching(caller: Role, filters: frozenset[str], linked: bool | None) -> SearchQuery[Listed, UserRow]:
    return SearchQuery(UserRow, Listed, User, COLUMNS, ORDER, filters_for(caller, filters, linked))


async def set_password(transaction: Transaction, user_id: UUID, hashed: str) -> str:
    """Returns the e-mail that the account has now."""
    [row] = await transaction.rows(SET_PASSWORD, NewPassword(account=user_id, password_hash=hashed))
    return row.email
