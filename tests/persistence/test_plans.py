"""How every list is read at 100,000 charts: by its index, with few of the server's pages, for every
role, page and filter; under the planner's default settings, on the embedded server."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from persistence import (
    absences,
    accesses,
    appointment_lists,
    audit,
    doctors,
    free_times,
    history,
    hours,
    patients,
    record_versions,
    records,
    users,
)
from persistence.absences import AbsenceRow
from persistence.appointment_lists import Filters
from persistence.duplicates import candidates
from persistence.duplicates.sought import Sought
from persistence.models import AccountStatus, AppointmentStatus
from persistence.postgres.calendar import calendar_of
from persistence.postgres.sorting import AppointmentSort, DoctorSort, PatientSort, RecordSort
from security.roles import Caller, Role
from tests.bench.clinic import NOW, Clinic, uid
from tests.bench.seed import fill
from tests.support.plans import TRIES, Plan, Planner
from tests.support.service import Backend

pytestmark = pytest.mark.slow

Read = Callable[[Planner], Awaitable[Any]]


def caller(role: Role, kind: str) -> Caller:
    name = UUID(uid(kind, 0))
    return Caller(id=name, email=f"{kind}0@example.com", role=role, session_id=name)


ADMIN, STAFF = caller(Role.ADMIN, "admin"), caller(Role.STAFF, "staff")
DOCTOR, PATIENT = caller(Role.DOCTOR, "doctor"), caller(Role.PATIENT, "puser")
CHART, RECORD = UUID(uid("patient", 0)), UUID(uid("rec", 0))
DAY = calendar_of(ZoneInfo("UTC")).spans(date(2024, 6, 3))
COMPLETED, SCHEDULED = AppointmentStatus.COMPLETED, AppointmentStatus.SCHEDULED
OPEN = {SCHEDULED, AppointmentStatus.CANCELLED}
MAY, JUNE = datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 6, 1, tzinfo=UTC)
LATEST, NEWEST = AppointmentSort.DATE_DESCENDING, AppointmentSort.CREATED_DESCENDING
SOME_CHARTS, SOME_VISITS = (
    [UUID(uid(kind, 10 * number)) for number in range(100)] for kind in ("patient", "appt")
)


def charts(
    who: Caller, page: int = 1, *, limit: int = 10, sort: PatientSort = PatientSort.NAME, **filters: Any
) -> Read:
    return lambda source: patients.page(source, who, page, limit, patients.Filters(**filters), sort)


def duplicates(name: str, born: date | None = None, email: str = "", phone: str = "") -> Read:
    return lambda source: candidates.find(source, Sought(name, born, email, phone))


def visits(
    who: Caller, page: int = 1, *, sort: AppointmentSort = AppointmentSort.DATE, **filters: Any
) -> Read:
    return lambda source: appointment_lists.page(source, who, page, 10, Filters(**filters), sort)


def notes(
    who: Caller, page: int = 1, *, sort: RecordSort = RecordSort.DATE_DESCENDING, **filters: Any
) -> Read:
    return lambda source: records.page(source, who, page, 10, records.Filters(**filters), sort)


def colleagues(sort: DoctorSort = DoctorSort.NAME, **filters: Any) -> Read:
    return lambda source: doctors.page(source, 1, 10, doctors.Filters(**filters), sort)


def texts_of(who: Caller) -> Read:
    return lambda source: record_versions.page(source, who, 1, 10, RECORD)


def in_absence(doctor: UUID | None) -> Read:
    """Of a day."""
    day = AbsenceRow(RECORD, doctor, NOW, NOW + timedelta(days=1), None)
    return lambda source: absences.bookings(source, day)


def away(who: Caller, **filters: Any) -> Read:
    asked = {"doctor": None, "since": None, "until": None, **filters}
    return lambda source: absences.page(source, who, 1, 10, **asked)


def accounts(who: Caller, page: int = 1, **filters: Any) -> Read:
    asked = {"role": None, "status": None, "linked": None, "search": "", **filters}
    return lambda source: users.page(source, who, page, 10, **asked)


def trail(page: int = 1, **filters: Any) -> Read:
    asked = {"user_id": None, "patient_id": None, "action": None, "since": None, "until": None, **filters}
    return lambda source: audit.page(source, page, 10, **asked)


# What is read: by which indexes at least, and with how many pages of the server's at most.
LISTS: dict[str, tuple[Read, set[str], int]] = {
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
    "appointments, completed": (visits(STAFF, statuses={COMPLETED}), {"appointments_status_idx"}, 340),
    "appointments, scheduled": (visits(STAFF, statuses={SCHEDULED}), {"appointments_status_idx"}, 340),
    "appointments, orphaned": (visits(STAFF, orphaned=True), {"appointments_status_idx"}, 340),
    "appointments, overdue": (visits(STAFF, overdue=NOW), {"appointments_status_idx"}, 340),
    "a doctor's appointments": (visits(DOCTOR), {"appointments_doctor_idx"}, 200),
    "a doctor's appointments of a day": (visits(DOCTOR, spans=DAY), {"appointments_doctor_idx"}, 130),
    "one's own appointments": (visits(PATIENT), {"appointments_patient_idx"}, 60),
    "one's own appointments of a day": (visits(PATIENT, spans=DAY), {"appointments_patient_idx"}, 20),
    "a doctor's appointments to come": (lambda source: hours.booked(source, DOCTOR.id), set(), 400),
    "appointments in a doctor's leave": (in_absence(DOCTOR.id), {"appointments_doctor_idx"}, 400),
    "appointments while the clinic is closed": (in_absence(None), set(), 4_000),
    "absences of a doctor": (away(STAFF, doctor=DOCTOR.id), set(), 80),
    "absences of a day": (away(DOCTOR, since=NOW, until=NOW + timedelta(days=1)), set(), 3_000),
    "records": (notes(ADMIN), {"medical_records_date_idx"}, 180),
    "records, in the middle": (notes(DOCTOR, 5_000), {"medical_records_date_idx"}, 220),
    "records of a chart": (notes(DOCTOR, patient=CHART), {"medical_records_patient_idx"}, 50),
    "one's own records": (notes(PATIENT), {"medical_records_patient_idx"}, 50),
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
    # Filters and orders: each alone, and a person's with a time and a status.
    "charts, Z to A": (charts(STAFF, sort=PatientSort.NAME_DESCENDING), {"patients_name_idx"}, 80),
    "charts, Z to A, in the middle": (
        charts(STAFF, 5_000, sort=PatientSort.NAME_DESCENDING), {"patients_name_idx"}, 150,
    ),
    "charts, the oldest": (charts(STAFF, sort=PatientSort.CREATED), {"patients_created_idx"}, 80),
    "charts, the newest": (charts(STAFF, sort=PatientSort.CREATED_DESCENDING), {"patients_created_idx"}, 80),
    "charts, the oldest, in the middle": (
        charts(STAFF, 5_000, sort=PatientSort.CREATED), {"patients_created_idx"}, 450,
    ),
    "charts of a birthday": (charts(STAFF, date_of_birth=date(1980, 5, 17)), {"patients_birth_idx"}, 100),
    "some charts": (charts(STAFF, ids=SOME_CHARTS), {"pk_patients"}, 1_400),
    "doctors, Z to A": (colleagues(DoctorSort.NAME_DESCENDING), {"users_role_idx"}, 60),
    "doctors, searched": (colleagues(search="morfi"), {"users_trigrams_idx"}, 150),
    "doctors of a field": (colleagues(specialization="Surgery"), {"users_role_idx"}, 500),
    "some doctors": (colleagues(ids=[DOCTOR.id]), {"pk_users"}, 60),
    "appointments, the latest": (visits(STAFF, sort=LATEST), {"appointments_date_idx"}, 180),
    "appointments, the latest, in the middle": (
        visits(STAFF, 25_000, sort=LATEST), {"appointments_date_idx"}, 220,
    ),
    "appointments, first booked": (
        visits(STAFF, sort=AppointmentSort.CREATED), {"appointments_created_idx"}, 180,
    ),
    "appointments, last booked": (
        visits(STAFF, sort=NEWEST), {"appointments_created_idx"}, 180,
    ),
    "appointments, first booked, in the middle": (
        visits(STAFF, 25_000, sort=AppointmentSort.CREATED), {"appointments_created_idx"}, 2_000,
    ),
    "a doctor's appointments, first booked": (
        visits(DOCTOR, sort=AppointmentSort.CREATED), {"appointments_doctor_idx"}, 250,
    ),
    "a doctor's appointments, last booked, in the middle": (
        visits(DOCTOR, 100, sort=NEWEST), {"appointments_doctor_idx"}, 250,
    ),
    "appointments of a doctor, last booked": (
        visits(STAFF, doctor=DOCTOR.id, sort=NEWEST), {"appointments_doctor_idx"}, 300,
    ),
    "appointments of a patient, first booked": (
        visits(STAFF, patient=CHART, sort=AppointmentSort.CREATED), {"appointments_patient_idx"}, 100,
    ),
    "appointments of a day, first booked": (
        visits(STAFF, spans=DAY, sort=AppointmentSort.CREATED), {"appointments_date_idx"}, 4_000,
    ),
    "appointments, overdue, first booked": (
        visits(STAFF, overdue=NOW, sort=AppointmentSort.CREATED), {"appointments_status_idx"}, 340,
    ),
    "appointments of a month": (visits(STAFF, since=MAY, until=JUNE), {"appointments_date_idx"}, 500),
    "appointments from then on": (visits(STAFF, since=MAY), {"appointments_date_idx"}, 2_500),
    "appointments until then": (visits(STAFF, until=MAY), {"appointments_date_idx"}, 2_500),
    "appointments of two statuses": (visits(STAFF, statuses=OPEN), {"appointments_status_idx"}, 400),
    "appointments of two statuses, in the middle": (
        visits(STAFF, 3_000, statuses=OPEN), {"appointments_status_idx"}, 600,
    ),
    "appointments of two statuses, of a month": (
        visits(STAFF, statuses=OPEN, since=MAY, until=JUNE), {"appointments_status_idx"}, 500,
    ),
    "appointments of a patient": (visits(STAFF, patient=CHART), {"appointments_patient_idx"}, 100),
    "appointments of a doctor": (visits(STAFF, doctor=DOCTOR.id), {"appointments_doctor_idx"}, 400),
    "appointments of a patient, a time and a status": (
        visits(STAFF, patient=CHART, since=MAY, until=JUNE, statuses={COMPLETED}),
        {"appointments_patient_idx"}, 60,
    ),
    "appointments of a doctor, a time and a status": (
        visits(STAFF, doctor=DOCTOR.id, since=MAY, until=JUNE, statuses={COMPLETED}),
        {"appointments_doctor_idx"}, 500,
    ),
    "appointments of a doctor, a time and two statuses": (
        visits(STAFF, doctor=DOCTOR.id, since=MAY, until=JUNE, statuses=OPEN),
        {"appointments_doctor_idx"}, 500,
    ),
    "a doctor's own appointments with a patient": (visits(DOCTOR, patient=CHART), set(), 100),
    "some appointments": (visits(STAFF, ids=SOME_VISITS), {"pk_appointments"}, 1_200),
    "records, the oldest": (notes(ADMIN, sort=RecordSort.DATE), {"medical_records_date_idx"}, 180),
    "records, the oldest, in the middle": (
        notes(ADMIN, 5_000, sort=RecordSort.DATE), {"medical_records_date_idx"}, 220,
    ),
    "records of a doctor": (notes(ADMIN, doctor=DOCTOR.id), {"medical_records_author_idx"}, 260),
    "records of a doctor, the oldest": (
        notes(ADMIN, doctor=DOCTOR.id, sort=RecordSort.DATE), {"medical_records_author_idx"}, 260,
    ),
    "records of a doctor, of a month": (
        notes(ADMIN, doctor=DOCTOR.id, since=MAY, until=JUNE), {"medical_records_author_idx"}, 180,
    ),
    "records of a patient, of a month": (
        notes(ADMIN, patient=CHART, since=MAY, until=JUNE), {"medical_records_patient_idx"}, 50,
    ),
    "records of a month": (notes(ADMIN, since=MAY, until=JUNE), {"medical_records_date_idx"}, 300),
    "records from then on": (notes(ADMIN, since=MAY), {"medical_records_date_idx"}, 800),
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


@pytest.fixture(scope="module")
def clinic(servers: Backend) -> Backend:
    backend = servers.copy()
    rows = Clinic(
        patients=100_000, doctors=200, appointments=500_000, records=100_000, events=100_000,
        patient_accounts=5_000,
    )  # fmt: skip
    asyncio.run(fill(backend.database_url, rows, key=None))
    for statement in AMENDED:
        backend.sql(statement)
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
        connection = await asyncpg.connect(backend.database_url)
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
    for plan in plans[:TRIES]:  # of the first statement
        assert indexes <= plan.indexes, str(plan)
