"""ever linked

Revision: 0004
Follows: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "patients", sa.Column("ever_linked", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )
    op.execute(
        "UPDATE patients SET ever_linked = true WHERE user_id IS NOT NULL OR id IN "
        "(SELECT patient_id FROM audit_events WHERE outcome = 'success' AND target_id IS NOT NULL "
        "AND action IN ('patient.link', 'patient.unlink'))"
    )
    # A trigger, so that an instance of an older release, or a person with psql, cannot forget it.
    op.execute(
        """
        CREATE FUNCTION keep_ever_linked() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.ever_linked := true;
            RETURN NEW;
        END
        $$
        """
    )
    op.execute(
        "CREATE TRIGGER patients_ever_linked BEFORE INSERT OR UPDATE ON patients "
        "FOR EACH ROW WHEN (NEW.user_id IS NOT NULL) EXECUTE FUNCTION keep_ever_linked()"
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER patients_ever_linked ON patients")
    op.execute("DROP FUNCTION keep_ever_linked()")
    op.drop_column("patients", "ever_linked")
