"""ended session

Revision: 0009
Follows: 0008
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A write looks at its caller's session in the same statement; only an error undoes that statement.
    op.execute(
        """
        CREATE FUNCTION refuse_ended_session() RETURNS boolean LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'the session has ended' USING ERRCODE = 'MS401';
        END
        $$
        """
    )


def downgrade() -> None:
    op.execute("DROP FUNCTION refuse_ended_session()")
