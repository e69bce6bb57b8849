"""accesses

Revision: 0006
Follows: 0005
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # As a window function over instants in order: when the ten minutes began that each belongs to. An instant
    # beyond them begins the next ten. No window function of PostgreSQL's own looks at what it said before.
    op.execute(
        """
        CREATE FUNCTION within_ten_minutes(began timestamptz, at timestamptz) RETURNS timestamptz
        LANGUAGE sql STABLE STRICT PARALLEL SAFE
        AS $$ SELECT CASE WHEN at <= began + interval '10 minutes' THEN began ELSE at END $$
        """
    )
    op.execute(
        "CREATE AGGREGATE began_of_ten_minutes(timestamptz) (SFUNC = within_ten_minutes, STYPE = timestamptz)"
    )


def downgrade() -> None:
    op.execute("DROP AGGREGATE began_of_ten_minutes(timestamptz)")
    op.execute("DROP FUNCTION within_ten_minutes")
