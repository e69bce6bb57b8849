"""Free times (contract, "Free times"), by the front door on random days in zones whose clocks change: what is
offered is what a search through all times finds, and a patient can book it."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any

import pytest

from api.schedule.weekly import stored_hours
from persistence.postgres.calendar import EARLIEST, Span
from security.roles import Role
from tests.support.appointments import book
from tests.support.client import Browser
from tests.support.factories import World
from tests.support.free_times import DAY, ZONES, Case, model_of, random_case
from tests.support.service import Backend, Service

pytestmark = pytest.mark.slow

CASES = int(os.environ.get("MEDISECURE_SLOTS", "3"))  # for each zone
TO_COME = datetime(2040, 1, 1, tzinfo=UTC)
BOOK = (
    "INSERT INTO appointments (id, doctor_id, patient_id, date, ends_at, reason, fee) "
    "VALUES (gen_random_uuid(), $1, $2, $3, $4, 'SQL', 0)"
)
CLOSE = "INSERT INTO absences (id, doctor_id, begins, ends) VALUES (gen_random_uuid(), $1, $2, $3)"
WORK = (
    "INSERT INTO doctor_hours (doctor_id, hours, version) VALUES ($1, $2, nextval('doctor_hours_versions')) "
    "ON CONFLICT (doctor_id) DO UPDATE SET hours = excluded.hours, version = excluded.version"
)


def shown(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")


class Clinic:
    """A doctor and a patient with a chart, in a zone, and what is in their calendars."""

    def __init__(self, world: World, service: Service, backend: Backend) -> None:
        self.backend = backend
        self.doctor = world.account(Role.DOCTOR)[1]["id"]
        self.other_doctor = world.account(Role.DOCTOR)[1]["id"]
        self.other_chart = world.chart()["id"]
        patient, chart = world.linked_patient()
        self.chart = chart["id"]
        self.patient, self.staff = (service.browser(one.cookies) for one in (patient, world.staff))

    def fill(self, case: Case) -> Case:
        """What is left of the case, as no two visits overlap. Every other one is the patient's own, with
        another doctor."""
        hours = None if case.hours is None else stored_hours(case.hours)
        if hours is None:
            self.backend.sql("DELETE FROM doctor_hours WHERE doctor_id = $1", self.doctor)
        else:
            self.backend.sql(WORK, self.doctor, json.dumps(hours))
        for number, span in enumerate(case.closed):
            self.backend.sql(CLOSE, [self.doctor, None][number % 2], *span)
        busy = apart(case.busy)
        for span in busy[::2]:
            self.backend.sql(BOOK, self.doctor, self.other_chart, *span)
        for span in busy[1::2]:
            self.backend.sql(BOOK, self.other_doctor, self.chart, *span)
        return case._replace(busy=busy, after=EARLIEST)

    def offered(self, browser: Browser, days: list[date]) -> list[datetime]:
        answers = [browser.get(f"/api/doctors/{self.doctor}/slots?date={day}").json() for day in days]
        return [datetime.fromisoformat(one) for answer in answers for one in answer["slots"]]

    def ask_between(self, case: Case, begins: datetime, free: list[datetime]) -> None:
        """A time off the grid is refused, and the first free one after it is told."""
        if case.hours is None:
            return
        following = [instant for instant in free if instant > begins]
        answer = book(self.patient, self.chart, self.doctor, shown(begins + timedelta(seconds=1)))
        assert answer.status_code == 400, (case, begins)
        if following:
            assert answer.json()["detail"].endswith(f"from then on is {shown(following[0])}"), (case, begins)

    def first(self, browser: Browser, case: Case, limit: int) -> list[datetime]:
        """The first of them, as /api/slots has them."""
        begins, _ = case.clinic.bounds_of(case.days[0])
        _, ends = case.clinic.bounds_of(case.days[-1])
        params: dict[str, Any] = {"from": shown(begins), "to": shown(ends), "doctorId": self.doctor}
        answer = browser.get("/api/slots", params={**params, "limit": limit}).json()
        return [datetime.fromisoformat(one["date"]) for one in answer["slots"]]


def apart(spans: list[Span]) -> list[Span]:
    """Those that do not overlap one before."""
    kept: list[Span] = []
    for begins, ends in spans:
        if all(ends <= other[0] or other[1] <= begins for other in kept):
            kept.append((begins, ends))
    return kept


def cases_of(zone: str) -> Iterator[tuple[Random, Case]]:
    """On days that are far from each other."""
    used: set[date] = set()
    random = Random(zone)  # noqa: S311 - the same cases each time
    while len(used) < CASES:
        case = random_case(random, zone, TO_COME)
        if case.clinic.day_of(case.after).year < 2190 and all(abs(case.day - day) > 9 * DAY for day in used):
            used.add(case.day)
            yield random, case


@pytest.mark.parametrize("zone", ZONES)
def test_on_random_days_a_patient_can_book_what_is_offered(world: World, backend: Backend, zone: str) -> None:
    """contract: "From the begin of each interval of the working hours a step is the length of a visit"."""
    with Service(backend, backend.settings(clinic_timezone=zone, appointment_minutes=20)) as service:
        clinic = Clinic(world, service, backend)
        for random, some in cases_of(zone):
            case = clinic.fill(some._replace(clinic=service.settings.clinic))
            mine, theirs = case, case._replace(busy=case.busy[::2])
            free = starts_of(mine)
            assert clinic.offered(clinic.staff, case.days) == starts_of(theirs), case
            assert clinic.offered(clinic.patient, case.days) == free, case
            assert clinic.first(clinic.patient, case, 5) == free[:5], case
            for begins in random.sample(free, min(2, len(free))):
                if begins not in free:
                    continue  # the one before takes its time
                clinic.ask_between(case, begins, free)
                answer = book(clinic.patient, clinic.chart, clinic.doctor, shown(begins))
                assert answer.status_code == 201, (case, begins, answer.text)
                [visit] = [visit for visit in model_of(mine) if visit[0] == begins]
                mine = mine._replace(busy=[*mine.busy, visit])
                free = starts_of(mine)
            assert clinic.offered(clinic.patient, case.days) == free, case


def starts_of(case: Case) -> list[datetime]:
    """On the days of the case, in the order of time."""
    return [begins for begins, _ in model_of(case) if case.clinic.day_of(begins) in case.days]
