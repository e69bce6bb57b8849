"""a doctor's appointments in any order, and by their status

Revision: 0023
Follows: 0022
"""

from alembic import op

from persistence.migrations.locks import limit_locks

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

NAME, MADE = "appointments_doctor_idx", "appointments_doctor_idx_made"
COLUMNS = "(doctor_id, date, id)"


def replace_index(columns: str) -> None:
    """The old one serves until the new one is whole."""
    with op.get_context().autocommit_block():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {MADE}")  # half of one, perhaps
        op.execute(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {MADE} ON appointments {columns}")
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {NAME}")
        # No statement of any release names an index.
        op.execute(f"-- squawk-ignore renaming-object\nALTER INDEX IF EXISTS {MADE} RENAME TO {NAME}")


def upgrade() -> None:
    limit_locks()
    replace_index(f"{COLUMNS} INCLUDE (created_at, patient_id, status)")


def downgrade() -> None:
    limit_locks()
    replace_index(COLUMNS)
