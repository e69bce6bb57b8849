"""changes

Revision: 0019
Follows: 0018

What instances of the release before write is told of as well: triggers note it.
"""

from pathlib import Path

import sqlalchemy as sa
from advanced_alchemy.types import DateTimeUTC
from alembic import op
from sqlalchemy.dialects import postgresql

from persistence.migrations.locks import limit_locks

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

SQL = Path(__file__).parents[1] / "changes.sql"
# Of each table, the columns that an answer shows: no other update is told of. `merge_count` stands for what
# the history of a chart shows of merges.
SHOWN = {
    "patients": (
        "user_id",
        "name",
        "email",
        "phone",
        "date_of_birth",
        "gender",
        "address",
        "blood_type",
        "allergies",
        "medical_history",
        "merge_count",
    ),
    "appointments": ("patient_id", "doctor_id", "date", "status", "reason", "notes"),
    "medical_records": (
        "patient_id",
        "doctor_id",
        "date",
        "diagnosis",
        "prescription",
        "notes",
        "attachments",
    ),
    "users": ("email", "name", "role", "phone", "specialization", "department", "status"),
    "absences": ("doctor_id", "begins", "ends", "reason"),
}
# Of what is only added. A version may have the same text as the one before; what is said of a visit changes
# nothing of the appointment itself.
ADDED = {
    "record_versions": "NOT NEW.is_original",
    "appointment_changes": "NEW.field NOT IN ('date', 'status', 'notes')",
}
FUNCTIONS = {table: f"note_{table}" for table in (*SHOWN, *ADDED)}


def create_tables() -> None:
    op.create_table(
        "changes",
        sa.Column("xid", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("noun", sa.Text(collation="C"), nullable=False),
        sa.Column("object_id", sa.Uuid(), nullable=False),
        sa.Column("act", sa.Text(), nullable=False),
        sa.Column("roles", sa.Integer(), nullable=False),
        sa.Column("accounts", postgresql.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("charts", postgresql.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("doctors", postgresql.ARRAY(sa.Uuid()), nullable=False),
        sa.Column(
            "at", DateTimeUTC(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("xid", "noun", "object_id", name=op.f("pk_changes")),
    )
    op.create_table("change_horizon", sa.Column("from_xid", sa.BigInteger(), nullable=False))
    op.execute("INSERT INTO change_horizon VALUES (0)")


def create_triggers() -> None:
    for table, columns in SHOWN.items():
        old, new = (", ".join(f"{row}.{column}" for column in columns) for row in ("OLD", "NEW"))
        for name, when in (
            ("came", f"INSERT OR DELETE ON {table} FOR EACH ROW"),
            ("changed", f"UPDATE ON {table} FOR EACH ROW WHEN (({old}) IS DISTINCT FROM ({new}))"),
        ):
            op.execute(
                f"CREATE TRIGGER {table}_note_{name} AFTER {when} EXECUTE FUNCTION {FUNCTIONS[table]}()"
            )
    for table, condition in ADDED.items():
        op.execute(
            f"CREATE TRIGGER {table}_note AFTER INSERT ON {table} FOR EACH ROW WHEN ({condition}) "
            f"EXECUTE FUNCTION {FUNCTIONS[table]}()"
        )


def upgrade() -> None:
    limit_locks()
    create_tables()
    for statement in SQL.read_text("utf-8").split(";\n\n"):
        op.execute(statement)
    # A role that may call a trigger's function could run it on a table of its own, and note anything.
    owners = ", ".join(["note_change", "purge_changes", *FUNCTIONS.values()])
    op.execute(f"REVOKE EXECUTE ON FUNCTION {owners} FROM PUBLIC")
    create_triggers()


def downgrade() -> None:
    for table in ADDED:
        op.execute(f"DROP TRIGGER {table}_note ON {table}")
    for table in SHOWN:
        for name in ("came", "changed"):
            op.execute(f"DROP TRIGGER {table}_note_{name} ON {table}")
    for function in FUNCTIONS.values():
        op.execute(f"DROP FUNCTION {function}()")
    op.execute("DROP FUNCTION purge_changes()")
    op.execute("DROP FUNCTION note_change(text, uuid, text, integer, uuid[], uuid[], uuid[])")
    op.drop_table("change_horizon")
    op.drop_table("changes")
