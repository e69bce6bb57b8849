"""search keys

Revision: 0010
Follows: 0009

While instances of the release before work on: nothing here holds a lock that they would wait for, but for the
moment that a column or a trigger takes. Stopped half-way it can be run again.
"""

import time

from alembic import op
from sqlalchemy.exc import DBAPIError

from persistence.migrations.refolding import SEARCHED, refold

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TABLES = ("patients", "users")
LOCK_NOT_AVAILABLE = "55P03"  # SQLSTATE
# persistence/postgres/folding.py numbers trigrams in the same way. No writer of search_text can forget them,
# neither an older release nor somebody with psql.
KEEP_TRIGRAMS = """
CREATE OR REPLACE FUNCTION keep_trigrams() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    blank CONSTANT integer := 32;
    letter text;
    a integer := blank;
    b integer := blank;
    c integer;
    found integer[] := '{}';
BEGIN
    FOREACH letter IN ARRAY string_to_array(NEW.search_text, NULL) LOOP
        c := ascii(letter);
        IF a <> blank AND b <> blank AND c <> blank THEN
            found := found || ((a << 20) # (b << 10) # c);
        END IF;
        a := b;
        b := c;
    END LOOP;
    NEW.trigrams := found;
    RETURN NEW;
END
$$
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute(KEEP_TRIGRAMS)
        for table in TABLES:
            at_once(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS trigrams integer[]")
            at_once(
                f"CREATE OR REPLACE TRIGGER {table}_trigrams BEFORE INSERT OR UPDATE OF search_text "
                f"ON {table} FOR EACH ROW EXECUTE FUNCTION keep_trigrams()"
            )
            # A search asks which are common; ten times as many as this are remembered.
            at_once(f"ALTER TABLE {table} ALTER trigrams SET STATISTICS 10")
        refold(op.get_bind(), SEARCHED)
        for table in TABLES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {table}_trigrams_idx")  # half of one, perhaps
            op.execute(
                f"CREATE INDEX CONCURRENTLY {table}_trigrams_idx ON {table} USING gin (trigrams) "
                "WITH (fastupdate = off)"
            )
            op.execute(f"VACUUM (ANALYZE) {table}")


def at_once(statement: str) -> None:
    """Run what needs the table to itself for a moment. Statements that come after one which waits for a lock
    wait too, so this one does not wait for long, but tries again. All in one statement: behind a pooler, a
    setting of the session would be another client's."""
    while True:
        try:
            op.execute(f"DO $do$ BEGIN SET LOCAL lock_timeout = '1s'; {statement}; END $do$")
            break
        except DBAPIError as error:  # pragma: no cover  # only where a long transaction holds the table
            if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
                raise
            time.sleep(1)


def downgrade() -> None:
    for table in TABLES:
        op.execute(f"DROP TRIGGER {table}_trigrams ON {table}")
        op.drop_index(f"{table}_trigrams_idx", table_name=table)
        op.drop_column(table, "trigrams")
    op.execute("DROP FUNCTION keep_trigrams()")
