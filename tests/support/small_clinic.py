"""Doctors, charts and appointments, written straight into the tables."""

from datetime import datetime, timedelta
from uuid import UUID, uuid4

from tests.support.service import Backend


def add_doctor(backend: Backend, name: str) -> UUID:
    doctor = uuid4()
    backend.sql(
        "INSERT INTO users (id, email, password_hash, name, role, status, sort_name, search_text) "
        "VALUES ($1, $2, '!', $3, 'doctor', 'active', $4, $4)",
        doctor, f"{doctor}@example.com", name, name.lower(),
    )  # fmt: skip
    return doctor


def add_chart(backend: Backend, name: str, phone: str = "1", allergies: str | None = None) -> UUID:
    patient = uuid4()
    backend.sql(
        "INSERT INTO patients (id, name, email, phone, date_of_birth, gender, address, allergies, "
        "sort_name, search_text) VALUES "
        "($1, $2, 'p@example.com', $3, '1980-05-17', 'other', 'Secret Road', $4, $5, $5)",
        patient, name, phone, allergies, name.lower(),
    )  # fmt: skip
    return patient


def add_appointment(
    backend: Backend, doctor: UUID, patient: UUID, begins: datetime, status: str = "scheduled"
) -> UUID:
    appointment = uuid4()
    backend.sql(
        "INSERT INTO appointments (id, patient_id, doctor_id, date, ends_at, status, reason, fee) "
        "VALUES ($1, $2, $3, $4, $5, $6, 'Secret reason', 1)",
        appointment, patient, doctor, begins, begins + timedelta(minutes=30), status,
    )  # fmt: skip
    return appointment
