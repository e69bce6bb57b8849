"""normal emails

Revision: 0007
Follows: 0006
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # One account for each e-mail, however its accents are written. Of several that become the same, one that
    # is NFC already, or else the oldest, keeps it; the others stay as they are, and cannot sign in.
    op.execute(
        """
        UPDATE users SET email = first.nfc
        FROM (
            SELECT DISTINCT ON (normalize(email, NFC)) id, normalize(email, NFC) AS nfc
            FROM users WHERE email IS NOT NFC NORMALIZED
            ORDER BY normalize(email, NFC), created_at, id
        ) AS first
        WHERE first.id = users.id AND NOT EXISTS (SELECT FROM users AS other WHERE other.email = first.nfc)
        """
    )
    op.execute(
        r"UPDATE patients SET email = btrim(email, E' \t\r\n') WHERE email <> btrim(email, E' \t\r\n')"
    )


def downgrade() -> None:
    """What was stored before is as good to the older code."""
