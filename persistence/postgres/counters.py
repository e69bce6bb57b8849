"""How many rows the lists have: exact in every statement, without counting them.

Triggers record each change of a counted row (migration 0008). They only append, so that no writer waits for
another, and `fold_periodically` moves these changes into the counts. A statement reads both, as everything
here does; in its snapshot the sum is what `count(*)` would return.
"""

import logging
from typing import NamedTuple, TypedDict

from sqlalchemy import (
    BigInteger,
    Boolean,
    Integer,
    bindparam,
    column,
    func,
    literal_column,
    null,
    select,
    text,
)

from persistence.counter_tables import count_marks
from persistence.models import Base
from persistence.postgres.background import repeat
from persistence.postgres.database import Database, Source
from persistence.postgres.declared import AnyColumn
from persistence.postgres.statements import NOTHING, Nothing, Query, Statement

MIN_CHANGES = 100  # fewer are not worth moving yet
FOLD_INTERVAL_SECONDS = 3.0


class Fewest(TypedDict):
    fewest: int


class Folded(NamedTuple):
    is_more: bool


class Count(NamedTuple):
    """Of one kind of row in a list: `n` and `amount` by the counters, `rows` and `sum` counted afresh."""

    list: str
    kind: str
    n: int
    rows: int
    amount: int
    sum: int
    is_counted: bool


FOLD = select(func.fold_counts(bindparam("fewest", type_=Integer), type_=Boolean).label("is_more"))
FOLDED = Query(Folded, Fewest, FOLD)
FORGET = (
    Statement(Nothing, text("DELETE FROM counted_lists")),
    Statement(Nothing, text("UPDATE audit_count SET until_xid = NULL")),
)
VACUUM = Statement(Nothing, text("VACUUM count_changes"))
BOTH = text(
    """
    SELECT list, kind, coalesce(counted.n, 0) AS n, coalesce(recounted.n, 0) AS rows,
           coalesce(counted.amount, 0) AS amount, coalesce(recounted.amount, 0) AS sum,
           list = 'audit_events' OR list IN (SELECT list FROM counted_lists) AS is_counted
    FROM counted FULL JOIN recounted USING (list, kind)
    ORDER BY list, kind
    """
)
COUNTED = Query(Count, Nothing, BOTH)

log = logging.getLogger("medisecure.counters")


def name_of(model: type[Base]) -> AnyColumn:
    return literal_column(f"'{model.__tablename__}'")


def figures_of(model: type[Base], kinds: AnyColumn) -> AnyColumn:
    """From the database's function, which counts the rows itself where it must. So the planner does not
    expect our statement to be expensive."""
    if isinstance(kinds, str):
        kinds = literal_column(f"'{{{kinds}}}'::text[]")
    asked = null() if kinds is None else kinds
    return func.counted_rows(name_of(model), asked).table_valued("n", "amount").alias()


def number_of(model: type[Base], kinds: AnyColumn = None) -> AnyColumn:
    """How many rows there are, of these kinds: one kind, or an expression for an array of them."""
    return select(column("n", BigInteger)).select_from(figures_of(model, kinds)).scalar_subquery()


def sum_of(model: type[Base], kinds: AnyColumn = None) -> AnyColumn:
    """The sum of the amounts of these rows."""
    return select(column("amount", BigInteger)).select_from(figures_of(model, kinds)).scalar_subquery()


def mark_before_offset(model: type[Base], backwards: bool) -> AnyColumn:
    """The last mark of the list before the row at `offset`: its place, and `n`, how many rows are before it.
    The order is the list's, or with `backwards` the opposite."""
    mark = func.mark_before(
        name_of(model),
        bindparam("offset", type_=BigInteger),
        literal_column(str(backwards)),
    ).table_valued(*count_marks.c[1:])
    return select(mark).cte("mark")


async def fold(source: Source, fewest: int = MIN_CHANGES) -> bool:
    """Move changes into the counts, if there are `fewest` of them. Returns whether to go on at once."""
    [folded] = await source.rows(FOLDED, Fewest(fewest=fewest))
    return folded.is_more


async def fold_all(database: Database) -> None:
    """For the owner of the database, who may also vacuum what is left of the changes."""
    while await fold(database.reader, 1):
        pass  # pragma: no cover  # only where there are more changes than one statement folds, 20,000
    await database.reader.run(VACUUM, NOTHING)


async def fold_periodically(database: Database) -> None:
    """Fold for as long as the service runs. If that fails, all figures stay right, but cost more and more."""

    async def act() -> tuple[bool, str]:
        return await fold(database.reader), ""

    await repeat(act, FOLD_INTERVAL_SECONDS, log, "Changes could not be added to the counters: %s")


async def check(source: Source) -> list[Count]:
    """What the counters say and what is there, in one snapshot."""
    return await source.rows(COUNTED, NOTHING)


async def repair(database: Database) -> None:
    """Count all lists again. Nobody waits; a statement that reads meanwhile counts the rows itself."""
    async with database.transaction() as transaction:
        for statement in FORGET:
            await transaction.run(statement, NOTHING)
    await fold_all(database)
