"""The triggers that note what changed (migration 0019) against the rows that answers are made of."""

import re

import pytest

from persistence import absences, appointments, doctors, patients, records, users
from persistence.models import Base
from tests.support.service import Backend

ROWS: dict[str, tuple[type[tuple[object, ...]], ...]] = {
    "patients": (patients.PatientRow, patients.SummaryRow),
    "appointments": (appointments.AppointmentRow,),
    "medical_records": (records.RecordRow,),
    "users": (users.UserRow, doctors.DoctorRow, doctors.SummaryRow),
    "absences": (absences.AbsenceRow,),
}
NEVER_CHANGES = {"id", "created_at"}
DEFINITION = "SELECT pg_get_triggerdef(oid) AS sql FROM pg_trigger WHERE tgname = $1"


@pytest.mark.parametrize("table", ROWS)
def test_a_trigger_looks_at_the_columns_that_an_answer_shows_and_no_others(
    servers: Backend, table: str
) -> None:
    """contract: "One row for each transaction and object, and only where a column differs that an answer
    shows." """
    fields = {field for row in ROWS[table] for field in row.__annotations__}
    shown = fields & set(Base.metadata.tables[table].c.keys()) - NEVER_CHANGES
    [trigger] = servers.sql(DEFINITION, f"{table}_note_changed")
    for moment in ("old", "new"):
        assert set(re.findall(rf'{moment}\."?(\w+)', trigger["sql"])) == shown
