"""list indexes

Revision: 0020
Follows: 0019
"""

from alembic import op

from persistence.migrations.locks import limit_locks

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

INDEXES = {
    "patients_created_idx": "patients (created_at, id)",
    "appointments_created_idx": "appointments (created_at, id)",
    "medical_records_author_idx": "medical_records (doctor_id, date DESC, id DESC)",
}


def upgrade() -> None:
    limit_locks()
    with op.get_context().autocommit_block():
        for name, what in INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")  # half of one, perhaps
            op.execute(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {what}")


def downgrade() -> None:
    for name in INDEXES:
        op.drop_index(name)
