"""The table of feeds for people's own calendars."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, LargeBinary, func
from sqlalchemy.orm import Mapped, mapped_column

from persistence.models import Base, Instant, enum_type
from security.roles import Role


class CalendarFeed(Base):
    """One for each account. Of its address there is only a digest, so that whoever reads the table, or a
    backup, has no address. It works while its account is active, of the role that it was then, and has the
    password that it had: `password` is a digest of its hash."""

    __tablename__ = "calendar_feeds"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), primary_key=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    role: Mapped[Role] = mapped_column(enum_type(Role, "user_role"))
    password: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(Instant, server_default=func.now())
