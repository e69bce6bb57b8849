"""A clinic of any size, made up, and the same each time: the rows that seed.py loads."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from hashlib import md5
from random import Random
from typing import Any

from persistence.postgres.folding import keys_of

Row = tuple[Any, ...]
words = str.split

PASSWORD = "Password123!"
HASH = "$2b$12$MediSecureBenchSaltOO.cMwWRBNUxcG6hTq/FDIflY430ApMTnW"  # of PASSWORD, with bcrypt's cost of 12
FIRST = words(
    "Alice Bruno Carla David Elena Felix Greta Henry Irene Jonas Karin Louis Maria Nils Olga Peter Quentin "
    "Rosa Simon Tina Ugo Vera Walter Xenia Yann Zoe Amir Bella Cedric Dora Emil Fanny Georg Hanna Igor Julia "
    "Kevin Laura Marco Nadia Oscar Paula Rami Sonia Tomas Ursula Victor Wanda Yusuf Zara"
)
# A family name is one of each: 27,000 of them.
HEADS = words(
    "An Ber Cor Dal El Fen Gar Hol Il Jor Kas Lin Mor Nor Ol Per Quin Ros San Tor Ul Var Wes Xan Yor Zel Bri "
    "Cla Dru Fro"
)
MIDDLES = words(
    "ba de fi go hu ja ke li mo nu pa qi re so tu va we xi yo za bran del fer gil hem jas kor lun mir nes"
)
TAILS = words(
    "son man ter ski ville ner sen berg well ton ford ham ley ric win dorf nik ova ez ini ard ell ock ust "
    "ano eau ing ger sky low"
)
STREETS = words("Main Oak Pine Maple Cedar Elm Lake Hill Park River")
BLOOD_TYPES = ("A+", "A-", "B+", "B-", "AB+", "AB-", "O+", "O-", None)
ALLERGIES = (None, None, "Penicillin", "Peanuts", "Latex", "Aspirin, pollen")
SPECIALIZATIONS = words("Cardiology Neurology Oncology Pediatrics Radiology Surgery Dermatology Psychiatry")
DEPARTMENTS = words("Reception Billing Admissions Laboratory")
REASONS = ("Annual check-up", "Follow-up", "Chest pain", "Vaccination", "Headache", "Blood test results")
FINDINGS = (
    ("Hypertension, stage 1", "Lisinopril 10 mg once daily"),
    ("Seasonal allergic rhinitis", "Cetirizine 10 mg once daily"),
    ("Type 2 diabetes mellitus", "Metformin 500 mg twice daily"),
    ("Migraine without aura", "Sumatriptan 50 mg as needed"),
    ("Acute bronchitis", "Amoxicillin 500 mg three times daily"),
    ("Iron deficiency anaemia", "Ferrous sulfate 325 mg daily"),
)
NOW = datetime(2025, 1, 1, tzinfo=UTC)
DAYS, PAST_DAYS, QUARTERS = 730, 600, 40  # a day has the quarters of an hour from 8 to 18 o'clock
VISIT, FEE = timedelta(minutes=30), 150

ACCOUNT = words(
    "id email password_hash name role status phone specialization department created_at updated_at"
)
CHART = words(
    "id user_id name email phone date_of_birth gender address blood_type allergies medical_history created_at"
)
APPOINTMENT = words("id patient_id doctor_id date ends_at status reason notes fee created_at")
RECORD = words("id patient_id doctor_id date diagnosis prescription notes attachments created_at")
EVENT = words(
    "at user_id email role session_id action outcome patient_id target_id target_ids patient_ids address "
    "request_id"
)


def uid(kind: str, number: int) -> str:
    digits = md5(f"{kind}:{number}".encode(), usedforsecurity=False).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


@dataclass
class Clinic:
    """How many there are of everything. The generators draw from one source of chance, so they are to be
    exhausted in this order: accounts, charts, appointments, records, events."""

    patients: int
    doctors: int
    appointments: int
    records: int
    events: int = 0
    staff: int = 50
    patient_accounts: int = 1000
    chance: Random = field(default_factory=lambda: Random(1))  # noqa: S311  # no secret

    def __post_init__(self) -> None:
        self.draw = self.chance.random
        self.chart_ids = [uid("patient", number) for number in range(self.patients)]
        self.doctor_ids = [uid("doctor", number) for number in range(self.doctors)]
        first = NOW - timedelta(days=PAST_DAYS) + timedelta(hours=8)
        self.slots = [
            first + timedelta(days=day, minutes=15 * quarter)
            for day in range(DAYS)
            for quarter in range(QUARTERS)
        ]

    def among(self, choices: Any) -> Any:
        return choices[int(self.draw() * len(choices))]

    def person(self) -> str:
        return f"{self.among(FIRST)} {self.among(HEADS)}{self.among(MIDDLES)}{self.among(TAILS)}"

    def accounts(self) -> Iterator[Row]:
        yield self.account("admin", 0, "admin@example.com", "Ada Admin", "+15550000000")
        for number in range(self.staff):
            email, phone = f"staff{number}@example.com", f"+1555{number:07d}"
            department = DEPARTMENTS[number % len(DEPARTMENTS)]
            yield self.account("staff", number, email, self.person(), phone, department=department)
        for number in range(self.doctors):
            email, phone = f"doctor{number}@example.com", f"+1556{number:07d}"
            field = SPECIALIZATIONS[number % len(SPECIALIZATIONS)]
            name = f"Dr. {self.person()}"
            yield self.account("doctor", number, email, name, phone, specialization=field)
        for number in range(self.patient_accounts):
            email, phone = f"patient{number}@example.com", f"+1557{number:07d}"
            yield self.account("patient", number, email, self.person(), phone, kind="puser")

    def account(
        self,
        role: str,
        number: int,
        email: str,
        name: str,
        phone: str,
        *,
        specialization: str | None = None,
        department: str | None = None,
        kind: str = "",
    ) -> Row:
        keys = keys_of(name, email, phone)
        own = (uid(kind or role, number), email, HASH, name, role, "active", phone)
        return (*own, specialization, department, NOW, NOW, *keys.values())

    def charts(self) -> Iterator[Row]:
        """The first of them are linked to the patients' accounts."""
        draw, among = self.draw, self.among
        births = [date(1935, 1, 1) + timedelta(days=days) for days in range(32_000)]
        for number, chart_id in enumerate(self.chart_ids):
            account = uid("puser", number) if number < self.patient_accounts else None
            name = self.person()
            email = f"{name.lower().replace(' ', '.')}.{number}@mail.example.com"
            phone = f"+1{2_000_000_000 + int(draw() * 7_999_999_999)}"
            born = among(births)
            gender = ("male", "female", "other")[int(draw() * 2.05)]
            address = f"{int(draw() * 999) + 1} {among(STREETS)} Street, Springfield"
            blood_type, allergies = among(BLOOD_TYPES), among(ALLERGIES)
            history = f"Prior surgery in {1990 + int(draw() * 34)}; no complications."
            minutes, seconds, micros = int(draw() * 80_000), int(draw() * 60), int(draw() * 999_999)
            made = NOW - timedelta(minutes=7 * minutes) + timedelta(seconds=seconds, microseconds=micros)
            keys = keys_of(name, email, phone)
            own = (chart_id, account, name, email, phone, born, gender, address)
            yield (*own, blood_type, allergies, history, made, *keys.values())

    def visits(self) -> Iterator[Row]:
        """Appointments of two years. One that would overlap another scheduled one of the doctor's or the
        patient's is a cancelled one."""
        draw, slots, charts, doctors = self.draw, self.slots, self.chart_ids, self.doctor_ids
        past, everything = PAST_DAYS * QUARTERS, len(slots)
        ends = [slot + VISIT for slot in slots]
        taken: set[tuple[str, int]] = set()
        for number in range(self.appointments):
            slot = int(draw() * everything)
            status = "scheduled" if slot >= past else "cancelled" if draw() < 0.12 else "completed"
            chart, doctor = charts[int(draw() * len(charts))], doctors[int(draw() * len(doctors))]
            reason = REASONS[int(draw() * 6)]
            notes = None if draw() < 0.5 else "Bring previous lab results."
            if status == "scheduled":
                around = (slot - 1, slot, slot + 1)
                if any((person, near) in taken for person in (chart, doctor) for near in around):
                    status = "cancelled"
                else:
                    taken |= {(chart, slot), (doctor, slot)}
            yield (
                uid("appt", number), chart, doctor, slots[slot], ends[slot], status, reason, notes, FEE, NOW,
            )  # fmt: skip

    def findings(self) -> Iterator[Row]:
        draw, charts, doctors = self.draw, self.chart_ids, self.doctor_ids
        past = PAST_DAYS * QUARTERS
        for number in range(self.records):
            diagnosis, prescription = FINDINGS[int(draw() * 6)]
            attachments = None if draw() < 0.7 else f'["lab-{number}.pdf"]'
            chart, doctor = charts[int(draw() * len(charts))], doctors[int(draw() * len(doctors))]
            at = self.slots[int(draw() * past)]
            notes = None if draw() < 0.5 else "Recheck in six weeks."
            yield (
                uid("rec", number), chart, doctor, at, diagnosis, prescription, notes, attachments, NOW,
            )  # fmt: skip

    def trail(self) -> Iterator[Row]:
        """Events of the staff's and the doctors' reading, a list in every fourth."""
        draw, charts = self.draw, self.chart_ids
        people = [
            ("staff", uid("staff", number), f"staff{number}@example.com") for number in range(self.staff)
        ]
        people += [
            ("doctor", doctor, f"doctor{number}@example.com") for number, doctor in enumerate(self.doctor_ids)
        ]
        for number in range(self.events):
            role, user, email = people[int(draw() * len(people))]
            chart = charts[int(draw() * len(charts))]
            shown = [chart]
            is_list = draw() < 0.25
            action, patient = ("patient.list", None) if is_list else ("patient.read", chart)
            if is_list:
                shown = [charts[int(draw() * len(charts))] for _ in range(10)]
            yield (
                NOW + timedelta(seconds=number), user, email, role, uid("session", int(draw() * 5000)),
                action, "success", patient, patient, shown, shown, "192.0.2.7", uid("request", number),
            )  # fmt: skip
