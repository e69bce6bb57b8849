"""Accounts as they are shown again to those who have registered them."""

from functools import lru_cache
from uuid import UUID

from sqlalchemy import ColumnElement, and_, or_, select, true

from persistence.models import User
from persistence.postgres.database import Source
from persistence.postgres.statements import ById, Query
from persistence.users import BY_ID, COLUMNS, UserRow, readable_by
from security.roles import Role

# Nobody has changed it since: it says what they have sent themselves.
IS_UNCHANGED = User.updated_at == User.created_at
LISTING_ROLES = {Role.ADMIN, Role.STAFF}


def shown_to(role: Role) -> ColumnElement[bool]:
    """Who lists accounts sees again what is in their list; and anybody what they have registered, as long as
    nobody has changed it."""
    listed = and_(true(), *readable_by(role))
    return or_(listed, IS_UNCHANGED) if role in LISTING_ROLES else IS_UNCHANGED


@lru_cache
def single(role: Role) -> Query[ById, UserRow]:
    return Query(UserRow, ById, select(*COLUMNS).where(BY_ID, shown_to(role)))


async def one(source: Source, role: Role, account_id: UUID) -> UserRow | None:
    """An account that somebody of this role has registered; None where they may no longer see it."""
    return await source.first(single(role), ById(id=account_id))
