"""Lists by each filter and in each order alone, and a person's with a time and a status: what they cost."""

from datetime import date, timedelta
from typing import Any

from persistence.models import AccountStatus, AppointmentStatus
from persistence.postgres.sorting import AppointmentSort, DoctorSort, PatientSort, RecordSort
from security.roles import Caller, Role
from tests.bench.clinic import NOW
from tests.support.lists import (
    ADMIN,
    BEFORE_TOMORROW,
    CHART,
    COMPLETED,
    DAY,
    DOCTOR,
    JUNE,
    LATEST,
    MAY,
    NEWEST,
    OPEN,
    PATIENT,
    SCHEDULED,
    SOME_CHARTS,
    SOME_VISITS,
    STAFF,
    Lists,
    accounts,
    charts,
    colleagues,
    notes,
    visits,
)

Asked = dict[str, Any]
# Of one person's appointments, and how many pages are read of a doctor's, who has 2,500. A patient has five.
MONTH = {"since": MAY, "until": JUNE}
OF_ONE: dict[str, tuple[Asked, int]] = {
    "all": ({}, 200),
    **{f"{status}": ({"statuses": {status}}, 260) for status in AppointmentStatus},
    "scheduled, in the middle": ({"page": 20, "statuses": {SCHEDULED}}, 260),
    "of two statuses": ({"statuses": OPEN}, 260),
    "of a month": (MONTH, 150),
    **{f"{status}, of a month": ({"statuses": {status}, **MONTH}, 150) for status in AppointmentStatus},
    "of two statuses, of a month": ({"statuses": OPEN, **MONTH}, 150),
    "from then on": ({"since": MAY}, 200),
    "until then": ({"until": MAY}, 200),
    "scheduled, to come": ({"statuses": {SCHEDULED}, "since": NOW}, 180),
    "overdue": ({"overdue": BEFORE_TOMORROW}, 150),
}
BY_DOCTOR, BY_PATIENT = {"appointments_doctor_idx"}, {"appointments_patient_idx"}
WHOSE: list[tuple[str, Caller, Asked, set[str], int | None]] = [
    ("a doctor's own", DOCTOR, {}, BY_DOCTOR, None),
    ("a doctor's", STAFF, {"doctor": DOCTOR.id}, BY_DOCTOR, None),
    ("one's own", PATIENT, {}, BY_PATIENT, 70),
    ("a patient's", STAFF, {"patient": CHART}, BY_PATIENT, 70),
]
OF_TIMES: dict[str, Asked] = {
    "": {},
    " of a month": MONTH,
    " from then on": {"since": MAY},
    " until then": {"until": MAY},
}
RECORDS: list[tuple[str, Caller, Asked, str, int]] = [
    ("a doctor's", ADMIN, {"doctor": DOCTOR.id}, "author", 260),
    ("a patient's", DOCTOR, {"patient": CHART}, "patient", 60),
    ("one's own", PATIENT, {}, "patient", 60),
]
ACCOUNTS: list[tuple[str, Asked, int]] = [
    *((f"role {role}", {"role": role}, 180) for role in Role),
    *((f"{status}", {"status": status}, 180) for status in AccountStatus),
    ("linked", {"linked": True}, 700),
    ("not linked", {"linked": False}, 21_000),  # looks each of them up
]
NARROWED: Lists = {
    **{
        f"{whose} appointments, {words}": (visits(who, **asked, **filters), index, most or pages)
        for whose, who, asked, index, most in WHOSE
        for words, (filters, pages) in OF_ONE.items()
    },
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
    "appointments of a day by its instants, first booked": (
        visits(STAFF, since=MAY, until=MAY + timedelta(days=1), sort=AppointmentSort.CREATED),
        {"appointments_date_idx"}, 4_000,
    ),
    "appointments of a month, scheduled, of which there are none, last booked": (
        visits(STAFF, statuses={SCHEDULED}, since=MAY, until=JUNE, sort=NEWEST), {"appointments_status_idx"},
        2_500,
    ),
    "appointments of two statuses, of a month, last booked": (
        visits(STAFF, statuses=OPEN, since=MAY, until=JUNE, sort=NEWEST), {"appointments_status_idx"}, 5_000,
    ),
    "appointments, completed and to come, first booked": (
        visits(STAFF, statuses={COMPLETED}, since=NOW, sort=AppointmentSort.CREATED),
        {"appointments_status_idx"}, 2_500,
    ),
    "appointments, scheduled until then, last booked": (
        visits(STAFF, statuses={SCHEDULED}, until=MAY, sort=NEWEST), {"appointments_status_idx"}, 2_500,
    ),
    "appointments, overdue, first booked": (
        visits(STAFF, overdue=BEFORE_TOMORROW, sort=AppointmentSort.CREATED),
        {"appointments_status_idx"}, 1_800,
    ),
    "appointments, overdue": (visits(STAFF, overdue=BEFORE_TOMORROW), {"appointments_status_idx"}, 340),
    **{
        f"appointments, {status}": (visits(STAFF, statuses={status}), {"appointments_status_idx"}, 340)
        for status in AppointmentStatus
    },
    "appointments of any status": (
        visits(STAFF, statuses={*AppointmentStatus}), {"appointments_status_idx"}, 400,
    ),
    "appointments, orphaned": (visits(STAFF, orphaned=True), BY_DOCTOR, 1_000),
    "appointments, orphaned, in the middle": (visits(STAFF, 20, orphaned=True), BY_DOCTOR, 1_000),
    "appointments, orphaned, last booked": (visits(STAFF, orphaned=True, sort=NEWEST), BY_DOCTOR, 1_000),
    "appointments, orphaned, of a doctor": (
        visits(STAFF, orphaned=True, doctor=DOCTOR.id), BY_DOCTOR, 1_000,
    ),
    "appointments, not orphaned": (
        visits(STAFF, orphaned=False), {"appointments_date_idx", *BY_DOCTOR}, 1_100,
    ),
    "appointments, not orphaned, in the middle": (
        visits(STAFF, 25_000, orphaned=False), {"appointments_date_idx", *BY_DOCTOR}, 2_500,
    ),
    "appointments, not orphaned, last booked": (
        visits(STAFF, orphaned=False, sort=NEWEST), {"appointments_created_idx", *BY_DOCTOR}, 1_100,
    ),
    "appointments, not orphaned, scheduled": (
        visits(STAFF, orphaned=False, statuses={SCHEDULED}), {"appointments_status_idx", *BY_DOCTOR}, 1_100,
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
    "a doctor's own appointments with a patient": (visits(DOCTOR, patient=CHART), set(), 100),
    "some appointments": (visits(STAFF, ids=SOME_VISITS), {"pk_appointments"}, 1_200),
    "records, the oldest": (notes(ADMIN, sort=RecordSort.DATE), {"medical_records_date_idx"}, 180),
    "records, the oldest, in the middle": (
        notes(ADMIN, 5_000, sort=RecordSort.DATE), {"medical_records_date_idx"}, 220,
    ),
    "records of a doctor, the oldest": (
        notes(ADMIN, doctor=DOCTOR.id, sort=RecordSort.DATE), {"medical_records_author_idx"}, 260,
    ),
    "records of a month": (notes(ADMIN, since=MAY, until=JUNE), {"medical_records_date_idx"}, 300),
    "records from then on": (notes(ADMIN, since=MAY), {"medical_records_date_idx"}, 800),
    "records until then": (notes(ADMIN, until=MAY), {"medical_records_date_idx"}, 800),
    **{
        f"{whose} records{words}": (notes(who, **asked, **filters), {f"medical_records_{index}_idx"}, most)
        for whose, who, asked, index, most in RECORDS
        for words, filters in OF_TIMES.items()
    },
    "one's own records by a doctor": (
        notes(PATIENT, doctor=DOCTOR.id), set(), 30,
    ),
    **{
        f"{who.role} lists accounts, {words}": (accounts(who, **filters), set(), most)
        for who in (ADMIN, STAFF)
        for words, filters, most in ACCOUNTS
    },
}  # fmt: skip
