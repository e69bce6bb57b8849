"""What the database's role of the service may do (`medisecure migrate --grant-to`): what requests need, and
nothing that changes the audit trail, the counters or the schema."""

from sqlalchemy import text

from persistence.change_tables import change_horizon, changes
from persistence.history_tables import AppointmentChange, PatientChange
from persistence.merge_tables import PatientMerge
from persistence.models import AuditEvent
from persistence.postgres.database import Transaction
from persistence.postgres.statements import NOTHING, Nothing, Statement
from persistence.record_tables import RecordRetraction, RecordVersion

FUNCTIONS = (
    "next_audit_seal",
    "append_audit_seal",
    "within_ten_minutes",
    "began_of_ten_minutes",
    "counted_rows",
    "mark_before",
    "fold_counts",
    "refuse_ended_session",
    "booked_meanwhile",
    "look_before_booking",
    "merge_charts",
    "unmerge_charts",
    "purge_changes",
)
# Written by triggers, by purge_changes and by fold_counts, which run with their owner's rights.
CHANGES = (changes.name, change_horizon.name)
COUNTERS = ("counts", "count_changes", "count_marks", "counted_lists", "audit_count", "audit_past")
# PostgreSQL itself sets the number of a row, and the transaction of an event. Triggers say which version of a
# record is the original, and what else of it is kept with its retraction.
APPENDED = {
    model.__tablename__: [column.name for column in model.__table__.columns if column.name not in not_ours]
    for model, not_ours in (
        (AuditEvent, {"id", "xid"}),
        (PatientChange, {"id"}),
        (AppointmentChange, {"id"}),
        (RecordVersion, {"id", "is_original"}),
        (PatientMerge, {"id"}),
        (RecordRetraction, {"patient_id", "stored_patient_id", "doctor_id", "date", "created_at"}),
    )
}


async def grant_to(transaction: Transaction, role: str) -> None:
    """Let `role` do what the service needs. Of the audit trail and the history it may only add rows, append
    seals by the function for that, and read; of the counters, read."""
    quoted = '"' + role.replace('"', '""') + '"'
    for statement in (
        f"GRANT USAGE ON SCHEMA public TO {quoted}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {quoted}",
        f"REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON audit_seals, {', '.join(APPENDED)} FROM {quoted}",
        *(
            f"GRANT INSERT ({', '.join(columns)}) ON {table} TO {quoted}"
            for table, columns in APPENDED.items()
        ),
        f"REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON {', '.join([*COUNTERS, *CHANGES])} FROM {quoted}",
        f"GRANT EXECUTE ON FUNCTION {', '.join(FUNCTIONS)} TO {quoted}",
        f"REVOKE UPDATE, DELETE, TRUNCATE ON medical_records FROM {quoted}",  # triggers change them
        f"REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON merged_patients FROM {quoted}",  # functions write it
        f"REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON alembic_version, backup_proofs FROM {quoted}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {quoted}",
    ):
        await transaction.run(Statement(Nothing, text(statement)), NOTHING)
