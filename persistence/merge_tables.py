"""The tables of merged charts."""

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import BigInteger, Boolean, Date, Identity, Index, Integer, Text, Uuid
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from persistence.models import Base, Folded, Gender, Instant, enum_type


class MergedPatient(Base):
    """A chart that was merged into another: its row of `patients`, as it was, so that what lists, counts and
    searches charts need not look here. Its appointments and records have the other chart's id by now, and its
    own as `stored_patient_id`. Written by functions of the database alone (migration 0017)."""

    __tablename__ = "merged_patients"
    __table_args__ = (Index("merged_patients_survivor_idx", "survivor_id"),)

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    survivor_id: Mapped[UUID] = mapped_column(Uuid)  # which may be merged itself
    merged_at: Mapped[datetime] = mapped_column(Instant)
    moved_account: Mapped[UUID | None] = mapped_column(Uuid)  # that was linked to this chart until then
    ever_linked: Mapped[bool] = mapped_column(Boolean)
    name: Mapped[str] = mapped_column(Text)
    email: Mapped[str] = mapped_column(Text)
    phone: Mapped[str] = mapped_column(Text)
    date_of_birth: Mapped[date] = mapped_column(Date)
    gender: Mapped[Gender] = mapped_column(enum_type(Gender, "gender"))
    address: Mapped[str] = mapped_column(Text)
    blood_type: Mapped[str | None] = mapped_column(Text)
    allergies: Mapped[str | None] = mapped_column(Text)
    medical_history: Mapped[str | None] = mapped_column(Text)
    sort_name: Mapped[str] = mapped_column(Folded)
    search_text: Mapped[str] = mapped_column(Folded)
    merge_count: Mapped[int] = mapped_column(Integer)
    latin_trigrams: Mapped[list[int] | None] = mapped_column(ARRAY(Integer))
    created_at: Mapped[datetime] = mapped_column(Instant)


class PatientMerge(Base):
    """That somebody merged two charts or undid it, and why. Append only, and sealed with the trail."""

    __tablename__ = "patient_merges"
    __table_args__ = (
        Index("patient_merges_request_idx", "request_id"),
        Index("patient_merges_survivor_idx", "survivor_id"),
        Index("patient_merges_merged_idx", "merged_id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(Instant)
    user_id: Mapped[UUID] = mapped_column(Uuid)
    name: Mapped[str] = mapped_column(Text)
    role: Mapped[str] = mapped_column(Text)
    request_id: Mapped[UUID] = mapped_column(Uuid)
    is_undone: Mapped[bool] = mapped_column(Boolean)
    survivor_id: Mapped[UUID] = mapped_column(Uuid)
    merged_id: Mapped[UUID] = mapped_column(Uuid)
    reason: Mapped[str] = mapped_column(Text)
