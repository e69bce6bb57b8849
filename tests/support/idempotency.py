"""The operations that take an Idempotency-Key, each with a request that works."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx

from security.roles import Role
from tests.support.client import Browser
from tests.support.factories import World, chart, registration
from tests.support.service import Backend
from tests.support.small_clinic import add_doctor


@dataclass
class Creation:
    """`action`: of the trail. `table`: where the rows go."""

    browser: Browser
    path: str
    body: dict[str, Any]
    action: str
    table: str
    world: World

    def send(self, key: str, browser: Browser | None = None) -> httpx.Response:
        return (browser or self.browser).post(self.path, self.body, headers=with_key(key))

    def rows(self) -> int:
        return int(self.world.service.backend.sql(f"SELECT count(*) FROM {self.table}")[0][0])


def key() -> str:
    return uuid4().hex


def with_key(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


def claims(backend: Backend) -> int:
    """How many keys are stored."""
    return int(backend.sql("SELECT count(*) FROM idempotency_keys")[0][0])


def is_repeat(answer: httpx.Response) -> bool:
    said = answer.headers.get("Idempotency-Replayed")
    assert said in (None, "true")
    return said is not None


def new_chart(world: World) -> Creation:
    return Creation(world.staff, "/api/patients", chart(), "patient.create", "patients", world)


def new_appointment(world: World) -> Creation:
    body = {"patientId": world.chart()["id"], "doctorId": world.doctor.me()["id"], "date": world.slot()}
    body["reason"] = "Check-up"
    return Creation(world.staff, "/api/appointments", body, "appointment.create", "appointments", world)


def new_record(world: World) -> Creation:
    body = {"patientId": world.chart()["id"], "diagnosis": "Well", "prescription": "", "notes": ""}
    return Creation(world.doctor, "/api/records", body, "record.create", "medical_records", world)


def new_account(world: World) -> Creation:
    return Creation(
        world.admin, "/api/auth/register", registration(Role.DOCTOR), "account.create", "users", world
    )


def new_version(world: World) -> Creation:
    record = world.record(world.chart()["id"])
    body = {"reason": "It was the other leg", "diagnosis": "A sprain", "notes": None}
    amended = "record_versions WHERE reason IS NOT NULL"
    return Creation(
        world.doctor, f"/api/records/{record['id']}/versions", body, "record.amend", amended, world
    )


def new_absence(world: World) -> Creation:
    doctor = str(add_doctor(world.service.backend, "Dr. Deniz Dogan"))
    body = {"from": world.slot(), "to": "2199-12-31T00:00:00Z", "doctorId": doctor}
    return Creation(world.staff, "/api/absences", body, "absence.create", "absences", world)


CREATIONS: list[Callable[[World], Creation]] = [
    new_chart,
    new_appointment,
    new_record,
    new_account,
    new_version,
    new_absence,
]
