"""backup proofs

Revision: 0012
Follows: 0011
"""

import sqlalchemy as sa
from advanced_alchemy.types import DateTimeUTC
from alembic import op

from persistence.migrations.locks import limit_locks

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    limit_locks()
    op.create_table(
        "backup_proofs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("proven_at", DateTimeUTC(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("holds_until", DateTimeUTC(timezone=True), nullable=False),
        sa.Column("rpo_seconds", sa.Double(), nullable=False),
        sa.Column("rto_seconds", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_backup_proofs")),
    )


def downgrade() -> None:
    op.drop_table("backup_proofs")
