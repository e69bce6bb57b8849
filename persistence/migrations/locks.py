"""Locks of migrations, while the clinic works on."""

from alembic import op
from sqlalchemy.exc import DBAPIError

LOCK_SECONDS = 1  # to wait for a lock; whoever comes after a statement that waits, waits too
STATEMENT_SECONDS = 5  # for one statement, whose lock others wait for
LOCK_NOT_AVAILABLE = "55P03"  # SQLSTATE


def limit_locks() -> None:
    """To be called first in each `upgrade`. Until its end, or until an `autocommit_block`, no statement waits
    or runs for long. The migration is undone and run again where a lock was not free. What takes longer, such
    as an index, stands in an `autocommit_block`, without a limit."""
    op.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
    op.execute(f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'")


def is_lock_refused(error: DBAPIError) -> bool:
    """Whether a statement gave up waiting for a lock."""
    return getattr(error.orig, "sqlstate", None) == LOCK_NOT_AVAILABLE
