"""Demo data: four accounts with a known password, and a small clinic in which each of them sees something."""

from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple, TypedDict
from uuid import UUID, uuid5

from sqlalchemy import Text, bindparam, func, insert, select
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
from persistence.postgres.statements import NOTHING, IdRow, Nothing, Query, Statement
from persistence.records import NewRecord
from security.roles import Role

PASSWORD = "medisecure-demo"  # noqa: S105  # known to everyone, that is its purpose
ADMIN = UUID("0b6f3c1e-7a52-4f0d-9b1e-1d5a0c9e4a01")
DOCTOR = UUID("5e2d9a44-3c1b-4b7e-8f5d-2a6b1c0d4a02")
STAFF = UUID("9c8b7a65-1f2e-4d3c-a5b6-3b7c2d1e4a03")
PATIENT = UUID("d4c3b2a1-6e5f-4a7b-9c8d-4c8d3e2f4a04")
CHART = UUID("1a2b3c4d-5e6f-4a1b-8c2d-5d9e4f304a05")
VISIT = UUID("2b3c4d5e-6f70-4b2c-9d3e-6ea0504a4a06")
RECORD = UUID("3c4d5e6f-7081-4c3d-8e4f-7fb1615b4a07")


class Account(NamedTuple):
    id: UUID | None
    email: str
    name: str
    role: Role
    status: AccountStatus
    specialization: str | None
    department: str | None


class Chart(NamedTuple):
    id: UUID | None
    name: str
    email: str
    date_of_birth: str
    gender: Gender
    address: str
    blood_type: str | None
    allergies: str | None
    medical_history: str | None


class Visit(NamedTuple):
    """An appointment with Dr. Demir. `days` from today, `hour` at the clinic, `chart` as in CHARTS."""

    days: int
    hour: int
    chart: int
    status: AppointmentStatus
    reason: str


class Record(NamedTuple):
    """`days` from today, `chart` as in CHARTS."""

    days: int
    chart: int
    diagnosis: str
    prescription: str
    notes: str
    attachments: list[str]


# openapi.yaml shows this clinic in its examples; tests/contract/test_examples.py holds the two together.
ACCOUNTS = (
    Account(ADMIN, "admin@example.com", "Ada Admin", Role.ADMIN, AccountStatus.ACTIVE, None, None),
    Account(
        DOCTOR, "doctor@example.com", "Dr. Dora Demir", Role.DOCTOR, AccountStatus.ACTIVE, "Cardiology", None
    ),
    Account(STAFF, "staff@example.com", "Sam Staff", Role.STAFF, AccountStatus.ACTIVE, None, "Front desk"),
    Account(PATIENT, "patient@example.com", "Paula Patient", Role.PATIENT, AccountStatus.ACTIVE, None, None),
    Account(
        None, "emil@example.com", "Dr. Émile Durand", Role.DOCTOR, AccountStatus.ACTIVE, "Paediatrics", None
    ),
    Account(
        None, "new.doctor@example.com", "Dr. Nina Nowak", Role.DOCTOR, AccountStatus.PENDING, "Surgery", None
    ),
    Account(None, "otto@example.com", "Otto Okafor", Role.PATIENT, AccountStatus.ACTIVE, None, None),
)
# Paula's account is above.
CHARTS = (
    Chart(CHART, "Paula Patient", "patient@example.com", "1988-03-14", Gender.FEMALE,
     "12 Garden Street, Istanbul", "A+", "Penicillin", "Appendectomy in 2004."),
    Chart(None, "Ángel Álvarez", "angel@example.org", "1954-11-02", Gender.MALE,
     "3 Harbour Street", "O-", None, None),
    Chart(None, "Brigitte Becker", "brigitte@example.org", "1972-06-21", Gender.FEMALE,
     "77 Mill Lane", "B+", "Latex", "Hypertension since 2015."),
    Chart(None, "Chidi Chukwu", "chidi@example.org", "2014-01-30", Gender.MALE,
     "5 School Road", None, "Peanuts", None),
    Chart(None, "Deniz Doğan", "deniz@example.org", "1999-09-09", Gender.OTHER,
     "41 Station Square", "AB+", None, None),
    Chart(None, "Elif Erdem", "elif@example.org", "2001-12-24", Gender.FEMALE,
     "8 Garden Close", None, None, None),
)  # fmt: skip
VISITS = (
    Visit(-21, 9, 0, AppointmentStatus.COMPLETED, "Palpitations"),
    Visit(-14, 10, 1, AppointmentStatus.COMPLETED, "Chest pain on effort"),
    Visit(-7, 9, 2, AppointmentStatus.COMPLETED, "Blood pressure check"),
    Visit(-3, 11, 4, AppointmentStatus.CANCELLED, "Holter monitor"),
    Visit(0, 9, 1, AppointmentStatus.SCHEDULED, "Follow-up"),
    Visit(0, 15, 2, AppointmentStatus.SCHEDULED, "Blood pressure check"),
    Visit(2, 10, 3, AppointmentStatus.SCHEDULED, "Heart murmur"),
    Visit(5, 14, 0, AppointmentStatus.SCHEDULED, "Follow-up of palpitations"),
)
# The visit of Brigitte Becker still waits for its report.
RECORDS = (
    Record(-21, 0, "Supraventricular extrasystoles, benign", "Magnesium 300 mg, once a day for four weeks",
     "Less coffee; a diary of the palpitations.", ["ecg/24-hours.pdf"]),
    Record(-20, 0, "Blood test: potassium and thyroid normal", "", "", ["labs/electrolytes.pdf"]),
    Record(-14, 1, "Stable angina", "Bisoprolol 2.5 mg in the morning; glyceryl trinitrate spray when needed",
     "", []),
)  # fmt: skip


