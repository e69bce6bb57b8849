"""counters

Revision: 0008
Follows: 0007
"""

from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

FUNCTIONS = Path(__file__).parents[1] / "counters.sql"
# What is counted: each list, into which kinds its rows fall (an account is of its role and its status), and
# what they amount to; by which column, and then the id, they are in order; what else a row is counted by. In
# the order in which the service writes to them, so that no deadlock is possible.
LISTS = {
    "patients": (
        "CASE WHEN {0}user_id IS NULL THEN 'unlinked' ELSE 'linked' END",
        "0",
        "sort_name",
        ("user_id",),
    ),
    "appointments": ("{0}status::text", "{0}fee", "date", ("status", "fee")),
    "medical_records": ("''", "0", "date", ()),
    "users": ("{0}role::text || ' ' || {0}status::text", "0", "sort_name", ("role", "status")),
}
# The columns `name` and `at` of a change, one of which stands at its least.
PLACES = {"sort_name": "{0}sort_name, '-infinity'", "date": "'', {0}date"}


def create_tables() -> None:
    op.create_table(
        "counts",
        sa.Column("list", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("list", "kind", name=op.f("pk_counts")),
    )
    op.create_table(
        "count_changes",
        sa.Column("list", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "count_marks",
        sa.Column("list", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("list", "name", "at", "id", name=op.f("pk_count_marks")),
    )
    op.create_table(
        "audit_count",
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("until_xid", sa.BigInteger(), nullable=True),
        sa.Column("restored_id", sa.BigInteger(), nullable=False),
        sa.Column("of_table", sa.BigInteger(), nullable=False),
    )


def prepare_tables() -> None:
    op.execute("INSERT INTO audit_count VALUES (0, NULL, 0, 0)")
    # Rows come and go here all the time, and each reader must skip the dead ones that vacuum has not removed.
    op.execute(
        "ALTER TABLE count_changes SET (autovacuum_vacuum_threshold = 1000, "
        "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0)"
    )
    for table in ("counts", "count_marks", "audit_count"):
        op.execute(f"ALTER TABLE {table} SET (fillfactor = 50)")


def recounted() -> str:
    """The view of what there is in truth, one line for each kind of row."""
    lists = {name: (kind.format(""), amount.format("")) for name, (kind, amount, *_) in LISTS.items()}
    lists["audit_events"] = ("''", "0")
    return "CREATE VIEW recounted AS " + " UNION ALL ".join(
        f"SELECT '{name}' AS list, {kind} AS kind, count(*) AS n, "
        f"coalesce(sum({amount}), 0)::bigint AS amount FROM {name} GROUP BY 2"
        for name, (kind, amount) in lists.items()
    )


def change(name: str, row: str, sign: str) -> str:
    kind, amount, by, _ = LISTS[name]
    values = f"'{name}', {kind}, {PLACES[by]}, {{0}}id, {sign}1, {sign}{amount}"
    return f"INSERT INTO public.count_changes VALUES ({values.format(f'{row}.')});"


def count_writes_of(name: str) -> None:
    """Each row that comes, goes, or changes its kind or its place, is noted in `count_changes`: writers
    append, and never meet. With the rights of the owner, so that nobody else needs any to that table."""
    _, _, by, columns = LISTS[name]
    old, new = (", ".join(f"{row}.{column}" for column in ("id", by, *columns)) for row in ("OLD", "NEW"))
    gone, came = change(name, "OLD", "-"), change(name, "NEW", "+")
    for what, body, when in (
        ("new", came, f"INSERT ON {name} FOR EACH ROW"),
        ("gone", gone, f"DELETE ON {name} FOR EACH ROW"),
        ("changed", gone + came, f"UPDATE ON {name} FOR EACH ROW WHEN (({old}) IS DISTINCT FROM ({new}))"),
    ):
        op.execute(
            f"CREATE FUNCTION count_{what}_{name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER "
            f"SET search_path = pg_catalog, pg_temp AS $$ BEGIN {body} RETURN NULL; END $$"
        )
        op.execute(f"CREATE TRIGGER {name}_count_{what} AFTER {when} EXECUTE FUNCTION count_{what}_{name}()")
    op.execute(f"CREATE TRIGGER {name}_count_none BEFORE TRUNCATE ON {name} EXECUTE FUNCTION forget_count()")


def upgrade() -> None:
    """Each list is counted later, by `fold_counts`: at once here, nobody could write meanwhile."""
    create_tables()
    prepare_tables()
    op.execute(recounted())
    for statement in FUNCTIONS.read_text("utf-8").split(";\n\n"):
        op.execute(statement)
    for name in LISTS:
        count_writes_of(name)
    # A role that may call a trigger's function could run it on a table of its own, and note anything.
    triggered = [f"count_{what}_{name}" for name in LISTS for what in ("new", "gone", "changed")]
    owners = ", ".join(["fold_counts", "forget_count", "forget_audit_count", *triggered])
    op.execute(f"REVOKE EXECUTE ON FUNCTION {owners} FROM PUBLIC")
    op.execute(
        "CREATE TRIGGER audit_events_count_none BEFORE DELETE OR TRUNCATE OR UPDATE OF id, xid "
        "ON audit_events EXECUTE FUNCTION forget_audit_count()"
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER audit_events_count_none ON audit_events")
    for name in LISTS:
        op.execute(f"DROP TRIGGER {name}_count_none ON {name}")
        for what in ("new", "gone", "changed"):
            op.execute(f"DROP TRIGGER {name}_count_{what} ON {name}")
            op.execute(f"DROP FUNCTION count_{what}_{name}()")
    for function in (
        "fold_counts",
        "split_count_mark",
        "count_events",
        "count_list",
        "forget_audit_count",
        "forget_count",
        "mark_before",
        "counted_rows",
    ):
        op.execute(f"DROP FUNCTION {function}")
    for view in ("counted", "audit_past", "counted_lists", "recounted"):
        op.execute(f"DROP VIEW {view}")
    for table in ("audit_count", "count_marks", "count_changes", "counts"):
        op.drop_table(table)
