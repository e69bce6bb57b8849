"""tables

Revision: 0001
Follows:
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_users()
    create_patients()
    create_sessions()
    create_appointments()
    create_medical_records()


def create_users() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Enum("admin", "doctor", "staff", "patient", name="user_role"), nullable=False),
        sa.Column("phone", sa.Text(), nullable=True),
        sa.Column("specialization", sa.Text(), nullable=True),
        sa.Column("department", sa.Text(), nullable=True),
        sa.Column("status", sa.Enum("pending", "active", "disabled", name="account_status"), nullable=False),
        sa.Column("sort_name", sa.Text(collation="C"), nullable=False),
        sa.Column("search_text", sa.Text(collation="C"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("email", name=op.f("uq_users_email")),
    )
    op.create_index("users_name_idx", "users", ["sort_name", "id"], unique=False)
    op.create_index("users_role_idx", "users", ["role", "status", "sort_name", "id"], unique=False)


def create_patients() -> None:
    op.create_table(
        "patients",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("phone", sa.Text(), nullable=False),
        sa.Column("date_of_birth", sa.Date(), nullable=False),
        sa.Column("gender", sa.Enum("male", "female", "other", name="gender"), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("blood_type", sa.Text(), nullable=True),
        sa.Column("allergies", sa.Text(), nullable=True),
        sa.Column("medical_history", sa.Text(), nullable=True),
        sa.Column("sort_name", sa.Text(collation="C"), nullable=False),
        sa.Column("search_text", sa.Text(collation="C"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_patients_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_patients")),
        sa.UniqueConstraint("user_id", name=op.f("uq_patients_user_id")),
    )
    op.create_index("patients_name_idx", "patients", ["sort_name", "id"], unique=False)


def create_sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("refresh_jti", sa.Uuid(), nullable=False),
        sa.Column(
            "used_refreshes",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("user_agent", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column(
            "last_seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_sessions_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
    )
    op.create_index(op.f("ix_sessions_expires_at"), "sessions", ["expires_at"], unique=False)
    op.create_index(
        "sessions_user_idx",
        "sessions",
        ["user_id"],
        unique=False,
        postgresql_where=sa.text("ended_at IS NULL"),
    )


def no_overlap(person: str) -> postgresql.ExcludeConstraint:
    """Nobody is in two scheduled appointments at once."""
    hashed = f"uuid_hash_extended({person}, 0)"
    return postgresql.ExcludeConstraint(
        (sa.text(f"int8range({hashed}, {hashed}, '[]')"), "&&"),
        (sa.text("tstzrange(date, ends_at)"), "&&"),
        where=sa.text("status = 'scheduled'"),
        using="gist",
        name=f"appointments_{person}_overlap",
    )


def create_appointments() -> None:
    op.create_table(
        "appointments",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("patient_id", sa.Uuid(), nullable=False),
        sa.Column("doctor_id", sa.Uuid(), nullable=False),
        sa.Column("date", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "status",
            sa.Enum("scheduled", "completed", "cancelled", name="appointment_status"),
            server_default="scheduled",
            nullable=False,
        ),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("notes", sa.Text(), nullable=True),
        sa.Column("fee", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        no_overlap("doctor_id"),
        no_overlap("patient_id"),
        sa.CheckConstraint("ends_at > date", name=op.f("ck_appointments_ends_after_start")),
        sa.ForeignKeyConstraint(["doctor_id"], ["users.id"], name=op.f("fk_appointments_doctor_id_users")),
        sa.ForeignKeyConstraint(
            ["patient_id"], ["patients.id"], name=op.f("fk_appointments_patient_id_patients")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_appointments")),
    )
    op.create_index("appointments_date_idx", "appointments", ["date", "id"], unique=False)
    op.create_index("appointments_doctor_idx", "appointments", ["doctor_id", "date", "id"], unique=False)
    op.create_index("appointments_patient_idx", "appointments", ["patient_id", "date", "id"], unique=False)
    op.create_index("appointments_status_idx", "appointments", ["status", "date", "id"], unique=False)


def create_medical_records() -> None:
    op.create_table(
        "medical_records",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("patient_id", sa.Uuid(), nullable=False),
        sa.Column("doctor_id", sa.Uuid(), nullable=False),
        sa.Column("date", sa.DateTime(timezone=True), nullable=False),
        sa.Column("diagnosis", sa.Text(), nullable=False),
        sa.Column("prescription", sa.Text(), nullable=False),
        sa.Column("notes", sa.Text(), nullable=True),
        sa.Column("attachments", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["doctor_id"], ["users.id"], name=op.f("fk_medical_records_doctor_id_users")),
        sa.ForeignKeyConstraint(
            ["patient_id"], ["patients.id"], name=op.f("fk_medical_records_patient_id_patients")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_medical_records")),
    )
    op.create_index(
        "medical_records_date_idx",
        "medical_records",
        [sa.literal_column("date DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        "medical_records_doctor_idx", "medical_records", ["doctor_id", "patient_id", "date"], unique=False
    )
    op.create_index(
        "medical_records_patient_idx",
        "medical_records",
        ["patient_id", sa.literal_column("date DESC"), sa.literal_column("id DESC")],
        unique=False,
    )


def downgrade() -> None:
    op.drop_index("medical_records_patient_idx", table_name="medical_records")
    op.drop_index("medical_records_doctor_idx", table_name="medical_records")
    op.drop_index("medical_records_date_idx", table_name="medical_records")
    op.drop_table("medical_records")
    op.drop_index("appointments_status_idx", table_name="appointments")
    op.drop_index("appointments_patient_idx", table_name="appointments")
    op.drop_index("appointments_doctor_idx", table_name="appointments")
    op.drop_index("appointments_date_idx", table_name="appointments")
    op.drop_table("appointments")
    op.drop_index("sessions_user_idx", table_name="sessions", postgresql_where=sa.text("ended_at IS NULL"))
    op.drop_index(op.f("ix_sessions_expires_at"), table_name="sessions")
    op.drop_table("sessions")
    op.drop_index("patients_name_idx", table_name="patients")
    op.drop_table("patients")
    op.drop_index("users_role_idx", table_name="users")
    op.drop_index("users_name_idx", table_name="users")
    op.drop_table("users")
    for closed_set in ("appointment_status", "gender", "account_status", "user_role"):
        op.execute(f"DROP TYPE {closed_set}")
