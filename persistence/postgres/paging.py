"""Lists: one page and the exact total in one statement."""

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Generic, NamedTuple, TypedDict
from uuid import UUID

from msgspec import Raw
from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    FromClause,
    bindparam,
    case,
    distinct,
    func,
    literal,
    select,
    true,
    tuple_,
    union_all,
)
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.expression import UnaryExpression

from persistence.postgres.counters import mark_before_offset
from persistence.postgres.database import Source
from persistence.postgres.declared import AnyColumn, AnySelect, require_row
from persistence.postgres.statements import R, Record, Rows, Statement, T

MAX_NAMED_IDS = 100  # in one event of the audit trail
MAX_NEAR_OFFSET = 1000  # to skip more rows than this, it is worth looking for a mark

AnyAttribute = InstrumentedAttribute[Any]  # a column of a model, of whatever type
Ids = Sequence[UUID] | Raw  # or as the JSON that the trail keeps of them
AnyPart = Statement[Any]  # takes what the list takes, and mostly a Window


class Found(NamedTuple, Generic[R]):
    """A page of a list that leaves a trace. `named`: whom the audit trail names, by each of the query's
    `names`."""

    rows: list[R]
    total: int
    named: Sequence[Ids]


class Window(TypedDict):
    """Which rows of a list are its page."""

    limit: int
    offset: int


class Matches(NamedTuple):
    """The rows of a list, and their order. `parts`: conditions of which each row meets one, where an index
    has each part of the list in this order; then PostgreSQL merges them."""

    where: Sequence[ColumnElement[bool]]
    order: Sequence[AnyColumn]
    parts: Sequence[ColumnElement[bool]]

    def read(self, columns: Sequence[AnyColumn], limit: AnyColumn, offset: AnyColumn = None) -> AnySelect:
        """These columns of some rows. Of each part, no more are read than could be wanted."""
        if not self.parts:
            rows = select(*columns).where(*self.where).order_by(*self.order)
            return rows.limit(limit).offset(offset)
        by = [column_of(one) for one in self.order]
        others = [one for one in by if one.key not in {column.key for column in columns}]
        each = select(*columns, *others).where(*self.where).order_by(*self.order)
        each = each.limit(limit if offset is None else limit + offset)
        whole = union_all(*(each.where(part) for part in self.parts)).subquery("whole")
        shown = select(*(whole.c[one.key] for one in columns))
        places = the_same_way(self.order, [whole.c[one.key] for one in by])
        return shown.order_by(*places).limit(limit).offset(offset)

    def backwards(self) -> "Matches":
        back = [by.element if is_descending(by) else by.desc() for by in self.order]
        return self._replace(order=back)

    def count(self, key: AnyAttribute) -> AnyColumn:
        rows = select(key).where(*self.where)
        if self.parts:
            whole = union_all(*(rows.where(part) for part in self.parts)).subquery("whole")
            return select(func.count()).select_from(whole).scalar_subquery()
        return select(func.count()).select_from(key.class_).where(*self.where).scalar_subquery()


class PagedQuery(Generic[T, R]):
    """The keys of the page first, out of an index alone, then the columns of those few rows. So a deep page
    costs an index walk and not the rows that it skips.

    `total`: how many rows there are, where a counter knows (persistence/postgres/counters.py); then a deep
    page is read from the nearer end. `marked`: the database keeps marks of the list, which is the whole
    table; then a page is read from the mark before it.

    `names`: by which columns, which are among `columns`, the audit trail names a row. `by_filter`: the caller
    searches or filters, so that the total, and a page past the end, tell of rows which are not shown. `few`:
    there are few rows, whatever is asked for, so that one plan of PostgreSQL's does for all. `parts`: of
    Matches.
    """

    def __init__(
        self,
        row: type[R],
        takes: type[T],
        key: AnyAttribute,
        columns: Sequence[AnyColumn],
        source: FromClause,
        order: Sequence[AnyColumn],
        where: Sequence[ColumnElement[bool]] = (),
        *,
        names: Sequence[AnyAttribute] = (),
        by_filter: bool = False,
        total: AnyColumn = None,
        marked: bool = False,
        few: bool = False,
        parts: Sequence[ColumnElement[bool]] = (),
    ) -> None:
        require_row(row, select(*columns))
        self.rows_of = Rows(row, columns)
        self.takes, self.key, self.columns, self.source, self.order = takes, key, columns, source, order
        self.names, self.names_matches = [column.key for column in names], by_filter
        binds: list[AnyColumn] = [bindparam(name, type_=BigInteger) for name in ("limit", "offset")]
        limit, offset = (select(bind).scalar_subquery() for bind in binds) if few else binds
        matches = Matches(where, order, parts)
        keys = matches.read((key,), limit, offset)
        deep_keys: AnySelect = keys
        if marked:
            deep_keys = from_mark(key, order)
        elif total is not None:
            deep_keys = from_nearer_end(key, matches, total)
        total = (matches.count(key) if total is None else total).label("total")
        lists = texts = None
        if by_filter:
            first = matches.read(names, literal(MAX_NAMED_IDS)).cte("first")
            lists, texts = ids_of(first), ids_as_json_of(first)
        beyond = select(total) if lists is None else select(total, *lists.c).select_from(lists)
        self.beyond: AnyPart = Statement(takes, beyond)
        self.page = self.page_of(keys, total, lists)
        self.first_page = self.page_of(keys, total, texts) if by_filter else self.page
        self.deep_page = self.page_of(deep_keys, total, lists)

    def page_of(self, keys: AnySelect, total: AnyColumn, named: FromClause | None) -> AnyPart:
        shown = keys.subquery("keys")
        rows: FromClause = self.source.join(shown, shown.c.id == self.key)
        facts = [total]
        if named is not None:
            # With every row, PostgreSQL would send a thousand ids for a page of ten.
            is_first = func.row_number().over(order_by=self.order) == 1
            facts += (case((is_first, column)).label(column.name) for column in named.c)
            rows = rows.join(named, true())
        statement = select(*self.columns, *facts).select_from(rows).order_by(*self.order)
        return Statement(self.takes, statement, besides=Window)

    async def fetch(self, source: Source, page: int, limit: int, parameters: T) -> tuple[list[R], int]:
        """The rows of page `page` (from 1), and the total of all pages."""
        rows, total, _ = await self.find(source, page, limit, parameters)
        return rows, total

    async def find(self, source: Source, page: int, limit: int, parameters: T) -> Found[R]:
        """As `fetch`, and what the trail names: the rows shown, and `by_filter` further matches in the list's
        order, MAX_NAMED_IDS in all."""
        offset = (page - 1) * limit
        statement = (
            self.first_page if page == 1 else self.page if offset <= MAX_NEAR_OFFSET else self.deep_page
        )
        window = Window(limit=limit, offset=offset)
        records = await source.records(statement, {**parameters, **window})
        shown = self.rows_of(records)
        named: list[list[UUID]] = [[*map(attrgetter(name), shown)] for name in self.names]
        if not records and page == 1:
            return Found([], 0, named)
        facts = records[0] if records else (await source.records(self.beyond, parameters))[0]
        if self.names_matches and page == 1:
            ids = [Raw(facts[named_by(n)].encode()) for n in range(len(self.names))]
            return Found(shown, facts["total"], ids)
        if self.names_matches and facts["total"]:
            self.add_further(named, facts)
        return Found(shown, facts["total"], named)

    def add_further(self, named: list[list[UUID]], facts: Record) -> None:
        """Add matches that are not on the page, up to MAX_NAMED_IDS."""
        already = set(named[0])
        room = MAX_NAMED_IDS - len(named[0])
        further = [at for at, match in enumerate(facts[named_by(0)]) if match not in already][:room]
        for n, names in enumerate(named):
            matches = facts[named_by(n)]
            names += [matches[at] for at in further]


