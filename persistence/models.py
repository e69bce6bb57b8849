"""The tables of the requirement ("Database Schema") and what the contract adds; nothing but tables. Those of
the counters are in persistence/counter_tables.py, those of amended records in record_tables.py."""

from datetime import date, datetime
from enum import StrEnum
from uuid import UUID, uuid4

from advanced_alchemy.base import AdvancedDeclarativeBase, CommonTableAttributes
from advanced_alchemy.types import DateTimeUTC
from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Date,
    Enum,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, ExcludeConstraint
from sqlalchemy.orm import Mapped, mapped_column

from security.roles import Role


class AccountStatus(StrEnum):
    PENDING = "pending"
    ACTIVE = "active"
    DISABLED = "disabled"


class Gender(StrEnum):
    MALE = "male"
    FEMALE = "female"
    OTHER = "other"


class AppointmentStatus(StrEnum):
    SCHEDULED = "scheduled"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


def enum_type(members: type[StrEnum], name: str) -> Enum:
    return Enum(members, name=name, values_callable=lambda kinds: [kind.value for kind in kinds])


# Sorting and searching must not depend on the server's locale: "C" compares bytes, and what is stored is
# already folded by Python (persistence/postgres/folding.py).
Folded = Text(collation="C")
Instant = DateTimeUTC(timezone=True)


class Base(CommonTableAttributes, AdvancedDeclarativeBase):
    __abstract__ = True


def trigram_index(table: str, column: str = "trigrams") -> Index:
    """What a search for words uses. Entries go into the index at once: every search would read a list of
    pending ones, and the insert that fills it would have to move all of them."""
    return Index(
        f"{table}_{column}_idx", column, postgresql_using="gin", postgresql_with={"fastupdate": "off"}
    )


class User(Base):
    __tablename__ = "users"
    __table_args__ = (
        Index("users_name_idx", "sort_name", "id"),
        Index("users_role_idx", "role", "status", "sort_name", "id"),
        trigram_index("users"),
    )

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, default=uuid4)
    email: Mapped[str] = mapped_column(Text, unique=True)
    password_hash: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    role: Mapped[Role] = mapped_column(enum_type(Role, "user_role"))
    phone: Mapped[str | None] = mapped_column(Text)
    specialization: Mapped[str | None] = mapped_column(Text)
    department: Mapped[str | None] = mapped_column(Text)
    status: Mapped[AccountStatus] = mapped_column(enum_type(AccountStatus, "account_status"))
    sort_name: Mapped[str] = mapped_column(Folded)
    search_text: Mapped[str] = mapped_column(Folded)
    trigrams: Mapped[list[int] | None] = mapped_column(ARRAY(Integer))  # of search_text, by a trigger (0010)
    created_at: Mapped[datetime] = mapped_column(Instant, server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(Instant, server_default=func.now(), onupdate=func.now())


class Session(Base):
    """One sign-in. Both tokens of it carry its id; it is dead once ended, expired or its user not active."""

    __tablename__ = "sessions"
    __table_args__ = (Index("sessions_user_idx", "user_id", "expires_at"),)

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, default=uuid4)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    refresh_jti: Mapped[UUID] = mapped_column(Uuid)
    # Refresh tokens already exchanged, jti -> seconds since the epoch by PostgreSQL's clock. Each is kept for
    # 30 s, in which a second tab, or a client that lost the answer, may present it. Anything older is reuse.
    used_refreshes: Mapped[dict[str, float]] = mapped_column(JSONB, server_default=text("'{}'"))
    address: Mapped[str] = mapped_column(Text)
    user_agent: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(Instant, server_default=func.now())
    last_seen_at: Mapped[datetime] = mapped_column(Instant, server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(Instant)
    ended_at: Mapped[datetime | None] = mapped_column(Instant)


class LoginCounter(Base):
    """Failed sign-ins of one e-mail, known or not, or from one address, in a fixed window. `key` is a digest
    (persistence/login_attempts.py): what was typed as an e-mail may be a password. `version` grows with each
    change, so that an older copy of the row replaces no newer one."""

    __tablename__ = "login_counters"
    __table_args__ = (Index("login_counters_ends_idx", "ends_at"),)

    key: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    failures: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    # Attempts whose password is being checked, id -> seconds since the epoch by PostgreSQL's clock after
    # which they no longer count: their process was killed.
    pending: Mapped[dict[str, float]] = mapped_column(JSONB, server_default=text("'{}'"))
    began_at: Mapped[datetime] = mapped_column(Instant)
    ends_at: Mapped[datetime] = mapped_column(Instant)
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))


