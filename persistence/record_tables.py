"""The tables of what became of a record: its versions, and its retraction. The newest text of a record that
stands is in `medical_records`, so that what lists, counts and reads records need not look here.

Append only. The service adds amendments and retractions; triggers (migration 0013), which run with their
owner's rights, keep the original, and change or take out the row of `medical_records`.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Identity, Index, Text, Uuid, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from persistence.models import Base, Instant, MedicalRecord
from persistence.postgres.declared import AnyColumn


class RecordVersion(Base):
    """A text of a record that was amended or retracted, whole. The original has no reason; its name and role
    are those of its author as they were then."""

    __tablename__ = "record_versions"
    __table_args__ = (
        CheckConstraint("is_original = (reason IS NULL)", name="amended_for_a_reason"),
        Index("record_versions_record_idx", "record_id", "id"),
        Index("record_versions_request_idx", "request_id"),
        Index("record_versions_original_idx", "record_id", unique=True, postgresql_where=text("is_original")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    record_id: Mapped[UUID] = mapped_column(Uuid)
    # Only triggers may say so: the service's role may not write this column.
    is_original: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    at: Mapped[datetime] = mapped_column(Instant)
    user_id: Mapped[UUID] = mapped_column(Uuid)
    name: Mapped[str] = mapped_column(Text)
    role: Mapped[str] = mapped_column(Text)
    reason: Mapped[str | None] = mapped_column(Text)
    diagnosis: Mapped[str] = mapped_column(Text)
    prescription: Mapped[str] = mapped_column(Text)
    notes: Mapped[str] = mapped_column(Text)
    attachments: Mapped[list[str]] = mapped_column(JSONB)
    # Which wrote the row: of an original, the one that first amended or retracted the record.
    request_id: Mapped[UUID] = mapped_column(Uuid)


class RecordRetraction(Base):
    """A record that was taken back: by whom, why, and what else of it stood in `medical_records`, which the
    trigger fills in."""

    __tablename__ = "record_retractions"
    __table_args__ = (Index("record_retractions_request_idx", "request_id"),)

    record_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    at: Mapped[datetime] = mapped_column(Instant)
    user_id: Mapped[UUID] = mapped_column(Uuid)
    name: Mapped[str] = mapped_column(Text)
    role: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    request_id: Mapped[UUID] = mapped_column(Uuid)
    patient_id: Mapped[UUID] = mapped_column(Uuid)
    doctor_id: Mapped[UUID] = mapped_column(Uuid)
    date: Mapped[datetime] = mapped_column(Instant)
    created_at: Mapped[datetime] = mapped_column(Instant)
    stored_patient_id: Mapped[UUID | None] = mapped_column(Uuid)  # before a merge (merge_tables.py)


def stored_chart_of(table: type[MedicalRecord | RecordRetraction]) -> AnyColumn:
    """The chart of a row before any merge: it stays the same for ever."""
    return func.coalesce(table.stored_patient_id, table.patient_id)
