"""Lists: one page and the exact total in one statement."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, FromClause, bindparam, func, select
from sqlalchemy.orm import InstrumentedAttribute

from persistence.database import AnyRow, Source


class PagedQuery:
    """The keys of the page first, out of an index alone, then the columns of those few rows. So a deep page
    costs an index walk and not the rows that it skips."""

    def __init__(
        self,
        key: InstrumentedAttribute[Any],
        columns: Sequence[Any],
        source: FromClause,
        order: Sequence[Any],
        where: Sequence[ColumnElement[bool]] = (),
    ) -> None:
        keys = (
            select(key)
            .where(*where)
            .order_by(*order)
            .limit(bindparam("limit"))
            .offset(bindparam("offset"))
            .subquery("keys")
        )
        self.count = select(func.count()).select_from(key.class_).where(*where)
        self.page = (
            select(*columns, self.count.scalar_subquery().label("total"))
            .select_from(source.join(keys, keys.c.id == key))
            .order_by(*order)
        )

    async def fetch(
        self, source: Source, page: int, limit: int, **parameters: Any
    ) -> tuple[list[Sequence[Any]], int]:
        """The rows of page `page` (from 1), each in the order of `columns`, and the total of all pages."""
        rows: Sequence[AnyRow] = await source.rows(
            self.page, limit=limit, offset=(page - 1) * limit, **parameters
        )
        if rows:
            return [row[:-1] for row in rows], rows[0].total
        if page == 1:
            return [], 0
        [(total,)] = await source.rows(self.count, **parameters)
        return [], total