class Filled(NamedTuple):
    has_accounts: bool
    has_charts: bool


class HashRow(NamedTuple):
    email: str
    password_hash: str


class ByEmails(TypedDict):
    emails: list[str]


class AddedChart(patients.Added):
    medical_history: str | None
    user_id: UUID | None


class AddedVisit(TypedDict):
    id: UUID
    patient_id: UUID
    doctor_id: UUID
    date: datetime
    ends_at: datetime
    status: AppointmentStatus
    reason: str
    fee: int


class AddedRecord(NewRecord):
    date: datetime


FILLED = Query(
    Filled,
    Nothing,
    select(select(User.id).exists().label("has_accounts"), select(Patient.id).exists().label("has_charts")),
)
KNOWN = Query(IdRow, users.ByIds, users.AMONG)
HASHES = Query(
    HashRow,
    ByEmails,
    select(User.email, User.password_hash).where(
        User.email == func.any(bindparam("emails", type_=ARRAY(Text)))
    ),
)
ADD_CHART = Statement(AddedChart, insert(Patient))
ADD_VISIT = Statement(AddedVisit, insert(Appointment))
ADD_RECORD = Statement(AddedRecord, insert(MedicalRecord))


async def is_empty(transaction: Transaction) -> bool:
    """Whether nobody has an account and nobody a chart."""
    [filled] = await transaction.rows(FILLED, NOTHING)
    return not (filled.has_accounts or filled.has_charts)


async def has_known_passwords(transaction: Transaction) -> bool:
    """Whether the demo accounts are in this database."""
    return bool(await transaction.rows(KNOWN, users.ByIds(ids=[ADMIN, DOCTOR, STAFF, PATIENT])))


async def password_hashes(source: Source) -> dict[str, str]:
    """The e-mails and password hashes of the demo accounts that are in this database."""
    emails = [account.email for account in ACCOUNTS]
    rows = await source.rows(HASHES, ByEmails(emails=emails))
    return {row.email: row.password_hash for row in rows}


def phone(number: int) -> str:
    return f"+90 212 555 01{number:02}"


async def load(
    transaction: Transaction, password_hash: str, *, midnight: datetime, visit: timedelta, fee: int
) -> None:
    """Put the demo data into an empty database. `midnight` is the start of today at the clinic, `visit` how
    long an appointment takes, `fee` what it costs."""
    for number, account in enumerate(ACCOUNTS, 1):
        await add_account(transaction, account, phone(number), password_hash)
    charts = [await add_chart(transaction, number, chart) for number, chart in enumerate(CHARTS)]
    for number, each in enumerate(VISITS):
        begins = (midnight + timedelta(days=each.days, hours=each.hour)).astimezone(UTC)
        appointment = AddedVisit(
            id=VISIT if number == len(VISITS) - 1 else uuid5(VISIT, str(number)),
            patient_id=charts[each.chart],
            doctor_id=DOCTOR,
            date=begins,
            ends_at=begins + visit,
            status=each.status,
            reason=each.reason,
            fee=fee,
        )
        await transaction.run(ADD_VISIT, appointment)
    for number, record in enumerate(RECORDS):
        await add_record(transaction, number, record, charts[record.chart], midnight)


async def add_account(transaction: Transaction, account: Account, phone: str, password_hash: str) -> None:
    await users.add(
        transaction,
        id=account.id or uuid5(ADMIN, account.email),
        email=account.email,
        name=account.name,
        role=account.role,
        status=account.status,
        phone=phone,
        specialization=account.specialization,
        department=account.department,
        password_hash=password_hash,
    )


async def add_chart(transaction: Transaction, number: int, chart: Chart) -> UUID:
    telephone = phone(10 + number) if number else phone(4)
    keys = patients.chart_keys(chart.name, chart.email, telephone)
    values = AddedChart(
        id=chart.id or uuid5(CHART, chart.name),
        name=chart.name,
        email=chart.email,
        phone=telephone,
        date_of_birth=date.fromisoformat(chart.date_of_birth),
        gender=chart.gender,
        address=chart.address,
        blood_type=chart.blood_type,
        allergies=chart.allergies,
        medical_history=chart.medical_history,
        user_id=PATIENT if chart.id == CHART else None,
        **keys,
    )
    await transaction.run(ADD_CHART, values)
    return values["id"]


async def add_record(
    transaction: Transaction, number: int, record: Record, chart: UUID, midnight: datetime
) -> None:
    values = AddedRecord(
        id=RECORD if number == 0 else uuid5(RECORD, str(number)),
        patient_id=chart,
        doctor_id=DOCTOR,
        date=(midnight + timedelta(days=record.days, hours=17)).astimezone(UTC),
        diagnosis=record.diagnosis,
        prescription=record.prescription,
        notes=record.notes,
        attachments=record.attachments,
    )
    await transaction.run(ADD_RECORD, values)
