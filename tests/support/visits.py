"""Acts of visits, for the tests of each side of them."""

from typing import Any

import httpx

from tests.support.client import Browser
from tests.support.factories import World

Appointment = dict[str, Any]
Visit = dict[str, Any]


def act(browser: Browser, appointment: Appointment, what: str, **more: Any) -> httpx.Response:
    return browser.post(f"/api/appointments/{appointment['id']}/visit", {"act": what, **more})


def visit(browser: Browser, appointment: Appointment) -> Visit:
    answer = browser.get(f"/api/appointments/{appointment['id']}/visit")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def done(browser: Browser, appointment: Appointment, *what: str, **more: Any) -> Visit:
    """The visit after these acts, which must succeed; it is the one that GET shows."""
    for each in what:
        answer = act(browser, appointment, each, **more)
        assert answer.status_code == 200, answer.text
        assert visit(browser, appointment) == answer.json()
    return visit(browser, appointment)


def past(world: World, **changes: Any) -> Appointment:
    """An appointment whose day has come."""
    return world.appointment(date=world.past_slot(), **changes)
