"""The tables of what changed, which `GET /api/changes` tells of. Nobody writes there but functions of the
database (migration 0019)."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Column, Integer, Table, Text, Uuid, func
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from persistence.models import Base, Folded, Instant


class NotedChange(Base):
    """That a transaction changed what an answer shows of an object: one row for both. In the order of the
    transactions, of which the oldest that a reader may lack is the first of its snapshot."""

    __tablename__ = "changes"

    xid: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    noun: Mapped[str] = mapped_column(Folded, primary_key=True)
    object_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    act: Mapped[str] = mapped_column(Text)
    # Who may know of it, by what they may see before or after: roles, as bits (persistence/changes.py); and
    # whatever these are, accounts, and the account that is linked to one of these charts by now.
    roles: Mapped[int] = mapped_column(Integer)
    accounts: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    charts: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    at: Mapped[datetime] = mapped_column(Instant, server_default=func.clock_timestamp())


# One row: of no transaction below `from_xid` is everything kept.
change_horizon = Table("change_horizon", Base.metadata, Column("from_xid", BigInteger, nullable=False))
