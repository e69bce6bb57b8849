"""The clinic of openapi.yaml's examples: the demo data behind a service of its own."""

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from ipaddress import ip_address
from typing import Any
from uuid import UUID

from api.contract import contract
from api.settings import Settings
from persistence import demo
from security.roles import Role
from tests.support.client import Browser
from tests.support.service import KEY, Backend, Service

DOCUMENT = contract()
UNKNOWN = "00000000-0000-4000-8000-000000000000"
SECOND_CHART = "2b3c4d5e-6f70-4b2c-9d3e-6eaf50415a06"
CHART, VISIT, RECORD = (str(id) for id in (demo.CHART, demo.VISIT, demo.RECORD))
DOCTOR, ADMIN, PATIENT = (str(id) for id in (demo.DOCTOR, demo.ADMIN, demo.PATIENT))
COLLEAGUE = "3ae884d1-bfd3-5dc7-af43-11b59c8029da"
Cookies = dict[str, str]
Template = tuple[Backend, dict[Role, Cookies]]


@dataclass
class Clinic:
    """A service of its own over the demo data, with the limits of production, and everyone signed in."""

    service: Service
    jars: dict[Role, Cookies]

    def browser(self, role: Role | None = None) -> Browser:
        return self.service.browser(self.jars[role] if role else None)

    @property
    def anonymous(self) -> Browser:
        return self.browser()

    @property
    def admin(self) -> Browser:
        return self.browser(Role.ADMIN)

    @property
    def doctor(self) -> Browser:
        return self.browser(Role.DOCTOR)

    @property
    def staff(self) -> Browser:
        return self.browser(Role.STAFF)

    @property
    def patient(self) -> Browser:
        return self.browser(Role.PATIENT)

    def find(self, kind: str, name: str) -> dict[str, Any]:
        """The one of the list that `name` finds."""
        [found] = self.admin.get(f"/api/{kind}", params={"search": name}).json()[kind]
        return dict(found)


def settings(backend: Backend, **changes: Any) -> Settings:
    values = {"database_url": backend.database_url, "redis_url": backend.redis_url, "secret_key": KEY}
    return Settings(**{**values, **changes})


@contextmanager
def open_clinic(template: Template) -> Iterator[Clinic]:
    backend = template[0].copy()
    with Service(backend, settings(backend)) as service:
        yield Clinic(service, copy.deepcopy(template[1]))


def examples(content: dict[str, Any]) -> list[tuple[str, Any]]:
    shown = content.get("application/json", {}).get("examples", {})
    return [(name, example["value"]) for name, example in shown.items()]


def book(clinic: Clinic, by: Role = Role.STAFF, **changes: Any) -> Any:
    body = {"patientId": CHART, "doctorId": DOCTOR, "date": "2042-05-20T07:00:00Z", "reason": "x", **changes}
    return clinic.browser(by).post("/api/appointments", body)


def act(clinic: Clinic, what: str) -> Any:
    return clinic.staff.post(f"/api/appointments/{VISIT}/visit", {"act": what})


def move_visit(clinic: Clinic) -> dict[str, str]:
    moved = {"date": "2042-05-20T10:00:00+03:00"}
    assert clinic.doctor.patch(f"/api/appointments/{VISIT}", moved).status_code == 200
    return {}


def begin_visit(clinic: Clinic) -> dict[str, str]:
    """Its day has come."""
    moved = {"date": "2020-05-20T10:00:00+03:00"}
    assert clinic.doctor.patch(f"/api/appointments/{VISIT}", moved).status_code == 200
    return {}


def let_arrive(clinic: Clinic) -> dict[str, str]:
    begin_visit(clinic)
    assert act(clinic, "arrived").status_code == 200
    return {}


IDS = {str(id) for id in (demo.ADMIN, demo.DOCTOR, demo.STAFF, demo.PATIENT, CHART, VISIT, RECORD)}


def mask_variable_values(value: Any, key: str = "") -> Any:
    """The value, but only its kind where it is another each time: instants, network addresses, serial
    numbers, ids of what is made at run time (version 4, and not fixed by the demo data)."""
    match value:
        case dict():
            return {name: mask_variable_values(inner, name) for name, inner in value.items()}
        case list():
            return [mask_variable_values(inner) for inner in value]
        case str() if key == "url":
            return re.sub("[^/]{43}", "secret", value)
        case int() if key == "id":
            return "number"
        case str() if key == "cursor":
            return "cursor"
        case str() if key == "today":
            return type(date.fromisoformat(value))
        case str() if re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)", value):
            return type(datetime.fromisoformat(value))
        case str() if re.fullmatch(r"[0-9a-f-]{36}", value) and value not in IDS and UUID(value).version == 4:
            return UUID
    try:
        return type(ip_address(value)) if key == "address" else value
    except ValueError:
        return value
