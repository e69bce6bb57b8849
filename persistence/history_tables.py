"""The tables of the history: what a chart or an appointment said before, who changed it, and when. Append
only, as the trail is. They refer to no other table, so that they outlive what they tell of."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Identity, Index, Text, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from persistence.models import Base, Instant


class Change:
    """One field, changed in one request. The person's name and role are those of then; there is none where a
    command did it. `before`, `after`: as the answer showed them."""

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(Instant)
    user_id: Mapped[UUID | None] = mapped_column(Uuid)
    name: Mapped[str | None] = mapped_column(Text)
    role: Mapped[str | None] = mapped_column(Text)
    request_id: Mapped[UUID] = mapped_column(Uuid)  # of its event in the trail, which seals it
    field: Mapped[str] = mapped_column(Text)
    before: Mapped[str | None] = mapped_column(Text)
    after: Mapped[str | None] = mapped_column(Text)


class PatientChange(Change, Base):
    __tablename__ = "patient_changes"
    __table_args__ = (
        Index("patient_changes_patient_idx", "patient_id", "id"),
        Index("patient_changes_request_idx", "request_id"),
    )

    patient_id: Mapped[UUID] = mapped_column(Uuid)


class AppointmentChange(Change, Base):
    __tablename__ = "appointment_changes"
    __table_args__ = (
        Index("appointment_changes_appointment_idx", "appointment_id", "id"),
        Index("appointment_changes_request_idx", "request_id"),
    )

    appointment_id: Mapped[UUID] = mapped_column(Uuid)
