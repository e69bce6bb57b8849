"""How every list is read at 100,000 charts: by its index, with few of the server's pages, for every
role, page and filter; under the planner's default settings, on the embedded server."""

import asyncio
from datetime import date, timedelta
from uuid import UUID

import asyncpg
import pytest

from persistence import (
    accesses,
    free_times,
    history,
    hours,
)
from persistence.models import AccountStatus
from security.roles import Role
from tests.bench.clinic import NOW, Clinic, uid
from tests.bench.seed import fill
from tests.support.lists import (
    ADMIN,
    CHART,
    COMPLETED,
    DAY,
    DOCTOR,
    JUNE,
    MAY,
    PATIENT,
    RECORD,
    STAFF,
    Lists,
    Read,
    accounts,
    away,
    charts,
    colleagues,
    duplicates,
    in_absence,
    notes,
    texts_of,
    trail,
    visits,
)
from tests.support.narrowed import NARROWED
from tests.support.plans import TRIES, Plan, Planner
from tests.support.service import Backend

pytestmark = pytest.mark.slow

LISTS: Lists = NARROWED | {
    "charts": (charts(STAFF), {"patients_name_idx"}, 80),
    "charts, 100 of them": (charts(DOCTOR, limit=100), {"patients_name_idx"}, 600),
    "charts, in the middle": (charts(STAFF, 5_000), {"patients_name_idx"}, 150),
    "charts, at 90 %": (charts(STAFF, 9_000), {"patients_name_idx"}, 150),
    "charts, the last": (charts(STAFF, 10_000), {"patients_name_idx"}, 160),
    "charts, past the end": (charts(STAFF, 20_000), set(), 100),
    "one's own chart": (charts(PATIENT), {"uq_patients_user_id"}, 20),
    "charts, a name that few have": (charts(STAFF, search="anbadorf"), {"patients_trigrams_idx"}, 400),
    "charts, two words": (charts(STAFF, search="morfidorf henry"), {"patients_trigrams_idx"}, 300),
    "charts, a part of many names": (charts(STAFF, search="dorf"), set(), 4_500),
    "charts, what all have": (charts(STAFF, search="e"), set(), 11_000),
    "charts, what nobody has": (charts(STAFF, search="xqzw"), {"patients_trigrams_idx"}, 300),
    "duplicates of all that a form asks for": (
        duplicates("Silva Quitopolous", date(1980, 5, 17), "maria@mail.example.com", "+1 555 010 0200"),
        {"patients_trigrams_idx", "patients_latin_trigrams_idx", "patients_birth_idx", "patients_name_idx"},
        4_000,
    ),
    "duplicates of a name that many have": (duplicates("Maria Anson"), {"patients_trigrams_idx"}, 4_000),
    "duplicates of a part of many names": (duplicates("dorf"), {"patients_trigrams_idx"}, 2_000),
    "duplicates of a name of many words": (
        duplicates("Maria Anna Quentin Georg Julia Anbasson", date(1980, 5, 17)), {"patients_trigrams_idx"},
        4_000,
    ),
    "duplicates of a birthday": (duplicates("", date(1980, 5, 17)), {"patients_birth_idx"}, 500),
    "appointments": (visits(STAFF), {"appointments_date_idx"}, 180),
    "appointments, in the middle": (visits(ADMIN, 25_000), {"appointments_date_idx"}, 220),
    "appointments, at 90 %": (visits(STAFF, 45_000), {"appointments_date_idx"}, 220),
    "appointments of a day": (visits(STAFF, spans=DAY), {"appointments_date_idx"}, 340),
    "appointments of a day, completed": (visits(STAFF, spans=DAY, statuses={COMPLETED}), set(), 340),
    "a doctor's appointments": (visits(DOCTOR), {"appointments_doctor_idx"}, 200),
    "a doctor's appointments of a day": (visits(DOCTOR, spans=DAY), {"appointments_doctor_idx"}, 130),
    "one's own appointments": (visits(PATIENT), {"appointments_patient_idx"}, 60),
    "one's own appointments of a day": (visits(PATIENT, spans=DAY), {"appointments_patient_idx"}, 20),
    "a doctor's appointments to come": (lambda source: hours.booked(source, DOCTOR.id), set(), 2_200),
    "appointments in a doctor's leave": (in_absence(DOCTOR.id), {"appointments_doctor_idx"}, 400),
    "appointments while the clinic is closed": (in_absence(None), set(), 4_000),
    "absences of a doctor": (away(STAFF, doctor=DOCTOR.id), set(), 80),
    "absences of a day": (away(DOCTOR, since=NOW, until=NOW + timedelta(days=1)), set(), 3_000),
    "records": (notes(ADMIN), {"medical_records_date_idx"}, 180),
    "records, in the middle": (notes(DOCTOR, 5_000), {"medical_records_date_idx"}, 220),
    "accounts": (accounts(ADMIN), {"users_name_idx"}, 100),
    "accounts of patients": (accounts(STAFF), set(), 330),
    "accounts that wait for a chart": (
        accounts(STAFF, role=Role.PATIENT, status=AccountStatus.ACTIVE, linked=False),
        {"users_role_idx"}, 20_000,
    ),
    "accounts, searched": (accounts(ADMIN, search="morfi"), {"users_trigrams_idx"}, 300),
    "the trail": (trail(), {"audit_events_at_idx"}, 70),
    "the trail, in the middle": (trail(5_000), {"audit_events_at_idx"}, 350),
    "the trail of a person": (trail(user_id=DOCTOR.id), {"audit_events_user_idx"}, 80),
    "the trail of a chart": (trail(patient_id=CHART), {"audit_events_charts_idx"}, 40),
    "the trail of an hour": (
        trail(since=NOW + timedelta(hours=3), until=NOW + timedelta(hours=4)), {"audit_events_at_idx"}, 100,
    ),
    "what a chart said before": (
        lambda source: history.of_chart(source, DOCTOR, 1, 10, CHART), {"patient_changes_patient_idx"}, 200,
    ),
    "who opened a chart": (
        lambda source: accesses.page(source, 1, 10, CHART, but=None), {"audit_events_charts_idx"}, 30,
    ),
    "who saw a record": (
        lambda source: accesses.page(source, 1, 10, CHART, record_id=RECORD, but=None),
        {"audit_events_charts_idx"}, 30,
    ),
    "versions of a record": (texts_of(DOCTOR), {"record_versions_record_idx"}, 20),
    "versions of one's own record": (texts_of(PATIENT), {"record_versions_record_idx"}, 20),
    "doctors": (colleagues(), {"users_role_idx"}, 60),
    "free times": (lambda one: free_times.find(one, STAFF, MAY, JUNE), {"appointments_doctor_idx"}, 30_000),
    "free times of a doctor": (
        lambda source: free_times.one(source, PATIENT, MAY, MAY + timedelta(days=1), DOCTOR.id),
        {"appointments_doctor_idx", "appointments_patient_idx"}, 60,
    ),
}  # fmt: skip


