"""changes: what leaves a chart, a doctor's hours, and no name that nobody sees

Revision: 0025
Follows: 0024
"""

from alembic import op

from persistence.migrations.locks import limit_locks

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

# Of what leaves a chart the account is told that is linked to it: it may be linked no more when it asks.
LOSERS = """
    CASE WHEN TG_OP = 'DELETE' OR OLD.patient_id <> NEW.patient_id THEN ARRAY(
        SELECT user_id FROM public.patients
        WHERE patients.id IN (OLD.patient_id, NEW.patient_id) AND user_id IS NOT NULL) ELSE '{}' END"""
ACT = "CASE TG_OP WHEN 'INSERT' THEN 'create' ELSE 'update' END"
CHARTS = "charts => ARRAY[OLD.patient_id, NEW.patient_id]"
DOCTORS = "doctors => ARRAY[OLD.doctor_id, NEW.doctor_id]"
# Administrators see every account, staff those of patients, everybody the active doctors and their own. The
# name of a doctor who has left, or is something else by now, is in appointments and records still.
USERS = """
    PERFORM public.note_change(
        'user', coalesce(NEW.id, OLD.id), CASE TG_OP WHEN 'INSERT' THEN 'create' ELSE 'update' END,
        CASE WHEN 'doctor active' IN (OLD.role || ' ' || OLD.status, NEW.role || ' ' || NEW.status) THEN 15
             WHEN OLD.name <> NEW.name AND {knows} THEN 15
             WHEN 'patient' IN (OLD.role::text, NEW.role::text) THEN 5
             ELSE 1
        END,
        accounts => ARRAY[coalesce(NEW.id, OLD.id)]);"""
IS_NAMED = """(
                 EXISTS (SELECT FROM public.appointments WHERE doctor_id = OLD.id)
                 OR EXISTS (SELECT FROM public.medical_records WHERE doctor_id = OLD.id))"""
# Only active doctors have hours that can be changed, and whoever books asks for free times again.
HOURS = """
    PERFORM public.note_change('user', coalesce(NEW.doctor_id, OLD.doctor_id), 'update', 15);"""


def appointments(accounts: str) -> str:
    return f"""
    PERFORM public.note_change(
        'appointment', coalesce(NEW.id, OLD.id), {ACT}, 5, {accounts}{CHARTS}, {DOCTORS});"""


def medical_records(accounts: str) -> str:
    """Staff see no record. One that goes was retracted."""
    return f"""
    PERFORM public.note_change('record', coalesce(NEW.id, OLD.id), {ACT}, 3, {accounts}{CHARTS});"""


def replace_function(table: str, body: str) -> None:
    op.execute(
        f"CREATE OR REPLACE FUNCTION note_{table}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER "
        f"SET search_path = pg_catalog, pg_temp AS $$ BEGIN {body} RETURN NULL; END $$"
    )


def upgrade() -> None:
    limit_locks()
    # Its callers have set it; to set it again costs each write some microseconds.
    op.execute("ALTER FUNCTION note_change RESET search_path")
    replace_function("appointments", appointments(f"accounts => {LOSERS}, "))
    replace_function("medical_records", medical_records(f"accounts => {LOSERS}, "))
    replace_function("users", USERS.format(knows=IS_NAMED))
    replace_function("doctor_hours", HOURS)
    op.execute("REVOKE EXECUTE ON FUNCTION note_doctor_hours() FROM PUBLIC")
    for name, when in (
        ("came", "INSERT OR DELETE ON doctor_hours FOR EACH ROW"),
        ("changed", "UPDATE ON doctor_hours FOR EACH ROW WHEN (OLD.hours IS DISTINCT FROM NEW.hours)"),
    ):
        op.execute(
            f"CREATE TRIGGER doctor_hours_note_{name} AFTER {when} EXECUTE FUNCTION note_doctor_hours()"
        )


def downgrade() -> None:
    for name in ("came", "changed"):
        op.execute(f"DROP TRIGGER doctor_hours_note_{name} ON doctor_hours")
    op.execute("DROP FUNCTION note_doctor_hours()")
    replace_function(
        "users", USERS.format(knows=f"('doctor' IN (OLD.role::text, NEW.role::text) OR {IS_NAMED})")
    )
    replace_function("medical_records", medical_records(""))
    replace_function("appointments", appointments(""))
    op.execute("ALTER FUNCTION note_change SET search_path = pg_catalog, pg_temp")
