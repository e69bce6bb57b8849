"""changes: what leaves a chart, a doctor's hours, and no name that nobody sees

Revision: 0025
Follows: 0024
"""

from alembic import op

from persistence.migrations.functions import first_form
from persistence.migrations.locks import limit_locks

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

ACT = "CASE TG_OP WHEN 'INSERT' THEN 'create' ELSE 'update' END"
# Of what leaves a chart the account is told that is linked to it: it may be linked no more when it asks.
OF_CHART = """
    accounts => CASE WHEN TG_OP = 'DELETE' OR OLD.patient_id <> NEW.patient_id THEN ARRAY(
        SELECT user_id FROM public.patients
        WHERE patients.id IN (OLD.patient_id, NEW.patient_id) AND user_id IS NOT NULL) ELSE '{}' END,
    charts => ARRAY[OLD.patient_id, NEW.patient_id]"""
BODIES = {
    "appointments": f"""
    PERFORM public.note_change(
        'appointment', coalesce(NEW.id, OLD.id), {ACT}, 5, {OF_CHART},
        doctors => ARRAY[OLD.doctor_id, NEW.doctor_id]);""",
    # Staff see no record. One that goes was retracted.
    "medical_records": f"""
    PERFORM public.note_change('record', coalesce(NEW.id, OLD.id), {ACT}, 3, {OF_CHART});""",
    # Administrators see every account, staff those of patients, everybody the active doctors and their own.
    # The name of a doctor who has left, or is something else by now, is in appointments and records still.
    "users": f"""
    PERFORM public.note_change(
        'user', coalesce(NEW.id, OLD.id), {ACT},
        CASE WHEN 'doctor active' IN (OLD.role || ' ' || OLD.status, NEW.role || ' ' || NEW.status) THEN 15
             WHEN OLD.name <> NEW.name AND (
                 EXISTS (SELECT FROM public.appointments WHERE doctor_id = OLD.id)
                 OR EXISTS (SELECT FROM public.medical_records WHERE doctor_id = OLD.id)) THEN 15
             WHEN 'patient' IN (OLD.role::text, NEW.role::text) THEN 5
             ELSE 1
        END,
        accounts => ARRAY[coalesce(NEW.id, OLD.id)]);""",
    # Only active doctors have hours that can be changed, and whoever books asks for free times again.
    "doctor_hours": """
    PERFORM public.note_change('user', coalesce(NEW.doctor_id, OLD.doctor_id), 'update', 15);""",
}


def replace_function(table: str, body: str) -> None:
    op.execute(
        f"CREATE OR REPLACE FUNCTION note_{table}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER "
        f"SET search_path = pg_catalog, pg_temp AS $$ BEGIN {body} RETURN NULL; END $$"
    )


def upgrade() -> None:
    limit_locks()
    # Its callers have set it; to set it again costs each write some microseconds.
    op.execute("ALTER FUNCTION note_change RESET search_path")
    for table, body in BODIES.items():
        replace_function(table, body)
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
    for table in ("appointments", "medical_records", "users"):
        op.execute(first_form(f"note_{table}"))
    op.execute("ALTER FUNCTION note_change SET search_path = pg_catalog, pg_temp")
