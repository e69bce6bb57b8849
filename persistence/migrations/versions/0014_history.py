"""history

Revision: 0014
Follows: 0013
"""

import sqlalchemy as sa
from advanced_alchemy.types import DateTimeUTC
from alembic import op

from persistence.migrations.locks import limit_locks

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    limit_locks()
    create_changes("patient_changes", "patient_id", "patient_changes_patient_idx")
    create_changes("appointment_changes", "appointment_id", "appointment_changes_appointment_idx")
    # A length, and no constraint, for which PostgreSQL would read the whole trail. To allow more later takes
    # no time either.
    op.execute(
        "-- squawk-ignore prefer-text-field\nALTER TABLE audit_events ADD COLUMN content varchar(4000)"
    )


def create_changes(table: str, of: str, index: str) -> None:
    op.create_table(
        table,
        sa.Column(of, sa.Uuid(), nullable=False),
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", DateTimeUTC(timezone=True), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("role", sa.Text(), nullable=True),
        sa.Column("request_id", sa.Uuid(), nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("before", sa.Text(), nullable=True),
        sa.Column("after", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
    )
    op.create_index(index, table, [of, "id"])
    op.create_index(f"{table}_request_idx", table, ["request_id"])


def downgrade() -> None:
    op.drop_column("audit_events", "content")
    op.drop_table("appointment_changes")
    op.drop_table("patient_changes")