def ids_of(first: CTE) -> FromClause:
    """One row: an array of each column of `first`."""
    return select(*(func.array_agg(column).label(named_by(n)) for n, column in enumerate(first.c))).subquery()


def ids_as_json_of(first: CTE) -> FromClause:
    """One row: each column of `first` as the audit trail stores it, so that Python need not decode it."""
    ids, *others = first.c
    written = [func.json_agg(ids), *(func.json_agg(distinct(column)) for column in others)]
    texts = (select(one).scalar_subquery().label(named_by(n)) for n, one in enumerate(written))
    return select(*texts).subquery()


def named_by(number: int) -> str:
    """The column that has whom the trail names by the `number`th of the query's `names`."""
    return f"named_{number}"


def is_descending(by: AnyColumn) -> bool:
    return isinstance(by, UnaryExpression)


def the_same_way(order: Sequence[AnyColumn], columns: Sequence[AnyColumn]) -> list[AnyColumn]:
    """These columns, each the way that its place in `order` is."""
    return [column.desc() if is_descending(by) else column for by, column in zip(order, columns, strict=True)]


def column_of(by: AnyColumn) -> AnyColumn:
    """What a list is ordered by, whichever way."""
    return by.element if is_descending(by) else by


def from_nearer_end(key: AnyColumn, matches: Matches, total: AnyColumn) -> AnySelect:
    """The keys of one page, read from the end of the list that is nearer; the other half of the statement
    asks for no rows, and does nothing."""
    offset: AnyColumn = bindparam("offset", type_=BigInteger)
    limit: AnyColumn = bindparam("limit", type_=BigInteger)
    all_rows = select(select(total).scalar_subquery().label("n")).cte("all_rows")
    n = select(all_rows.c.n).scalar_subquery()
    is_near = offset <= n - offset
    halves = (
        matches.read((key,), case((is_near, limit), else_=0), offset),
        matches.backwards().read(
            (key,),
            case((is_near, 0), else_=func.greatest(func.least(limit, n - offset), 0)),
            func.greatest(n - offset - limit, 0),
        ),
    )
    # The one limit that the planner can read; else it expects a tenth of the table.
    return union_all(*(select(half.subquery().c.id) for half in halves)).limit(limit)


def from_mark(key: AnyAttribute, order: Sequence[AnyColumn]) -> AnySelect:
    """The keys of one page, read from the mark before it. `order`: by one column, then by `key`, both the
    same way."""
    backwards, by = is_descending(order[0]), column_of(order[0])
    mark = mark_before_offset(key.parent.class_, backwards)
    place = mark.c.at if isinstance(by.type, type(mark.c.at.type)) else mark.c.name
    mark_place, mark_id, before = (select(of).scalar_subquery() for of in (place, mark.c.id, mark.c.n))
    here, there = tuple_(by, key), tuple_(mark_place, mark_id)
    limit, offset = (bindparam(name, type_=BigInteger) for name in ("limit", "offset"))
    return (
        select(key)
        .where(here < there if backwards else here >= there)
        .order_by(*order)
        .limit(limit)
        .offset(offset - before)
    )
