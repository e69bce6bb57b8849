"""Booking, changing and reading appointments, for the tests of each side of them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from tests.support.client import Browser
from tests.support.factories import World

DEPARTED = {"detail": "date: the doctor takes no appointments any more"}
BEGUN = {"detail": "An appointment that has begun cannot be moved or cancelled by the patient"}
TOO_EARLY = {"detail": "status: an appointment cannot be completed before its day"}
FINAL = {"detail": "A completed or cancelled appointment cannot change"}


def book(browser: Browser, patient: str, doctor: str, date: str, **more: Any) -> httpx.Response:
    body = {"patientId": patient, "doctorId": doctor, "date": date, "reason": "Check-up", **more}
    return browser.post("/api/appointments", body)


def change(browser: Browser, appointment: dict[str, Any], **changes: Any) -> httpx.Response:
    return browser.patch(f"/api/appointments/{appointment['id']}", changes)


def later(date: str, **by: float) -> str:
    moved = datetime.fromisoformat(date) + timedelta(**by)
    return moved.astimezone(UTC).isoformat().replace("+00:00", "Z")


def now(**by: float) -> str:
    return later(datetime.now(UTC).replace(microsecond=0).isoformat(), **by)


def read(world: World, appointment: dict[str, Any]) -> dict[str, Any]:
    return dict(world.admin.get(f"/api/appointments/{appointment['id']}").json())


def listed(browser: Browser, **params: Any) -> list[dict[str, Any]]:
    page = browser.get("/api/appointments", params={"limit": 100, **params}).json()
    assert list(page) == ["appointments", "total"]
    assert page["total"] == len(page["appointments"])
    return list(page["appointments"])
