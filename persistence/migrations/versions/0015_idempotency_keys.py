"""idempotency keys

Revision: 0015
Follows: 0014
"""

import sqlalchemy as sa
from advanced_alchemy.types import DateTimeUTC
from alembic import op

from persistence.migrations.locks import limit_locks

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    limit_locks()
    op.create_table(
        "idempotency_keys",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("row_id", sa.Uuid(), nullable=False),
        sa.Column(
            "claimed_at",
            DateTimeUTC(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("user_id", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index("idempotency_keys_claimed_idx", "idempotency_keys", ["claimed_at"])


def downgrade() -> None:
    op.drop_table("idempotency_keys")
