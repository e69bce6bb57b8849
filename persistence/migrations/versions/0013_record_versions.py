"""record versions

Revision: 0013
Follows: 0012

Instances of the release before write records as ever; they name no author, whose name of today stands in then
(`keep_original`).
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from persistence.migrations.locks import limit_locks

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# With the rights of the owner, because the service's role may not change a record, nor write an original.
AS_OWNER = "LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp"
NO_RECORD = "RAISE EXCEPTION 'there is no such record' USING ERRCODE = 'foreign_key_violation'"
KEEP_ORIGINAL = """
CREATE FUNCTION keep_original(record public.medical_records, request uuid) RETURNS void LANGUAGE sql
SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO public.record_versions (record_id, is_original, at, user_id, name, role, diagnosis,
                                        prescription, notes, attachments, request_id)
    SELECT record.id, true, record.date, record.doctor_id, coalesce(record.author_name, author.name),
           'doctor', record.diagnosis, record.prescription, coalesce(record.notes, ''),
           coalesce(record.attachments, '[]'), request
    FROM public.users AS author
    WHERE author.id = record.doctor_id
      AND NOT EXISTS (SELECT FROM public.record_versions AS version WHERE version.record_id = record.id)
$$
"""
AMEND = f"""
CREATE FUNCTION amend_record() RETURNS trigger {AS_OWNER} AS $$
DECLARE
    stored public.medical_records;
BEGIN
    SELECT * INTO stored FROM public.medical_records WHERE id = NEW.record_id FOR UPDATE;
    IF NOT FOUND THEN
        {NO_RECORD};
    END IF;
    PERFORM public.keep_original(stored, NEW.request_id);
    UPDATE public.medical_records
    SET diagnosis = NEW.diagnosis, prescription = NEW.prescription, notes = NEW.notes,
        attachments = NEW.attachments
    WHERE id = NEW.record_id;
    RETURN NEW;
END
$$
"""
RETRACT = f"""
CREATE FUNCTION retract_record() RETURNS trigger {AS_OWNER} AS $$
DECLARE
    stored public.medical_records;
BEGIN
    SELECT * INTO stored FROM public.medical_records WHERE id = NEW.record_id FOR UPDATE;
    IF NOT FOUND THEN
        {NO_RECORD};
    END IF;
    PERFORM public.keep_original(stored, NEW.request_id);
    NEW.patient_id := stored.patient_id;
    NEW.doctor_id := stored.doctor_id;
    NEW.date := stored.date;
    NEW.created_at := stored.created_at;
    DELETE FROM public.medical_records WHERE id = NEW.record_id;
    RETURN NEW;
END
$$
"""


def act() -> list[sa.Column[object]]:
    """Who did it, when and for which request."""
    return [
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Uuid(), nullable=False),
    ]


def create_tables() -> None:
    op.create_table(
        "record_versions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("record_id", sa.Uuid(), nullable=False),
        sa.Column("is_original", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        *act(),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("diagnosis", sa.Text(), nullable=False),
        sa.Column("prescription", sa.Text(), nullable=False),
        sa.Column("notes", sa.Text(), nullable=False),
        sa.Column("attachments", JSONB(), nullable=False),
        sa.CheckConstraint(
            "is_original = (reason IS NULL)", name=op.f("ck_record_versions_amended_for_a_reason")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_record_versions")),
    )
    op.create_index("record_versions_record_idx", "record_versions", ["record_id", "id"])
    op.create_index("record_versions_request_idx", "record_versions", ["request_id"])
    op.create_index(
        "record_versions_original_idx",
        "record_versions",
        ["record_id"],
        unique=True,
        postgresql_where=sa.text("is_original"),
    )
    op.create_table(
        "record_retractions",
        sa.Column("record_id", sa.Uuid(), nullable=False),
        *act(),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("patient_id", sa.Uuid(), nullable=False),
        sa.Column("doctor_id", sa.Uuid(), nullable=False),
        sa.Column("date", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("record_id", name=op.f("pk_record_retractions")),
    )
    op.create_index("record_retractions_request_idx", "record_retractions", ["request_id"])


def upgrade() -> None:
    limit_locks()
    create_tables()
    op.add_column("medical_records", sa.Column("author_name", sa.Text(), nullable=True))
    for function in (KEEP_ORIGINAL, AMEND, RETRACT):
        op.execute(function)
    # A role that may call a trigger's function could run it on a table of its own, and change any record.
    op.execute("REVOKE EXECUTE ON FUNCTION keep_original, amend_record, retract_record FROM PUBLIC")
    op.execute(
        "CREATE TRIGGER record_versions_amend BEFORE INSERT ON record_versions FOR EACH ROW "
        "WHEN (NOT NEW.is_original) EXECUTE FUNCTION amend_record()"
    )
    op.execute(
        "CREATE TRIGGER record_retractions_retract BEFORE INSERT ON record_retractions FOR EACH ROW "
        "EXECUTE FUNCTION retract_record()"
    )


def downgrade() -> None:
    op.drop_table("record_retractions")
    op.drop_table("record_versions")
    for function in (
        "retract_record()",
        "amend_record()",
        "keep_original(public.medical_records, uuid)",
    ):
        op.execute(f"DROP FUNCTION {function}")
    op.drop_column("medical_records", "author_name")
