"""The tables against the requirement, "Database Schema (SQLAlchemy Models)", whose words stand here to the
letter, beside what the catalog of a migrated database says. No model of ours has a voice in it: tables and
models are compared in test_migrations.py. LoginAttempt, which Redis keeps, is in test_login_limit.py."""

import re

import pytest

from tests.support.service import Backend

REQUIREMENT = {
    "User": """
        - id: UUID (PK)
        - email: String (unique)
        - password_hash: String
        - name: String
        - role: Enum(admin, doctor, staff, patient)
        - phone: String (nullable)
        - specialization: String (nullable)
        - department: String (nullable)
        - created_at: DateTime
        - updated_at: DateTime
    """,
    "Patient": """
        - id: UUID (PK)
        - user_id: UUID (FK to User, nullable)
        - name: String
        - email: String
        - phone: String
        - date_of_birth: Date
        - gender: Enum(male, female, other)
        - address: String
        - blood_type: String (nullable)
        - allergies: Text (nullable)
        - medical_history: Text (nullable)
        - created_at: DateTime
    """,
    "Appointment": """
        - id: UUID (PK)
        - patient_id: UUID (FK)
        - doctor_id: UUID (FK)
        - date: DateTime
        - status: Enum(scheduled, completed, cancelled)
        - reason: String
        - notes: Text (nullable)
        - created_at: DateTime
    """,
    "MedicalRecord": """
        - id: UUID (PK)
        - patient_id: UUID (FK)
        - doctor_id: UUID (FK)
        - date: DateTime
        - diagnosis: Text
        - prescription: Text
        - notes: Text (nullable)
        - attachments: JSON (nullable)
        - created_at: DateTime
    """,
}
# The requirement names the models. A table is called as its rows are, in the plural.
TABLES = {
    "User": "users",
    "Patient": "patients",
    "Appointment": "appointments",
    "MedicalRecord": "medical_records",
}
TYPES = {
    "uuid": "UUID",
    "text": "Text",
    "character varying": "Text",
    "date": "Date",
    # Not SQLAlchemy's naive DateTime. Contract, "Appointments": "`date` is RFC 3339 with an offset; a naive
    # time is 400. Answers are UTC with `Z`".
    "timestamp with time zone": "DateTime",
    "json": "JSON",
    "jsonb": "JSON",
}
# Contract, "Who may do what": "`doctorId` is the doctor's user id"; doctors have no table of their own.
REFERS_TO = {"patient_id": "FK to Patient", "doctor_id": "FK to User"}
# Contract, "Who may do what": "One chart per account, one account per chart".
MORE = {("Patient", "user_id"): {"unique"}}

CATALOG = """
SELECT attname AS name, format_type(atttypid, NULL) AS type, NOT attnotnull AS nullable,
       ARRAY(SELECT enumlabel::text FROM pg_enum WHERE enumtypid = atttypid) AS values,
       EXISTS (SELECT FROM pg_constraint
                WHERE conrelid = attrelid AND contype = 'p' AND conkey = ARRAY[attnum]) AS pk,
       EXISTS (SELECT FROM pg_index
                WHERE indrelid = attrelid AND indisunique AND NOT indisprimary AND indpred IS NULL
                  AND indkey::text = attnum::text) AS unique,
       (SELECT confrelid::regclass::text FROM pg_constraint
         WHERE conrelid = attrelid AND contype = 'f' AND conkey = ARRAY[attnum]) AS refers_to
  FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped
"""


def sentence(kind: str, values: list[str], notes: set[str]) -> str:
    return f"{kind} {sorted(values)} {sorted(notes)}"


def asked_for(model: str) -> dict[str, str]:
    """What the requirement says of each column; String and Text are one in PostgreSQL."""
    columns = {}
    for line in REQUIREMENT[model].split("\n")[1:-1]:
        said = re.fullmatch(r" +- (\w+): (\w+)(?:\(([^)]+)\))?(?: \(([^)]+)\))?", line)
        assert said, line
        name, kind, values, notes = said.groups(default="")
        marks = {REFERS_TO[name] if note == "FK" else note for note in notes.split(", ") if note}
        kind = "Text" if kind == "String" else kind
        columns[name] = sentence(kind, values.split(", "), marks | MORE.get((model, name), set()))
    return columns


def made(backend: Backend, model: str) -> dict[str, str]:
    """What PostgreSQL says of each column."""
    models = {table: model for model, table in TABLES.items()}
    columns = {}
    for row in backend.sql(CATALOG, TABLES[model]):
        notes = {
            "nullable": row["nullable"],
            "PK": row["pk"],
            "unique": row["unique"],
            f"FK to {models.get(row['refers_to'])}": row["refers_to"],
        }
        columns[row["name"]] = sentence(
            "Enum" if row["values"] else TYPES.get(row["type"], row["type"]),
            row["values"] or [""],
            {note for note, holds in notes.items() if holds},
        )
    return columns


@pytest.mark.parametrize("model", REQUIREMENT)
def test_tables_have_the_columns_of_the_requirement(servers: Backend, model: str) -> None:
    """Requirement, Database Schema, every line of it; there may be columns beyond."""
    asked, found = asked_for(model), made(servers, model)
    assert {name: found.get(name) for name in asked} == asked


SABOTAGE = [
    ("User", "email", "ALTER TABLE users DROP CONSTRAINT uq_users_email"),
    ("User", "phone", "ALTER TABLE users ALTER phone SET NOT NULL"),
    ("User", "role", "ALTER TYPE user_role ADD VALUE 'nurse'"),
    ("Patient", "email", "ALTER TABLE patients ADD UNIQUE (email)"),
    ("Patient", "address", "ALTER TABLE patients ALTER address DROP NOT NULL"),
    ("Patient", "user_id", "ALTER TABLE patients DROP CONSTRAINT fk_patients_user_id_users"),
    (
        "Patient",
        "date_of_birth",
        "DO $$ BEGIN DROP TRIGGER patients_note_changed ON patients; "  # which looks at the column
        "ALTER TABLE patients ALTER date_of_birth TYPE timestamptz; END $$",
    ),
    ("Appointment", "status", "ALTER TYPE appointment_status RENAME VALUE 'cancelled' TO 'canceled'"),
    ("Appointment", "id", "ALTER TABLE appointments DROP CONSTRAINT pk_appointments"),
    ("MedicalRecord", "created_at", "ALTER TABLE medical_records ALTER created_at TYPE timestamp"),
    ("MedicalRecord", "attachments", "ALTER TABLE medical_records RENAME attachments TO files"),
]


@pytest.mark.parametrize(("model", "column", "statement"), SABOTAGE)
def test_a_table_that_departs_from_the_requirement_is_noticed(
    servers: Backend, model: str, column: str, statement: str
) -> None:
    backend = servers.copy()
    backend.sql(statement)
    asked, found = asked_for(model), made(backend, model)
    assert {name for name in asked if found.get(name) != asked[name]} == {column}
