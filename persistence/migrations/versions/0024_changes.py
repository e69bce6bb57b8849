"""one trigger for each new row, and changes that came with a dump

Revision: 0024
Follows: 0023
"""

from alembic import op

from persistence.migrations.functions import first_form
from persistence.migrations.locks import limit_locks

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

# Forgets what is older than a day, unless somebody else is just doing that; but nothing behind a transaction
# that is open still, or each cursor that waits for that one would be too old. And whatever lies ahead: nobody
# has committed that here, it came with a dump of another server.
PURGE = """
    CREATE OR REPLACE FUNCTION purge_changes() RETURNS void LANGUAGE sql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
        WITH turn AS MATERIALIZED (SELECT FROM public.change_horizon FOR UPDATE SKIP LOCKED),
        now AS MATERIALIZED (
            SELECT pg_snapshot_xmin(seen)::text::bigint AS oldest,
                   pg_snapshot_xmax(seen)::text::bigint AS next
            FROM pg_current_snapshot() AS seen WHERE EXISTS (SELECT FROM turn)),
        gone AS (
            DELETE FROM public.changes USING now
            WHERE xid >= next OR (at < clock_timestamp() - interval '24 hours' AND xid < oldest)
            RETURNING xid),
        past AS (SELECT max(xid) + 1 AS until FROM gone, now WHERE xid < next)
        UPDATE public.change_horizon
        SET from_xid = greatest(CASE WHEN from_xid > next THEN 0 ELSE from_xid END, until)
        FROM now, past WHERE from_xid > next OR until IS NOT NULL
    $$
"""
# Of each table: how a new row is counted (0008), and who may know of it (changes.sql).
NEW = {
    "patients": (
        "CASE WHEN NEW.user_id IS NULL THEN 'unlinked' ELSE 'linked' END, "
        "NEW.sort_name, '-infinity', NEW.id, 1, 0",
        "'patient', NEW.id, 'create', 7, array_remove(ARRAY[NEW.user_id], NULL), ARRAY[NEW.id], '{}'",
    ),
    "appointments": (
        "NEW.status::text, '', NEW.date, NEW.id, 1, NEW.fee",
        "'appointment', NEW.id, 'create', 5, '{}', ARRAY[NEW.patient_id], ARRAY[NEW.doctor_id]",
    ),
    "medical_records": (
        "'', '', NEW.date, NEW.id, 1, 0",
        "'record', NEW.id, 'create', 3, '{}', ARRAY[NEW.patient_id], '{}'",
    ),
}


def replace_function(table: str, body: str) -> None:
    op.execute(
        f"CREATE OR REPLACE FUNCTION count_new_{table}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER "
        f"SET search_path = pg_catalog, pg_temp AS $$ BEGIN {body}; RETURN NULL; END $$"
    )


def replace_trigger(table: str, old: str, new: str, when: str) -> None:
    op.execute(f"DROP TRIGGER {table}_note_{old} ON {table}")
    op.execute(
        f"CREATE TRIGGER {table}_note_{new} AFTER {when} ON {table} FOR EACH ROW "
        f"EXECUTE FUNCTION note_{table}()"
    )


def note_new_rows(table: str) -> None:
    """The trigger that counts a new row notes it, too, in one statement: the second one cost a booking some
    20 microseconds."""
    counted, noted = NEW[table]
    replace_function(
        table,
        f"WITH counted AS (INSERT INTO public.count_changes VALUES ('{table}', {counted})) "
        "INSERT INTO public.changes AS known (xid, noun, object_id, act, roles, accounts, charts, doctors) "
        f"VALUES (pg_current_xact_id()::text::bigint, {noted}) "
        "ON CONFLICT (xid, noun, object_id) DO UPDATE "
        "SET act = least(known.act, excluded.act), roles = known.roles | excluded.roles, "
        "accounts = known.accounts || excluded.accounts, charts = known.charts || excluded.charts, "
        "doctors = known.doctors || excluded.doctors",
    )
    replace_trigger(table, "came", "gone", "DELETE")


def upgrade() -> None:
    limit_locks()
    op.execute(PURGE)
    for table in NEW:
        note_new_rows(table)


def downgrade() -> None:
    for table, (counted, _) in NEW.items():
        replace_trigger(table, "gone", "came", "INSERT OR DELETE")
        replace_function(table, f"INSERT INTO public.count_changes VALUES ('{table}', {counted})")
    op.execute(first_form("purge_changes"))
