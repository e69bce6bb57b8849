"""Demo data: four accounts with a known password, and a small clinic in which each of them sees something."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import Text, Uuid, bindparam, func, insert, select
from sqlalchemy.dialects.postgresql import ARRAY

from persistence import patients, users
from persistence.models import (
    AccountStatus,
    Appointment,
    AppointmentStatus,
    Gender,
    MedicalRecord,
    Patient,
    User,
)
from persistence.postgres.database import Source, Transaction
from persistence.postgres.text import keys_of
from security.roles import Role

PASSWORD = "medisecure-demo"  # noqa: S105  # known to everyone, that is its purpose
ADMIN = UUID("0b6f3c1e-7a52-4f0d-9b1e-1d5a0c9e4a01")
DOCTOR = UUID("5e2d9a44-3c1b-4b7e-8f5d-2a6b1c0d4a02")
STAFF = UUID("9c8b7a65-1f2e-4d3c-a5b6-3b7c2d1e4a03")
PATIENT = UUID("d4c3b2a1-6e5f-4a7b-9c8d-4c8d3e2f4a04")
CHART = UUID("1a2b3c4d-5e6f-4a1b-8c2d-5d9e4f304a05")
VISIT = UUID("2b3c4d5e-6f70-4b2c-9d3e-6ea0504a4a06")
RECORD = UUID("3c4d5e6f-7081-4c3d-8e4f-7fb1615b4a07")

# openapi.yaml shows this clinic in its examples; tests/contract/test_examples.py holds the two together.
# (id, e-mail, name, role, status, specialization, department)
ACCOUNTS = (
    (ADMIN, "admin@example.com", "Ada Admin", Role.ADMIN, AccountStatus.ACTIVE, None, None),
    (DOCTOR, "doctor@example.com", "Dr. Dora Demir", Role.DOCTOR, AccountStatus.ACTIVE, "Cardiology", None),
    (STAFF, "staff@example.com", "Sam Staff", Role.STAFF, AccountStatus.ACTIVE, None, "Front desk"),
    (PATIENT, "patient@example.com", "Paula Patient", Role.PATIENT, AccountStatus.ACTIVE, None, None),
    (None, "emil@example.com", "Dr. Émile Durand", Role.DOCTOR, AccountStatus.ACTIVE, "Paediatrics", None),
    (None, "new.doctor@example.com", "Dr. Nina Nowak", Role.DOCTOR, AccountStatus.PENDING, "Surgery", None),
    (None, "otto@example.com", "Otto Okafor", Role.PATIENT, AccountStatus.ACTIVE, None, None),
)
# (id, name, e-mail, birth date, gender, address, blood type, allergies, history); Paula's account is above.
CHARTS = (
    (CHART, "Paula Patient", "patient@example.com", "1988-03-14", Gender.FEMALE,
     "12 Garden Street, Istanbul", "A+", "Penicillin", "Appendectomy in 2004."),
    (None, "Ángel Álvarez", "angel@example.org", "1954-11-02", Gender.MALE,
     "3 Harbour Street", "O-", None, None),
    (None, "Brigitte Becker", "brigitte@example.org", "1972-06-21", Gender.FEMALE,
     "77 Mill Lane", "B+", "Latex", "Hypertension since 2015."),
    (None, "Chidi Chukwu", "chidi@example.org", "2014-01-30", Gender.MALE,
     "5 School Road", None, "Peanuts", None),
    (None, "Deniz Doğan", "deniz@example.org", "1999-09-09", Gender.OTHER,
     "41 Station Square", "AB+", None, None),
    (None, "Elif Erdem", "elif@example.org", "2001-12-24", Gender.FEMALE,
     "8 Garden Close", None, None, None),
)  # fmt: skip
# (days from today, hour at the clinic, chart, status, reason); the doctor is Dr. Demir.
VISITS = (
    (-21, 9, 0, AppointmentStatus.COMPLETED, "Palpitations"),
    (-14, 10, 1, AppointmentStatus.COMPLETED, "Chest pain on effort"),
    (-7, 9, 2, AppointmentStatus.COMPLETED, "Blood pressure check"),
    (-3, 11, 4, AppointmentStatus.CANCELLED, "Holter monitor"),
    (0, 9, 1, AppointmentStatus.SCHEDULED, "Follow-up"),
    (0, 15, 2, AppointmentStatus.SCHEDULED, "Blood pressure check"),
    (2, 10, 3, AppointmentStatus.SCHEDULED, "Heart murmur"),
    (5, 14, 0, AppointmentStatus.SCHEDULED, "Follow-up of palpitations"),
)
# (days from today, chart, diagnosis, prescription, notes, attachments); the visit of Brigitte Becker still
# waits for its report.
RECORDS: tuple[tuple[int, int, str, str, str, list[str]], ...] = (
    (-21, 0, "Supraventricular extrasystoles, benign", "Magnesium 300 mg, once a day for four weeks",
     "Less coffee; a diary of the palpitations.", ["ecg/24-hours.pdf"]),
    (-20, 0, "Blood test: potassium and thyroid normal", "", "", ["labs/electrolytes.pdf"]),
    (-14, 1, "Stable angina", "Bisoprolol 2.5 mg in the morning; glyceryl trinitrate spray when needed",
     "", []),
)  # fmt: skip

FILLED = select(select(User.id).exists(), select(Patient.id).exists())
KNOWN = select(User.id).where(User.id == func.any(bindparam("ids", type_=ARRAY(Uuid))))
HASHES = select(User.email, User.password_hash).where(
    User.email == func.any(bindparam("emails", type_=ARRAY(Text)))
)


async def is_empty(transaction: Transaction) -> bool:
    """Whether nobody has an account and nobody a chart."""
    [(accounts, charts)] = await transaction.rows(FILLED)
    return not accounts and not charts


async def has_known_passwords(transaction: Transaction) -> bool:
    """Whether the demo accounts are in this database."""
    return bool(await transaction.rows(KNOWN, ids=[ADMIN, DOCTOR, STAFF, PATIENT]))


async def password_hashes(source: Source) -> dict[str, str]:
    """The e-mails and password hashes of the demo accounts that are in this database."""
    emails = [account[1] for account in ACCOUNTS]
    rows = await source.rows(HASHES, emails=emails)
    return {row.email: row.password_hash for row in rows}


def phone(number: int) -> str:
    return f"+90 212 555 01{number:02}"


async def load(
    transaction: Transaction, password_hash: str, *, midnight: datetime, visit: timedelta, fee: int
) -> None:
    """Put the demo data into an empty database. `midnight` is the start of today at the clinic."""
    for number, (chosen, email, name, role, status, specialization, department) in enumerate(ACCOUNTS, 1):
        await users.add(
            transaction,
            id=chosen or uuid5(ADMIN, email),
            email=email,
            name=name,
            role=role,
            status=status,
            phone=phone(number),
            specialization=specialization,
            department=department,
            password_hash=password_hash,
        )
    charts: list[UUID] = []
    for number, row in enumerate(CHARTS):
        chosen, name, email, born, gender, address, blood_type, allergies, history = row
        values: dict[str, Any] = {
            "id": chosen or uuid5(CHART, name),
            "name": name,
            "email": email,
            "phone": phone(10 + number) if number else phone(4),
            "date_of_birth": date.fromisoformat(born),
            "gender": gender,
            "address": address,
            "blood_type": blood_type,
            "allergies": allergies,
            "medical_history": history,
        }
        [chart] = await transaction.rows(patients.ADD, **values, **keys_of(values))
        charts.append(chart.id)
    await patients.link(transaction, CHART, PATIENT)
    for number, (days, hour, who, stage, reason) in enumerate(VISITS):
        begins = (midnight + timedelta(days=days, hours=hour)).astimezone(UTC)
        await transaction.run(
            insert(Appointment),
            id=VISIT if number == len(VISITS) - 1 else uuid5(VISIT, str(number)),
            patient_id=charts[who],
            doctor_id=DOCTOR,
            date=begins,
            ends_at=begins + visit,
            status=stage,
            reason=reason,
            fee=fee,
        )
    for number, (days, who, diagnosis, prescription, notes, attachments) in enumerate(RECORDS):
        await transaction.run(
            insert(MedicalRecord),
            id=RECORD if number == 0 else uuid5(RECORD, str(number)),
            patient_id=charts[who],
            doctor_id=DOCTOR,
            date=(midnight + timedelta(days=days, hours=17)).astimezone(UTC),
            diagnosis=diagnosis,
            prescription=prescription,
            notes=notes,
            attachments=attachments,
        )
