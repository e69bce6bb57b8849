"""merges

Revision: 0017
Follows: 0016

To instances of the release before, a merged chart is not there, and what was its is the survivor's. They can
neither merge nor undo it.
"""

from pathlib import Path

import sqlalchemy as sa
from advanced_alchemy.types import DateTimeUTC
from alembic import op
from sqlalchemy.dialects import postgresql

from persistence.migrations.locks import limit_locks

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

FUNCTIONS = Path(__file__).parents[1] / "merges.sql"
# What this migration adds to the function retract_record of 0013.
ADDED = "    NEW.stored_patient_id := stored.stored_patient_id;\n"
GENDER = postgresql.ENUM("male", "female", "other", name="gender", create_type=False)
MOVED = ("appointments", "medical_records", "record_retractions")


def create_tables() -> None:
    op.create_table(
        "merged_patients",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("survivor_id", sa.Uuid(), nullable=False),
        sa.Column("merged_at", DateTimeUTC(timezone=True), nullable=False),
        sa.Column("moved_account", sa.Uuid(), nullable=True),
        sa.Column("ever_linked", sa.Boolean(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("phone", sa.Text(), nullable=False),
        sa.Column("date_of_birth", sa.Date(), nullable=False),
        sa.Column("gender", GENDER, nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("blood_type", sa.Text(), nullable=True),
        sa.Column("allergies", sa.Text(), nullable=True),
        sa.Column("medical_history", sa.Text(), nullable=True),
        sa.Column("sort_name", sa.Text(collation="C"), nullable=False),
        sa.Column("search_text", sa.Text(collation="C"), nullable=False),
        sa.Column("merge_count", sa.Integer(), nullable=False),
        sa.Column("latin_trigrams", postgresql.ARRAY(sa.Integer()), nullable=True),
        sa.Column("created_at", DateTimeUTC(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_merged_patients")),
    )
    op.create_index("merged_patients_survivor_idx", "merged_patients", ["survivor_id"])


def create_log() -> None:
    op.create_table(
        "patient_merges",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", DateTimeUTC(timezone=True), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Uuid(), nullable=False),
        sa.Column("is_undone", sa.Boolean(), nullable=False),
        sa.Column("survivor_id", sa.Uuid(), nullable=False),
        sa.Column("merged_id", sa.Uuid(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_patient_merges")),
    )
    for index, column in (("request", "request_id"), ("survivor", "survivor_id"), ("merged", "merged_id")):
        op.create_index(f"patient_merges_{index}_idx", "patient_merges", [column])


def statements() -> list[str]:
    return FUNCTIONS.read_text("utf-8").split(";\n\n")


def upgrade() -> None:
    limit_locks()
    create_tables()
    create_log()
    for table in MOVED:
        op.add_column(table, sa.Column("stored_patient_id", sa.Uuid(), nullable=True))
    op.add_column("patients", sa.Column("merge_count", sa.Integer(), server_default="0", nullable=False))
    for statement in statements():
        op.execute(statement)
    op.execute("REVOKE EXECUTE ON FUNCTION merge_charts, unmerge_charts, retract_record FROM PUBLIC")


def downgrade() -> None:
    """Refused while charts are merged: they would be lost."""
    op.execute(
        "DO $$ BEGIN IF EXISTS (SELECT FROM merged_patients) THEN RAISE 'undo the merges of charts first'; "
        "END IF; END $$"
    )
    op.drop_column("patients", "merge_count")
    *_, retract_record = statements()
    op.execute(retract_record.replace(ADDED, ""))
    op.execute("DROP FUNCTION unmerge_charts(uuid, uuid)")
    op.execute("DROP FUNCTION merge_charts(uuid, uuid)")
    for table in MOVED:
        op.drop_column(table, "stored_patient_id")
    op.drop_table("patient_merges")
    op.drop_table("merged_patients")
