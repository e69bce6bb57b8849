"""The tables of the counters.

How many rows there are of each kind, in each of the lists that grow, and what they amount to. Nobody writes
there but functions of the database (migration 0008): a writer appends to `count_changes`, which are moved
into `counts`, and into `count_marks`, now and then. What persistence/postgres/counters.py reads is the sum.
"""

from sqlalchemy import BigInteger, Column, Table, Text, Uuid

from persistence.models import Base, Folded, Instant

counts = Table(
    "counts",
    Base.metadata,
    Column("list", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("n", BigInteger, nullable=False),
    Column("amount", BigInteger, nullable=False),
)
count_changes = Table(
    "count_changes",
    Base.metadata,
    Column("list", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("name", Folded, nullable=False),
    Column("at", Instant, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("n", BigInteger, nullable=False),
    Column("amount", BigInteger, nullable=False),
)
# Every few thousand rows of a list a mark: where it stands in the order, and how many rows there are from it
# up to the next one.
count_marks = Table(
    "count_marks",
    Base.metadata,
    Column("list", Text, primary_key=True),
    Column("name", Folded, primary_key=True),
    Column("at", Instant, primary_key=True),
    Column("id", Uuid, primary_key=True),
    Column("n", BigInteger, nullable=False),
)
# `n` events of the trail are of transactions below `until_xid`.
audit_count = Table(
    "audit_count",
    Base.metadata,
    Column("n", BigInteger, nullable=False),
    Column("until_xid", BigInteger),
    Column("restored_id", BigInteger, nullable=False),
    Column("of_table", BigInteger, nullable=False),
)