class Patient(Base):
    """A chart. `user_id` is the account that a person linked to it, if any; a trigger (migration 0004) sets
    `ever_linked` with it, and nothing unsets it."""

    __tablename__ = "patients"
    __table_args__ = (
        Index("patients_name_idx", "sort_name", "id"),
        Index("patients_birth_idx", "date_of_birth"),
        Index("patients_created_idx", "created_at", "id"),
        trigram_index("patients"),
        trigram_index("patients", "latin_trigrams"),
    )

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, default=uuid4)
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"), unique=True)
    ever_linked: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
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
    trigrams: Mapped[list[int] | None] = mapped_column(ARRAY(Integer))  # of search_text, by a trigger (0010)
    # Of a name that `search_text` has in other letters (persistence/postgres/latin.py).
    merge_count: Mapped[int] = mapped_column(Integer, server_default=text("0"))  # and how often it was undone
    latin_trigrams: Mapped[list[int] | None] = mapped_column(ARRAY(Integer))
    created_at: Mapped[datetime] = mapped_column(Instant, server_default=func.now())


def overlap_constraint(column: str, where: str = "status = 'scheduled'") -> ExcludeConstraint:
    """No two appointments of one person overlap, of those that `where` names. btree_gist, which would let us
    write `column WITH =`, is not on every server; a one-point range of the id's hash needs no extension."""
    hashed = f"uuid_hash_extended({column}, 0)"
    return ExcludeConstraint(
        (text(f"int8range({hashed}, {hashed}, '[]')"), "&&"),
        (text("tstzrange(date, ends_at)"), "&&"),
        using="gist",
        where=text(where),
        name=f"appointments_{column}_overlap",
    )


class Appointment(Base):
    __tablename__ = "appointments"
    __table_args__ = (
        CheckConstraint("ends_at > date", name="ends_after_start"),
        overlap_constraint("doctor_id", "status = 'scheduled' AND NOT overbooked"),
        overlap_constraint("patient_id"),
        Index("appointments_date_idx", "date", "id"),
        # With what a list sorts by, names and asks, so that it need not read the table to find its page.
        Index(
            "appointments_doctor_idx",
            *("doctor_id", "date", "id"),
            postgresql_include=["created_at", "patient_id", "status"],
        ),
        Index("appointments_patient_idx", "patient_id", "date", "id"),
        Index("appointments_status_idx", "status", "date", "id"),
        Index("appointments_created_idx", "created_at", "id"),
    )

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, default=uuid4)
    patient_id: Mapped[UUID] = mapped_column(ForeignKey("patients.id"))
    doctor_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    date: Mapped[datetime] = mapped_column(Instant)
    ends_at: Mapped[datetime] = mapped_column(Instant)
    status: Mapped[AppointmentStatus] = mapped_column(
        enum_type(AppointmentStatus, "appointment_status"), server_default="scheduled"
    )
    reason: Mapped[str] = mapped_column(Text)
    notes: Mapped[str | None] = mapped_column(Text)
    fee: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(Instant, server_default=func.now())
    stored_patient_id: Mapped[UUID | None] = mapped_column(Uuid)  # before a merge (merge_tables.py)
    # Somebody allowed it to overlap the doctor's others, where it is now.
    overbooked: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))