# Each record once.
AMENDED = (
    "ALTER TABLE record_versions DISABLE TRIGGER USER",
    "INSERT INTO record_versions (record_id, is_original, at, user_id, name, role, reason, diagnosis, "
    "prescription, notes, attachments, request_id) SELECT id, is_original, date, doctor_id, 'N', 'doctor', "
    "reason, diagnosis, prescription, '', '[]', gen_random_uuid() "
    "FROM medical_records CROSS JOIN (VALUES (true, NULL), (false, 'r')) AS version (is_original, reason)",
    "VACUUM (ANALYZE) record_versions",
)
# As if the clinic's NOW were now, for what is still to come.
CLOCK = (
    "CREATE SCHEMA clock",
    f"CREATE FUNCTION clock.now() RETURNS timestamptz STABLE RETURN timestamptz '{NOW}'",
)
BIG = {"users", "patients", "appointments", "medical_records"}
SETTINGS = {"search_path": "clock, pg_catalog, public"}


@pytest.fixture(scope="module")
def clinic(servers: Backend) -> Backend:
    backend = servers.copy()
    rows = Clinic(
        patients=100_000, doctors=200, appointments=500_000, records=100_000, events=100_000,
        patient_accounts=5_000,
    )  # fmt: skip
    asyncio.run(fill(backend.database_url, rows, key=None))
    for statement in (*AMENDED, *CLOCK):
        backend.sql(statement)
    backend.sql("UPDATE users SET status = 'disabled' WHERE id = $1", UUID(uid("doctor", 199)))
    backend.sql("VACUUM (ANALYZE) users")
    backend.sql(
        "INSERT INTO patient_changes (patient_id, at, request_id, field) "
        "SELECT CASE n % 1000 WHEN 0 THEN $1 ELSE gen_random_uuid() END, now(), gen_random_uuid(), 'phone' "
        "FROM generate_series(1, 100000) AS n",
        CHART,
    )
    backend.sql("ANALYZE patient_changes")
    backend.sql(
        "INSERT INTO absences (id, doctor_id, begins, ends) SELECT gen_random_uuid(), users.id, begins, "
        "begins + interval '8 hours' FROM users, generate_series(-8, 4) AS n, "
        "LATERAL (SELECT $1::timestamptz + n * interval '30 days' AS begins) AS at WHERE role = 'doctor'",
        NOW,
    )
    backend.sql("ANALYZE absences")
    return backend


def plans_of(backend: Backend, read: Read) -> list[Plan]:
    async def run() -> list[Plan]:
        connection = await asyncpg.connect(backend.database_url, server_settings=SETTINGS)
        planner = Planner(connection)
        try:
            await read(planner)
        finally:
            await connection.close()
        return planner.plans

    return asyncio.run(run())


@pytest.mark.parametrize("name", LISTS)
def test_a_list_is_read_by_its_index(name: str, clinic: Backend) -> None:
    read, indexes, most = LISTS[name]
    plans = plans_of(clinic, read)
    assert plans
    for plan in plans:
        assert plan.pages <= most, str(plan)
        assert name not in NARROWED or not plan.read_whole & BIG, str(plan)
    for plan in plans[:TRIES]:  # of the first statement
        assert indexes <= plan.indexes, str(plan)
