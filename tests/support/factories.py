"""People, charts, appointments and records, made through the front door as a clinic would."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import uuid4

from security.passwords import BCRYPT_COST
from security.roles import Role
from tests.support.client import Browser
from tests.support.service import Service

PASSWORD = "correct horse"
numbers = count()


def email(name: str = "person") -> str:
    return f"{name}-{uuid4().hex[:12]}@example.com"


def registration(role: Role = Role.PATIENT, **changes: Any) -> dict[str, Any]:
    body = {"name": "Robin Roe", "email": email(role), "password": PASSWORD, "role": role.value}
    if role is Role.DOCTOR:
        body["specialization"] = "Cardiology"
    if role is Role.STAFF:
        body["department"] = "Front desk"
    return {**body, **changes}


def chart(**changes: Any) -> dict[str, Any]:
    return {
        "name": "Charlie Chart",
        "email": email("chart"),
        "phone": "+1 555 0100",
        "dateOfBirth": "1980-05-17",
        "gender": "other",
        "address": "1 Main Street",
        **changes,
    }


def populate(service: Service) -> dict[str, dict[str, str]]:
    """Make the first administrator as `medisecure create-admin` does, and everyone else over HTTP."""
    import bcrypt

    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(BCRYPT_COST)).decode()
    service.backend.sql(
        "INSERT INTO users (id, email, password_hash, name, role, status, sort_name, search_text) VALUES "
        "(gen_random_uuid(), 'admin@test.example', $1, 'Ada Admin', 'admin', 'active', 'ada admin', "
        "'ada admin')",
        hashed,
    )
    admin = service.browser()
    assert admin.login("admin@test.example", PASSWORD).status_code == 200
    cookies = {Role.ADMIN.value: admin.cookies}
    names = {
        "doctor": "Dora Demir", "staff": "Sam Staff", "patient": "Paula Patient",
        "other_doctor": "Emil Durand", "other_patient": "Otto Okafor",
    }  # fmt: skip
    for name, full_name in names.items():
        role = Role(name.removeprefix("other_"))
        body = registration(role, name=full_name, email=f"{name}@test.example")
        assert admin.post("/api/auth/register", body).status_code == 201
        person = service.browser()
        assert person.login(body["email"], PASSWORD).status_code == 200
        cookies[name] = person.cookies
    return cookies


@dataclass
class World:
    service: Service
    people: dict[str, Browser]

    @property
    def admin(self) -> Browser:
        return self.people["admin"]

    @property
    def doctor(self) -> Browser:
        return self.people["doctor"]

    @property
    def other_doctor(self) -> Browser:
        return self.people["other_doctor"]

    @property
    def staff(self) -> Browser:
        return self.people["staff"]

    @property
    def patient(self) -> Browser:
        return self.people["patient"]

    @property
    def other_patient(self) -> Browser:
        return self.people["other_patient"]

    def account(self, role: Role = Role.PATIENT, **changes: Any) -> tuple[Browser, dict[str, Any]]:
        """A new active account, signed in, and what `GET /api/users/me` says of it."""
        body = registration(role, **changes)
        made = self.admin.post("/api/auth/register", body)
        assert made.status_code == 201, made.text
        browser = self.service.browser()
        assert browser.login(body["email"], body["password"]).status_code == 200
        return browser, browser.me()

    def chart(self, **changes: Any) -> dict[str, Any]:
        made = self.staff.post("/api/patients", chart(**changes))
        assert made.status_code == 201, made.text
        return dict(made.json())

    def link(self, patient_id: str, browser: Browser) -> None:
        linked = self.staff.put(f"/api/patients/{patient_id}/account", {"userId": browser.me()["id"]})
        assert linked.status_code == 200, linked.text

    def linked_patient(self) -> tuple[Browser, dict[str, Any]]:
        """A patient who has signed in, and the chart that staff linked to the account."""
        browser, me = self.account(name="Lina Linked")
        linked = self.chart(name=me["name"])
        self.link(linked["id"], browser)
        return browser, linked

    def slot(self) -> str:
        """An hour in the future that no other call was given."""
        begins = datetime(2100, 1, 1, tzinfo=UTC) + timedelta(hours=next(numbers))
        return begins.strftime("%Y-%m-%dT%H:%M:%SZ")

    def past_slot(self) -> str:
        """The same of the past, where appointments can be completed."""
        begins = datetime(1950, 1, 1, tzinfo=UTC) + timedelta(hours=next(numbers))
        return begins.strftime("%Y-%m-%dT%H:%M:%SZ")

    def appointment(self, **changes: Any) -> dict[str, Any]:
        """Booked by staff, with the doctor and a new chart unless said otherwise."""
        body = {"reason": "Check-up", **changes}
        body.setdefault("doctorId", self.doctor.me()["id"])
        body.setdefault("date", self.slot())
        if "patientId" not in body:
            body["patientId"] = self.chart()["id"]
        made = self.staff.post("/api/appointments", body)
        assert made.status_code == 201, made.text
        return dict(made.json())

    def record(self, patient_id: str, **changes: Any) -> dict[str, Any]:
        body = {"patientId": patient_id, "diagnosis": "Well", "prescription": "", "notes": "", **changes}
        made = self.doctor.post("/api/records", body)
        assert made.status_code == 201, made.text
        return dict(made.json())