class MedicalRecord(Base):
    __tablename__ = "medical_records"
    __table_args__ = (
        Index("medical_records_date_idx", text("date DESC"), text("id DESC")),
        Index("medical_records_patient_idx", "patient_id", text("date DESC"), text("id DESC")),
        Index("medical_records_doctor_idx", "doctor_id", "patient_id", "date"),
        Index("medical_records_author_idx", "doctor_id", text("date DESC"), text("id DESC")),
    )

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, default=uuid4)
    patient_id: Mapped[UUID] = mapped_column(ForeignKey("patients.id"))
    doctor_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    date: Mapped[datetime] = mapped_column(Instant)
    diagnosis: Mapped[str] = mapped_column(Text)
    prescription: Mapped[str] = mapped_column(Text)
    notes: Mapped[str | None] = mapped_column(Text)
    attachments: Mapped[list[str] | None] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(Instant, server_default=func.now())
    author_name: Mapped[str | None] = mapped_column(Text)  # as it was then; older rows have none
    stored_patient_id: Mapped[UUID | None] = mapped_column(Uuid)  # before a merge (merge_tables.py)


class AuditEvent(Base):
    """One act of one person. Append only: in production the application's role may neither change nor
    delete a row (`medisecure migrate --grant-to`). It holds ids, never medical text, and refers to no other
    table, so that it outlives what it tells of."""

    __tablename__ = "audit_events"
    __table_args__ = (
        Index("audit_events_at_idx", text("at DESC"), text("id DESC")),
        Index("audit_events_user_idx", "user_id", text("at DESC"), text("id DESC")),
        Index("audit_events_xid_idx", "xid", "id"),
        Index("audit_events_charts_idx", "patient_ids", postgresql_using="gin"),
        # So that a sealer can read every row, also one that something else than the service has inserted.
        CheckConstraint(
            "at >= '0001-01-02 00:00:00+00'::timestamptz AND at < '9999-12-31 00:00:00+00'::timestamptz "
            "AND cardinality(target_ids) <= 200 AND cardinality(patient_ids) <= 200 "
            "AND octet_length(concat(email, role, action, outcome, address)) <= 4000",
            name="sealable",
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(Instant)
    user_id: Mapped[UUID | None] = mapped_column(Uuid)
    email: Mapped[str | None] = mapped_column(Text)
    role: Mapped[str | None] = mapped_column(Text)
    session_id: Mapped[UUID | None] = mapped_column(Uuid)
    action: Mapped[str] = mapped_column(Text)
    outcome: Mapped[str] = mapped_column(Text)
    patient_id: Mapped[UUID | None] = mapped_column(Uuid)
    target_id: Mapped[UUID | None] = mapped_column(Uuid)
    target_ids: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    # Every chart that the answer showed something of, to find out who looked at it.
    patient_ids: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    address: Mapped[str] = mapped_column(Text)
    request_id: Mapped[UUID] = mapped_column(Uuid)
    # Of the rows that it vouches for (persistence/contents.py); as long as a sealer can read, as above.
    content: Mapped[str | None] = mapped_column(String(4000))
    # The transaction that wrote the row: in this order, unlike in that of the ids, nothing is committed late.
    xid: Mapped[int] = mapped_column(BigInteger, server_default=text("pg_current_xact_id()::text::bigint"))


class AuditSeal(Base):
    """A block of events, chained to the block before it under a key (persistence/audit_chain.py)."""

    __tablename__ = "audit_seals"

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    event_ids: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))
    # The next seal begins with this transaction, in it behind the row `within_id`, and above `after_id`.
    until_xid: Mapped[int] = mapped_column(BigInteger)
    within_id: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    after_id: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    digests: Mapped[list[bytes]] = mapped_column(ARRAY(LargeBinary))
    key_id: Mapped[str] = mapped_column(Text)
    mac: Mapped[bytes] = mapped_column(LargeBinary)
    sealed_at: Mapped[datetime] = mapped_column(Instant, server_default=func.now())
