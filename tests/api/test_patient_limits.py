"""How patients book by themselves (contract: "how soon, how far ahead and how many visits patients book")."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from api.schedule.naming import NONE
from tests.api.test_appointment_slots import concurrently
from tests.support.appointments import book, change, now, read
from tests.support.client import Browser
from tests.support.factories import World
from tests.support.schedule import PROBLEM, be_away, doctor_with, put_hours, week
from tests.support.service import Backend, Service

LIMITS = {
    "booking_lead_minutes": 60,
    "booking_horizon_days": 10,
    "booking_max_open": 2,
    "cancel_cutoff_minutes": 120,
}
EVERY_DAY = week("00:00-24:00", weekdays=(1, 2, 3, 4, 5, 6, 7))


@pytest.fixture(scope="module")
def limited(backend: Backend, world: World) -> Iterator[Service]:
    with Service(backend, backend.settings(**LIMITS)) as running:
        yield running


class Patient:
    """A new one, whose chart is linked, and their doctor."""

    def __init__(self, world: World, limited: Service, doctor: str) -> None:
        browser, self.chart = world.linked_patient()
        self.browser = limited.browser(browser.cookies)
        self.doctor = doctor

    def book(self, date: str, by: Browser | None = None) -> Any:
        return book(by or self.browser, self.chart["id"], self.doctor, date)


@pytest.fixture
def patient(world: World, limited: Service, doctors: list[str]) -> Patient:
    return Patient(world, limited, doctors[0])


def code_of(browser: Browser, method: str, path: str, body: dict[str, Any]) -> str:
    answer = browser.request(method, path, json=body, headers=PROBLEM)
    assert answer.status_code == 400, answer.text
    return str(answer.json()["code"])


def test_a_patient_books_neither_too_soon_nor_too_far_ahead(
    world: World, limited: Service, patient: Patient
) -> None:
    """BOOKING_LEAD_MINUTES, BOOKING_HORIZON_DAYS: to the end of the last day."""
    last_day = datetime.now(UTC).date() + timedelta(days=10)
    soon = {"detail": "date: must be at least 60 minutes from now"}
    far = {"detail": "date: must be at most 10 days from today"}
    assert patient.book(now(minutes=-1)).json() == {"detail": "date: must not be in the past"}
    assert patient.book(now(minutes=59)).json() == soon
    assert patient.book(f"{last_day + timedelta(days=1)}T00:00:00Z").json() == far
    staff = limited.browser(world.staff.cookies)
    assert patient.book(now(minutes=5), staff).status_code == 201
    booked = patient.book(f"{last_day}T23:59:59Z")
    assert booked.status_code == 201, booked.text
    assert change(patient.browser, booked.json(), date=now(minutes=59)).json() == soon
    assert change(patient.browser, booked.json(), date=now(days=12)).json() == far
    assert change(patient.browser, booked.json(), date=now(days=3)).status_code == 200
    assert change(staff, booked.json(), date=now(days=300)).status_code == 200
    body = {"patientId": patient.chart["id"], "doctorId": patient.doctor, "reason": "x"}
    for date, code in ((now(minutes=59), "too_soon"), (now(days=12), "too_far_ahead")):
        assert code_of(patient.browser, "POST", "/api/appointments", {**body, "date": date}) == code


def test_a_patient_has_a_few_visits_to_come_at_most(world: World, limited: Service, patient: Patient) -> None:
    """BOOKING_MAX_OPEN: those that have begun, and cancelled ones, do not count; a move makes none."""
    staff = limited.browser(world.staff.cookies)
    assert patient.book(now(days=-1), staff).status_code == 201
    first, second = (patient.book(now(days=days)) for days in (1, 2))
    assert (first.status_code, second.status_code) == (201, 201)
    refused = patient.book(now(days=3))
    detail = "The patient has 2 appointments to come already; more cannot be booked"
    assert (refused.status_code, refused.json()) == (400, {"detail": detail})
    assert change(patient.browser, first.json(), date=now(days=4)).status_code == 200
    assert change(patient.browser, second.json(), status="cancelled").status_code == 200
    assert patient.book(now(days=3)).status_code == 201
    assert patient.book(now(days=5), staff).status_code == 201
    body = {"patientId": patient.chart["id"], "doctorId": patient.doctor, "date": now(days=6), "reason": "x"}
    assert code_of(patient.browser, "POST", "/api/appointments", body) == "too_many_open"


def test_many_bookings_at_once_are_no_more_than_a_few(patient: Patient, doctors: list[str]) -> None:
    dates = [now(days=7, hours=hour) for hour in range(8)]
    with_others = [(doctors[number % 4], date) for number, date in enumerate(dates)]
    answers = concurrently(
        [partial(book, patient.browser, patient.chart["id"], doctor, date) for doctor, date in with_others]
    )
    assert sorted(answer.status_code for answer in answers) == [201] * 2 + [400] * 6


def test_a_patient_moves_and_cancels_in_good_time(world: World, limited: Service, patient: Patient) -> None:
    """CANCEL_CUTOFF_MINUTES: of both, so that nobody moves a visit away to cancel it."""
    booked = patient.book(now(minutes=110)).json()
    late = {"detail": "Less than 120 minutes before it begins the patient can neither move nor cancel it"}
    assert change(patient.browser, booked, status="cancelled").json() == late
    assert change(patient.browser, booked, date=now(days=1)).json() == late
    path = f"/api/appointments/{booked['id']}"
    assert code_of(patient.browser, "PATCH", path, {"status": "cancelled"}) == "too_late"
    assert read(world, booked) == booked
    assert change(limited.browser(world.staff.cookies), booked, date=now(minutes=130)).status_code == 200
    assert change(patient.browser, booked, status="cancelled").status_code == 200


def test_without_limits_a_patient_books_as_they_like(
    world: World, patient: Patient, doctors: list[str]
) -> None:
    patient.doctor = doctors[4]
    patient.browser = world.service.browser(patient.browser.cookies)
    booked = [patient.book(date) for date in (now(minutes=1), now(days=400), now(days=401), now(days=402))]
    assert [answer.status_code for answer in booked] == [201] * 4
    assert change(patient.browser, booked[0].json(), status="cancelled").status_code == 200


def test_the_time_that_a_patient_is_told_is_within_the_limits(
    world: World, backend: Backend, patient: Patient
) -> None:
    """Neither too soon nor too far ahead."""
    _, patient.doctor = doctor_with(world, None)
    be_away(backend, patient.doctor, now(minutes=-60), now(minutes=90))
    soon = patient.book(now(minutes=80)).json()["detail"]
    first = datetime.fromisoformat(soon.rpartition(" ")[2])
    assert timedelta(minutes=89) < first - datetime.now(UTC) <= timedelta(minutes=120)
    put_hours(world.staff, patient.doctor, [{**one, "validFrom": now(days=11)[:10]} for one in EVERY_DAY])
    assert patient.book(now(days=2)).json()["detail"].endswith(f"; {NONE}")


def test_who_asks_for_a_time_that_is_too_early_is_told_the_first_free_one(
    world: World, limited: Service, patient: Patient
) -> None:
    """contract: "names the first free time from there on"; nothing is offered before now."""
    bare = {-60: "must not be in the past", 30: "must be at least 60 minutes from now"}
    _, patient.doctor = doctor_with(world, None)
    for minutes, said in bare.items():
        refused = patient.book(now(minutes=minutes))
        assert (refused.status_code, refused.json()) == (400, {"detail": f"date: {said}"})
    put_hours(world.staff, patient.doctor, EVERY_DAY)
    moved = patient.book(now(days=2)[:14] + "00:00Z")
    assert moved.status_code == 201
    slots = f"/api/slots?doctorId={patient.doctor}&limit=1"
    for minutes, said in {-(10**6): bare[-60], **bare}.items():
        for refused in (
            patient.book(now(minutes=minutes)),
            change(patient.browser, moved.json(), date=now(minutes=minutes)),
        ):
            [first] = limited.browser(patient.browser.cookies).get(slots).json()["slots"]
            said_then = f"date: {said}; the first free time from then on is {first['date']}"
            assert (refused.status_code, refused.json()) == (400, {"detail": said_then})
    assert patient.book(now(days=4)[:14] + "00:00Z").status_code == 201
    refused = patient.book(now(minutes=30))  # one more they may not book at all
    assert (refused.status_code, refused.json()) == (400, {"detail": f"date: {bare[30]}"})
