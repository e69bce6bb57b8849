"""schedule

Revision: 0018
Follows: 0017
"""

import sqlalchemy as sa
from advanced_alchemy.types import DateTimeUTC
from alembic import op
from sqlalchemy.dialects import postgresql

from persistence.migrations.locks import limit_locks

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    limit_locks()
    op.execute("CREATE SEQUENCE doctor_hours_versions")
    op.create_table(
        "doctor_hours",
        sa.Column("doctor_id", sa.Uuid(), nullable=False),
        sa.Column("hours", postgresql.JSONB(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["doctor_id"], ["users.id"], name=op.f("fk_doctor_hours_doctor_id_users")),
        sa.PrimaryKeyConstraint("doctor_id", name=op.f("pk_doctor_hours")),
    )
    op.create_table(
        "absences",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("doctor_id", sa.Uuid(), nullable=True),
        sa.Column("begins", DateTimeUTC(timezone=True), nullable=False),
        sa.Column("ends", DateTimeUTC(timezone=True), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created_at", DateTimeUTC(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("ends > begins", name=op.f("ck_absences_ends_after_begin")),
        sa.ForeignKeyConstraint(["doctor_id"], ["users.id"], name=op.f("fk_absences_doctor_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_absences")),
    )
    op.create_index("absences_doctor_idx", "absences", ["doctor_id", "begins", "id"])
    op.create_index("absences_begins_idx", "absences", ["begins", "id"])


def downgrade() -> None:
    op.drop_table("absences")
    op.drop_table("doctor_hours")
    op.execute("DROP SEQUENCE doctor_hours_versions")
