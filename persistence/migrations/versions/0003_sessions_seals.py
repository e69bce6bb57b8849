"""sessions, seals

Revision: 0003
Follows: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("sessions_user_idx", table_name="sessions")
    op.drop_index("ix_sessions_expires_at", table_name="sessions")
    op.create_index("sessions_user_idx", "sessions", ["user_id", "expires_at"], unique=False)
    op.add_column(
        "audit_seals", sa.Column("after_id", sa.BigInteger(), server_default=sa.text("0"), nullable=False)
    )
    # A newest seal with which a restored trail went on, if a downgrade has forgotten after which event.
    op.execute(
        "UPDATE audit_seals SET after_id = "
        "(SELECT coalesce(max(id), 0) FROM (SELECT unnest(event_ids) AS id FROM audit_seals) AS sealed) "
        "WHERE until_xid = 0 AND number = (SELECT max(number) FROM audit_seals)"
    )


def downgrade() -> None:
    op.drop_column("audit_seals", "after_id")
    op.drop_index("sessions_user_idx", table_name="sessions")
    op.create_index("ix_sessions_expires_at", "sessions", ["expires_at"], unique=False)
    op.create_index(
        "sessions_user_idx",
        "sessions",
        ["user_id"],
        unique=False,
        postgresql_where=sa.text("ended_at IS NULL"),
    )
