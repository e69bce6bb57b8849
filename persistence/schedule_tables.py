"""The tables of when doctors work: the hours of their weeks, their leave, and the days on which the clinic is
closed."""

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Text, Uuid, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from persistence.models import Base, Instant

StoredHours = list[dict[str, object]]  # as api/schedule/weekly.py writes them


class DoctorHours(Base):
    """A doctor's own working hours; one who has no row works when the clinic is open, one with an empty list
    never. `version` is of a sequence and new with each change: what a process remembers of the hours is true
    as long as that is the same."""

    __tablename__ = "doctor_hours"

    doctor_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), primary_key=True)
    hours: Mapped[StoredHours] = mapped_column(JSONB)
    version: Mapped[int] = mapped_column(BigInteger)


class Absence(Base):
    """A time in which nobody is booked with the doctor; without one, with anybody. `reason` is health data,
    where it is a doctor's."""

    __tablename__ = "absences"
    __table_args__ = (
        CheckConstraint("ends > begins", name="ends_after_begin"),
        Index("absences_doctor_idx", "doctor_id", "begins", "id"),  # that of the clinic, too: NULL is first
        Index("absences_begins_idx", "begins", "id"),
    )

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, default=uuid4)
    doctor_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"))
    begins: Mapped[datetime] = mapped_column(Instant)
    ends: Mapped[datetime] = mapped_column(Instant)
    reason: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(Instant, server_default=func.now())
