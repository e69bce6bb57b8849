"""NO_SHOW_AFTER_HOURS: bookings of which nobody has said hours after they began that the patient came."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from persistence.audit_chain import Key
from persistence.no_shows import MISSED, Between, NoShows
from persistence.postgres.calendar import EARLIEST
from persistence.postgres.database import Database
from tests.support import audit_trail
from tests.support.appointments import change, now, read
from tests.support.factories import World
from tests.support.running import wait_until
from tests.support.service import KEY, Backend, Service
from tests.support.visits import Appointment, act, done, visit

AFTER = timedelta(hours=2)
hours = count(3)
MARKED = {
    "state": "noShow", "arrivedAt": None, "startedAt": None,
    "userId": None, "name": "system", "role": None, "reason": None,
}  # fmt: skip


def earlier() -> str:
    """A time that is long enough ago, and that no other call was given."""
    return now(hours=-next(hours))


def booked(world: World, backend: Backend, **changes: Any) -> Appointment:
    """An appointment of some hours ago that was booked before."""
    some = world.appointment(**{"date": earlier(), **changes})
    backend.sql("UPDATE appointments SET created_at = '2020-01-01' WHERE id = $1::text::uuid", some["id"])
    return some


def mark(backend: Backend, runs: int = 1) -> None:
    """What one instance does."""

    async def run() -> None:
        async with Database(backend.database_url) as database:
            no_shows = NoShows(database, Key.of(KEY), AFTER)
            for _ in range(runs):
                assert await no_shows.mark() == (False, "")

    asyncio.run(run())


def marked(backend: Backend, since: int) -> list[str]:
    events = audit_trail.new(backend, since, "visit.update")
    return [str(event["target_id"]) for event in events if event["user_id"] is None]


def test_who_has_not_come_is_marked_by_the_system(world: World, backend: Backend, since: int) -> None:
    some = booked(world, backend)
    mark(backend)
    found = visit(world.staff, some)
    assert found == {**MARKED, "endedAt": found["endedAt"]}
    assert read(world, some) == {**some, "status": "cancelled"}
    [event] = audit_trail.new(backend, since, "visit.update")
    assert (event["user_id"], event["email"], event["role"]) == (None, None, None)
    assert (event["address"], str(event["patient_id"])) == ("system", some["patientId"])
    changes = world.admin.get(f"/api/appointments/{some['id']}/history").json()["changes"]
    assert [(one["field"], one["to"], one["name"]) for one in changes] == [
        ("status", "cancelled", "system"), ("visit", "noShow", "system"),
    ]  # fmt: skip
    audit_trail.wait_until_sealed(backend)


def test_what_is_undone_is_not_marked_again(world: World, backend: Backend) -> None:
    some = booked(world, backend)
    mark(backend)
    assert done(world.staff, some, "undo", reason="They were here.")["state"] == "expected"
    mark(backend)
    assert visit(world.staff, some)["state"] == "expected"


def test_two_that_were_booked_over_each_other_can_both_be_undone(world: World, backend: Backend) -> None:
    some = booked(world, backend)
    over = booked(world, backend, date=some["date"], overbook={"reason": "An emergency"})
    mark(backend)
    for one in (over, some):
        assert done(world.staff, one, "undo")["state"] == "expected"


@pytest.mark.parametrize("case", ["soon", "entered", "arrived", "started", "back", "late", "moved", "ended"])
def test_other_appointments_are_left_alone(world: World, backend: Backend, case: str) -> None:
    """contract: "nobody has said until then that the patient came and they were made before it"."""
    if case == "entered":
        some = world.appointment(date=earlier())
    elif case == "moved":  # there when it had been
        some = world.appointment(date=world.slot())
        backend.sql("UPDATE appointments SET created_at = '2020-01-01' WHERE id = $1::text::uuid", some["id"])
        assert change(world.staff, some, date=earlier()).status_code == 200
    else:
        some = booked(world, backend, date=now(hours=-1) if case == "soon" else earlier())
    acts = {
        "arrived": ["arrived"],
        "started": ["started"],
        "back": ["arrived", "started", "undo"],  # to be arrived
        "late": ["arrived", "undo"],  # who says so now, looks after it
    }.get(case, [])
    before = done(world.staff, some, *acts)["state"]
    if case == "ended":
        assert change(world.staff, some, status="completed").status_code == 200
        before = "completed"
    mark(backend, runs=2)
    assert visit(world.staff, some)["state"] == before


def test_an_arrival_that_was_taken_back_in_time_was_a_slip(world: World, backend: Backend) -> None:
    some = booked(world, backend)
    done(world.staff, some, "arrived", "undo", "started", "undo")
    backend.sql("UPDATE appointment_changes SET at = '2020-01-01' WHERE field = 'visit'")
    mark(backend)
    assert visit(world.staff, some)["state"] == "noShow"


def test_what_was_said_before_a_move_does_not_count(world: World, backend: Backend) -> None:
    some = booked(world, backend)
    done(world.staff, some, "arrived")
    assert change(world.staff, some, date=earlier()).status_code == 200
    backend.sql("UPDATE appointment_changes SET at = '2020-01-01' WHERE field = 'date'")  # before its time
    mark(backend)
    assert visit(world.staff, some)["state"] == "noShow"


def test_instances_at_once_mark_each_once(world: World, backend: Backend, since: int) -> None:
    """And what a person says meanwhile stays theirs."""
    chart = world.chart()["id"]
    some = [booked(world, backend, patientId=chart) for _ in range(12)]

    with ThreadPoolExecutor(3) as pool:
        marking = [pool.submit(mark, backend) for _ in range(2)]
        answers = [act(world.staff, each, "arrived").status_code for each in some[::-1]][::-1]
        for each in marking:
            each.result()
    states = [visit(world.staff, each)["state"] for each in some]
    assert states == ["arrived" if answer == 200 else "noShow" for answer in answers]
    missed = {each["id"] for each, state in zip(some, states, strict=True) if state == "noShow"}
    assert sorted(marked(backend, since)) == sorted(missed)


def test_what_somebody_has_said_meanwhile_is_not_overwritten(world: World, backend: Backend) -> None:
    """Each is looked at once more when nobody else can change it; then nothing is left of the attempt."""
    some = booked(world, backend)

    async def run() -> bool:
        async with Database(backend.database_url) as database:
            no_shows = NoShows(database, Key.of(KEY), AFTER)
            parameters = Between(since=EARLIEST, until=datetime.now(UTC) - AFTER, most=100, after=AFTER)
            found = await database.reader.rows(MISSED, parameters)
            missed = next(each for each in found if str(each.id) == some["id"])
            await asyncio.to_thread(done, world.staff, some, "arrived")
            return await no_shows.mark_one(missed)

    since = audit_trail.newest(backend)
    assert asyncio.run(run()) is False
    assert marked(backend, since) == []
    assert visit(world.staff, some)["state"] == "arrived"


def test_the_service_marks_them_where_the_clinic_wants_it(world: World, backend: Backend) -> None:
    some = booked(world, backend)
    assert visit(world.staff, some)["state"] == "expected"  # not unless it is set
    with Service(backend, backend.settings(no_show_after_hours=2)):
        wait_until(lambda: visit(world.staff, some)["state"] == "noShow", "a no-show")
