"""single statements

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
    # A booking waits and looks in one statement. What was booked while it waited, the snapshot of that
    # statement does not hold; a function that is VOLATILE takes its own. No visit lasts longer than a day:
    # that bound is for the index, which knows nothing of `ends_at`. One plan for all times: for a day of
    # which PostgreSQL has no statistics yet it would read everybody's bookings.
    op.execute(
        """
        CREATE FUNCTION booked_meanwhile(
            doctor uuid, patient uuid, begins timestamptz, ends timestamptz, itself uuid
        ) RETURNS text LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_generic_plan AS $$
        BEGIN
            RETURN (
                SELECT CASE WHEN doctor_id = doctor THEN 'doctor' ELSE 'patient' END
                FROM appointments
                WHERE (doctor_id = doctor OR patient_id = patient) AND status = 'scheduled'
                  AND date < ends AND ends_at > begins AND date > begins - interval '1 day'
                  AND id IS DISTINCT FROM itself
                LIMIT 1
            );
        END
        $$
        """
    )


def downgrade() -> None:
    op.execute("DROP FUNCTION booked_meanwhile(uuid, uuid, timestamptz, timestamptz, uuid)")
    op.execute("DROP FUNCTION refuse_ended_session()")
