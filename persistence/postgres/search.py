"""Lists searched by words in names, e-mails and phones."""

from collections.abc import Sequence
from typing import Any, Generic

from msgspec import Raw
from sqlalchemy import (
    CTE,
    BigInteger,
    Column,
    ColumnElement,
    Float,
    Integer,
    MetaData,
    Table,
    Text,
    bindparam,
    case,
    cast,
    column,
    except_,
    func,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY

from persistence.models import Base
from persistence.postgres.database import Source
from persistence.postgres.declared import AnyColumn, AnySelect, fields_of, require_row
from persistence.postgres.folding import substring_pattern, trigrams
from persistence.postgres.paging import MAX_NAMED_IDS, Found, Window, column_of, the_same_way
from persistence.postgres.statements import R, Rows, Statement, T

# A trigram that more than this share of the rows have is quicker looked for in the rows than in the index.
COMMON_SHARE = 0.1
STATISTICS = Table(
    "pg_stats",
    MetaData(),
    Column("schemaname", Text),
    Column("tablename", Text),
    Column("attname", Text),
    Column("most_common_elems"),  # of any type: only as text can it become an array of integers
    Column("most_common_elem_freqs", ARRAY(Float)),
)


class Words(Window):
    """What is searched for, and which rows of it are the page."""

    patterns: list[str]
    trigrams: list[int]


class SearchQuery(Generic[T, R]):
    """One page of the rows in which every word is found, in the order that is asked for; their exact total;
    and whom the audit trail names. All of it in one statement, which looks for the rows once.

    The index on `trigrams` finds the rows that have all the rare trigrams of the words; where none is rare,
    every row is looked at. Which are common, ANALYZE has found out. The plan is the same whatever is searched
    for, so PostgreSQL makes it once: `asked` hides the values from it.
    """

    def __init__(
        self,
        row: type[R],
        takes: type[T],
        model: type[Base],
        columns: Sequence[AnyColumn],
        order: Sequence[AnyColumn],
        where: Sequence[ColumnElement[bool]] = (),
    ) -> None:
        """`model`: has the columns `search_text` and `trigrams`. `columns`: the first is never NULL. `order`:
        by one column, then by the id, both the same way."""
        require_row(row, select(*columns))
        self.rows_of = Rows(row, columns)
        self.key = next(fields_of(row)).name
        statement = page_of(model, columns, order, where)
        # Any: `takes` and Words together.
        self.statement: Statement[Any] = Statement(takes, statement, besides=Words)

    async def find(self, source: Source, page: int, limit: int, words: list[str], parameters: T) -> Found[R]:
        searched = Words(
            patterns=[substring_pattern(word) for word in words],
            trigrams=list({trigram for word in words for trigram in trigrams(word)}),
            offset=(page - 1) * limit,
            limit=limit,
        )
        records = await source.records(self.statement, {**parameters, **searched})
        facts = records[0]
        shown = self.rows_of([record for record in records if record[self.key] is not None])
        return Found(shown, facts["total"], [Raw(facts["named"].encode()) if facts["named"] else []])


OFFSET: AnyColumn = bindparam("offset", type_=BigInteger)
LAST = OFFSET + bindparam("limit", type_=BigInteger)


def page_of(
    model: type[Base],
    columns: Sequence[AnyColumn],
    order: Sequence[AnyColumn],
    where: Sequence[ColumnElement[bool]],
) -> AnySelect:
    """The rows of the page, with the total and, in the first row, the ids that the audit trail names. Of a
    page past the end there is one row, of these facts alone."""
    table = model.__table__
    found, most = found_by_words(model, column_of(order[0]), where)
    first = select(found).order_by(*the_same_way(order, (found.c.by, found.c.id))).limit(most).subquery()
    place = func.row_number().over(order_by=the_same_way(order, (first.c.by, first.c.id))).label("place")
    ordered = select(first.c.id, place).cte("ordered").prefix_with("MATERIALIZED")
    on_page = (ordered.c.place > OFFSET) & (ordered.c.place <= LAST)
    named = select(ordered.c.id).order_by(~on_page, ordered.c.place).limit(MAX_NAMED_IDS).subquery()
    facts = (
        select(
            select(func.count()).select_from(found).scalar_subquery().label("total"),
            select(func.json_agg(named.c.id)).scalar_subquery().label("named"),
        )
        .cte("facts")
        .prefix_with("MATERIALIZED")
    )
    is_first = ordered.c.place.is_(None) | (ordered.c.place == OFFSET + 1)
    return (
        select(*columns, facts.c.total, case((is_first, facts.c.named)).label("named"))
        .select_from(facts)
        .outerjoin(ordered, on_page)
        .outerjoin(table, table.c.id == ordered.c.id)
        .order_by(ordered.c.place)
    )


def found_by_words(
    model: type[Base], by: AnyColumn, where: Sequence[ColumnElement[bool]]
) -> tuple[CTE, AnyColumn]:
    """The rows in which every word is found, with what they are ordered by, and how many of them are needed
    at most."""
    asked = (
        select(
            bindparam("patterns", type_=ARRAY(Text)).label("patterns"),
            func.array(rare_trigrams(model).scalar_subquery(), type_=ARRAY(Integer)).label("rare"),
            func.greatest(MAX_NAMED_IDS, LAST, type_=BigInteger).label("most"),
        )
        .cte("asked")
        .prefix_with("MATERIALIZED")
    )

    def of_asked(value: AnyColumn) -> AnyColumn:
        return select(value).select_from(asked).scalar_subquery()

    patterns = cast(of_asked(asked.c.patterns), ARRAY(Text))
    of_row = model.__table__.c
    matching = select(of_row.id, by.label("by")).where(of_row.search_text.like(func.all(patterns)), *where)
    rare, none = asked.c.rare, cast([], ARRAY(Integer))
    found = union_all(
        matching.where(of_asked(rare != none), of_row.trigrams.contains(of_asked(rare))),
        matching.where(of_asked(rare == none)),
    )
    return found.cte("found").prefix_with("MATERIALIZED"), of_asked(asked.c.most)


def rare_trigrams(model: type[Base]) -> AnySelect:
    of_column = STATISTICS.c
    common = (
        func.unnest(
            cast(cast(of_column.most_common_elems, Text), ARRAY(Integer)), of_column.most_common_elem_freqs
        )
        .table_valued(column("trigram", Integer), column("share", Float))
        .render_derived()
    )
    return except_(
        select(func.unnest(bindparam("trigrams", type_=ARRAY(Integer)))),
        select(common.c.trigram)
        .select_from(STATISTICS)
        .join(common, true())
        .where(
            of_column.schemaname == func.current_schema(),
            of_column.tablename == model.__tablename__,
            of_column.attname == "trigrams",
            common.c.share > COMMON_SHARE,
        ),
    )
