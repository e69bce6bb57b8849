"""duplicates

Revision: 0016
Follows: 0015

The new column is filled by `medisecure migrate`, after this, and by whoever writes a chart.
"""

from alembic import op

from persistence.migrations.locks import limit_locks

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

INDEXES = {
    "patients_birth_idx": "(date_of_birth)",
    "patients_latin_trigrams_idx": "USING gin (latin_trigrams) WITH (fastupdate = off)",
}


def upgrade() -> None:
    limit_locks()
    op.execute("ALTER TABLE patients ADD COLUMN IF NOT EXISTS latin_trigrams integer[]")
    with op.get_context().autocommit_block():
        for name, what in INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")  # half of one, perhaps
            op.execute(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON patients {what}")


def downgrade() -> None:
    for name in INDEXES:
        op.drop_index(name, table_name="patients")
    op.drop_column("patients", "latin_trigrams")
