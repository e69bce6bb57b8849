"""The tables of what changed, which `GET /api/changes` tells of. Nobody writes there but functions of the
database (migration 0019)."""

from sqlalchemy import BigInteger, Column, Integer, Table, Text, Uuid, func
from sqlalchemy.dialects.postgresql import ARRAY

from persistence.models import Base, Folded, Instant

# That a transaction changed what an answer shows of an object: one row for both. In the order of the
# transactions, of which the oldest that a reader may lack is the first that their snapshot does not see.
#
# Who may know of it, by what they may see before or after: roles, as bits (persistence/changes.py); accounts,
# whose own it is; patients whose account is linked to one of the charts by now; and doctors.
changes = Table(
    "changes",
    Base.metadata,
    Column("xid", BigInteger, primary_key=True, autoincrement=False),
    Column("noun", Folded, primary_key=True),
    Column("object_id", Uuid, primary_key=True),
    Column("act", Text, nullable=False),
    Column("roles", Integer, nullable=False),
    Column("accounts", ARRAY(Uuid), nullable=False),
    Column("charts", ARRAY(Uuid), nullable=False),
    Column("doctors", ARRAY(Uuid), nullable=False),
    Column("at", Instant, server_default=func.clock_timestamp(), nullable=False),
)
# One row: of no transaction below `from_xid` is everything kept.
change_horizon = Table("change_horizon", Base.metadata, Column("from_xid", BigInteger, nullable=False))
