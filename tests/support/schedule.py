"""Hours and absences, for the tests of what may be booked."""

from typing import Any
from uuid import uuid4

from security.roles import Role
from tests.support.appointments import later
from tests.support.client import Browser
from tests.support.factories import World
from tests.support.service import Backend

TUESDAY = "2101-03-01T00:00:00Z"
WHY = {"reason": "It cannot wait"}
PROBLEM = {"accept": "application/problem+json"}
Doctor = tuple[Browser, str]


def at(clock: str, days: int = 0) -> str:
    """That time of that Tuesday, or so many days later."""
    hour, minute = map(int, clock.split(":"))
    return later(TUESDAY, days=days, hours=hour, minutes=minute)


def week(*times: str, weekdays: tuple[int, ...] = (2,), minutes: int | None = None) -> list[dict[str, Any]]:
    """`times`: such as `08:00-12:00`."""
    return [
        {
            "weekday": weekday,
            "from": begins,
            "to": ends,
            "validFrom": None,
            "validUntil": None,
            "minutes": minutes,
        }
        for weekday in weekdays
        for begins, _, ends in (time.partition("-") for time in times)
    ]


def put_hours(browser: Browser, doctor: str, hours: list[dict[str, Any]] | None) -> dict[str, Any]:
    answer = browser.put(f"/api/doctors/{doctor}/hours", {"hours": hours})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def doctor_with(world: World, hours: list[dict[str, Any]] | None) -> Doctor:
    """A new one, who works then."""
    browser, me = world.account(Role.DOCTOR)
    if hours is not None:
        put_hours(browser, me["id"], hours)
    return browser, me["id"]


def be_away(backend: Backend, doctor: str | None, begins: str, ends: str) -> None:
    backend.sql(
        "INSERT INTO absences (id, doctor_id, begins, ends) VALUES ($1, $2, "
        f"'{begins}'::timestamptz, '{ends}'::timestamptz)",
        uuid4(),
        doctor,
    )


def history(browser: Browser, appointment: dict[str, Any]) -> list[tuple[str, str | None, str | None]]:
    """(field, from, to), the newest first."""
    page = browser.get(f"/api/appointments/{appointment['id']}/history").json()
    return [(one["field"], one["from"], one["to"]) for one in page["changes"]]


def noted(backend: Backend, appointment: dict[str, Any]) -> list[str]:
    """What the trail says was done to it, in that order."""
    found = backend.sql(
        "SELECT action FROM audit_events WHERE target_id = $1 AND outcome = 'success' "
        "AND action NOT IN ('appointment.read', 'appointment.history') ORDER BY id",
        appointment["id"],
    )
    return [row["action"].removeprefix("appointment.") for row in found]
