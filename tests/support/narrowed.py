"""Lists by each filter and in each order alone, and a person's with a time and a status: what they cost."""

from datetime import date

from persistence.postgres.sorting import AppointmentSort, DoctorSort, PatientSort, RecordSort
from tests.bench.clinic import NOW
from tests.support.lists import (
    ADMIN,
    CHART,
    COMPLETED,
    DAY,
    DOCTOR,
    JUNE,
    LATEST,
    MAY,
    NEWEST,
    OPEN,
    SOME_CHARTS,
    SOME_VISITS,
    STAFF,
    Lists,
    charts,
    colleagues,
    notes,
    visits,
)

NARROWED: Lists = {
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
}  # fmt: skip
