"""The files of tests/data/synthea, and how they go in through the API as a clinic would do it."""

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from tests.support.client import Browser
from tests.support.command import create_admin
from tests.support.factories import PASSWORD
from tests.support.service import Service

DATA = Path(__file__).parents[1] / "data/synthea"
ZONE = ZoneInfo("America/New_York")  # all of it happens in Massachusetts
VISIT = timedelta(minutes=30)
FEE = 150
DESK = "0"  # the id of the clinic's own staff, whom Synthea does not know
Row = dict[str, str]


def table(name: str) -> list[Row]:
    with open(DATA / f"{name}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


PATIENTS = {row["Id"]: row for row in table("patients")}
PROVIDERS = {row["Id"]: row for row in table("providers")}
ENCOUNTERS = {
    row["Id"]: row for row in sorted(table("encounters"), key=lambda row: (row["START"], row["Id"]))
}
DOCTORS = {row["PROVIDER"] for row in ENCOUNTERS.values()}
APPLICANTS = {key for key, row in PROVIDERS.items() if not row["NAME"].isascii()} - DOCTORS
WITH_ACCOUNT = list(PATIENTS)[::3]
LINKED, UNLINKED = WITH_ACCOUNT[:6], WITH_ACCOUNT[6:]


def by(column: str, rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows, grouped by what stands in a column."""
    groups = defaultdict(list)
    for row in rows:
        groups[row[column]].append(row)
    return dict(groups)


ALLERGIES = by("PATIENT", table("allergies"))
CONDITIONS = by("ENCOUNTER", table("conditions"))
MEDICATIONS = by("ENCOUNTER", table("medications"))
RECORDED = [row for key, row in ENCOUNTERS.items() if key in CONDITIONS or key in MEDICATIONS]


def listed(rows: Iterable[Row]) -> str:
    return "; ".join(row["DESCRIPTION"] for row in rows)


def email(key: str) -> str:
    return f"{key}@synthea.example"


def phone(key: str) -> str:
    return f"+1 555 {int(key[:8], 16) % 10_000_000:07}"


def instant(row: Row) -> datetime:
    return datetime.fromisoformat(row["START"].replace("Z", "+00:00"))


def patient_name(key: str) -> str:
    return f"{PATIENTS[key]['FIRST']} {PATIENTS[key]['LAST']}"


def chart_of(key: str) -> dict[str, Any]:
    row = PATIENTS[key]
    return {
        "name": patient_name(key),
        "email": email(key),
        "phone": phone(key),
        "dateOfBirth": row["BIRTHDATE"],
        "gender": {"M": "male", "F": "female"}[row["GENDER"]],
        "address": f"{row['ADDRESS']}, {row['CITY']}, {row['STATE']} {row['ZIP']}".strip(),
        "allergies": listed(ALLERGIES.get(key, [])) or None,
    }


def record_of(encounter: Row) -> dict[str, Any]:
    """What was found and prescribed at an encounter; where nothing was found, what it was for."""
    key = encounter["Id"]
    return {
        "diagnosis": listed(CONDITIONS.get(key, [])) or encounter["DESCRIPTION"],
        "prescription": listed(MEDICATIONS.get(key, [])),
        "notes": encounter["REASONDESCRIPTION"],
    }


def expected_refusals() -> dict[str, set[str]]:
    """Who is in two places at once, by encounter, when all of them are booked and none is completed."""
    booked: list[Row] = []
    refused = {}
    for key, row in ENCOUNTERS.items():
        at_once = [other for other in booked if abs(instant(row) - instant(other)) < VISIT]
        clashes = {
            who
            for who, column in (("doctor", "PROVIDER"), ("patient", "PATIENT"))
            if any(other[column] == row[column] for other in at_once)
        }
        if clashes:
            refused[key] = clashes
        else:
            booked.append(row)
    return refused


@dataclass
class Clinic:
    """The clinic after all of it. What Synthea has by its own ids, `ids` tells ours."""

    service: Service
    admin: Browser
    staff: Browser
    ids: dict[str, str] = field(default_factory=dict)
    people: dict[str, Browser] = field(default_factory=dict)  # doctors, and patients with an account
    accounts: dict[str, str] = field(default_factory=dict)  # ids of the patients' accounts
    refused: dict[str, str] = field(default_factory=dict)
    visits: dict[str, dict[str, Any]] = field(default_factory=dict)  # answers, by encounter
    referrals: dict[str, dict[str, Any]] = field(default_factory=dict)  # answers, by patient
    records: dict[str, dict[str, Any]] = field(default_factory=dict)  # answers, by encounter
    opened: dict[str, dict[str, Any]] = field(default_factory=dict)  # answers, by patient

    @property
    def appointments(self) -> list[dict[str, Any]]:
        return [*self.visits.values(), *self.referrals.values()]


def each(work: Callable[[Any], Any], items: Iterable[Any]) -> None:
    """Do the work for all items, eight at a time."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, items))


def expect(status: int, answer: Any) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    return dict(answer.json())


def register(service: Service, key: str, role: str, name: str, **more: str) -> str:
    body = {
        "name": name,
        "email": email(key),
        "password": PASSWORD,
        "role": role,
        "phone": phone(key),
        **more,
    }
    return str(expect(201, service.browser().post("/api/auth/register", body))["id"])


def sign_in(clinic: Clinic, key: str) -> None:
    browser = clinic.service.browser()
    expect(200, browser.login(email(key), PASSWORD))
    clinic.people[key] = browser


def open_clinic(service: Service) -> Clinic:
    create_admin(service.backend.database_url, "admin@synthea.example", "Ada Admin", PASSWORD)
    admin, staff = service.browser(), service.browser()
    expect(200, admin.login("admin@synthea.example", PASSWORD))
    employed = register(service, DESK, "staff", "Sam Staff", department="Front desk")
    expect(403, staff.login(email(DESK), PASSWORD))
    expect(200, admin.patch(f"/api/users/{employed}", {"status": "active"}))
    expect(200, staff.login(email(DESK), PASSWORD))
    return Clinic(service, admin, staff)


def join(clinic: Clinic, key: str) -> None:
    """A provider registers as a doctor; those who are needed are approved."""
    row = PROVIDERS[key]
    clinic.ids[key] = register(clinic.service, key, "doctor", row["NAME"], specialization=row["SPECIALITY"])
    if key in DOCTORS:
        approved = expect(200, clinic.admin.patch(f"/api/users/{clinic.ids[key]}", {"status": "active"}))
        assert approved["status"] == "active"


def admit(clinic: Clinic, key: str) -> None:
    clinic.opened[key] = expect(201, clinic.staff.post("/api/patients", chart_of(key)))
    clinic.ids[key] = clinic.opened[key]["id"]


def open_account(clinic: Clinic, key: str) -> None:
    clinic.accounts[key] = register(clinic.service, key, "patient", patient_name(key))
    if key in LINKED:
        link = {"userId": clinic.accounts[key]}
        expect(200, clinic.staff.put(f"/api/patients/{clinic.ids[key]}/account", link))
        sign_in(clinic, key)


def book(clinic: Clinic, encounter: Row) -> Any:
    body = {
        "patientId": clinic.ids[encounter["PATIENT"]],
        "doctorId": clinic.ids[encounter["PROVIDER"]],
        "date": encounter["START"],
        "reason": encounter["DESCRIPTION"],
    }
    answer = clinic.staff.post("/api/appointments", body)
    if answer.status_code == 201:
        clinic.visits[encounter["Id"]] = answer.json()
    return answer


def book_all(clinic: Clinic, encounters: list[Row]) -> None:
    for encounter in encounters:
        answer = book(clinic, encounter)
        if answer.status_code != 201:
            clinic.refused[encounter["Id"]] = expect(400, answer)["detail"]


def complete(clinic: Clinic, encounters: list[Row]) -> None:
    for encounter in encounters:
        doctor = clinic.people[encounter["PROVIDER"]]
        if visit := clinic.visits.get(encounter["Id"]):
            done = expect(200, doctor.patch(f"/api/appointments/{visit['id']}", {"status": "completed"}))
            assert done == {**visit, "status": "completed"}
            clinic.visits[encounter["Id"]] = done


def write_records(clinic: Clinic, encounters: list[Row]) -> None:
    for encounter in encounters:
        body = {"patientId": clinic.ids[encounter["PATIENT"]], **record_of(encounter)}
        written = clinic.people[encounter["PROVIDER"]].post("/api/records", body)
        clinic.records[encounter["Id"]] = expect(201, written)
        if encounter["Id"] in CONDITIONS:
            note_finding(clinic, encounter)


def finding_of(encounter: Row) -> str:
    return f"{encounter['START']} {listed(CONDITIONS[encounter['Id']])}"


def note_finding(clinic: Clinic, encounter: Row) -> None:
    """Its doctor adds a line to the chart, below what others have written, who do so at the same time."""
    doctor, path = clinic.people[encounter["PROVIDER"]], f"/api/patients/{clinic.ids[encounter['PATIENT']]}"
    is_stale = True
    while is_stale:
        read = doctor.get(path)
        lines = [read.json()["medicalHistory"], finding_of(encounter)]
        body = {"medicalHistory": "\n".join(filter(None, lines))}
        changed = doctor.patch(path, body, headers={"If-Match": read.headers["etag"]})
        is_stale = changed.status_code == 412
    expect(200, changed)


def refer(clinic: Clinic, today: date) -> None:
    seen_last = {row["PATIENT"]: row["PROVIDER"] for row in ENCOUNTERS.values()}
    patients, doctors = list(seen_last), list(seen_last.values())
    for number, (key, provider) in enumerate(zip(patients, doctors[1:] + doctors[:1], strict=True)):
        begins = datetime.combine(today + timedelta(days=number % 3), datetime.min.time(), ZONE)
        body = {
            "patientId": clinic.ids[key],
            "doctorId": clinic.ids[provider],
            "date": begins.isoformat(),
            "reason": "Referral",
        }
        booked = expect(201, clinic.staff.post("/api/appointments", body))
        if PATIENTS[key]["DEATHDATE"]:
            cancel = {"status": "cancelled", "notes": f"Died on {PATIENTS[key]['DEATHDATE']}"}
            booked = expect(200, clinic.staff.patch(f"/api/appointments/{booked['id']}", cancel))
        clinic.referrals[key] = booked


def today_here() -> date:
    """Today at the clinic."""
    return datetime.now(ZONE).date()


def enter_history(clinic: Clinic) -> None:
    """Everything that the files tell, and a referral of each patient."""
    each(partial(admit, clinic), PATIENTS)
    each(partial(join, clinic), DOCTORS | APPLICANTS)
    each(partial(sign_in, clinic), DOCTORS)
    each(partial(open_account, clinic), WITH_ACCOUNT)
    each(partial(book_all, clinic), by("PATIENT", ENCOUNTERS.values()).values())
    each(partial(complete, clinic), by("PROVIDER", ENCOUNTERS.values()).values())
    for key in clinic.refused:
        expect(201, book(clinic, ENCOUNTERS[key]))
    complete(clinic, [ENCOUNTERS[key] for key in clinic.refused])
    each(partial(write_records, clinic), by("PROVIDER", RECORDED).values())
    refer(clinic, today_here())
