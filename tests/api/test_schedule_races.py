"""New hours and absences while others book (contract: "bookings with a doctor wait for the absence of that
doctor on the key on which they wait for each other")."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from persistence.availability import CLINIC_KEY
from persistence.survivors import lock_key
from tests.support.factories import World
from tests.support.locks import transaction, until_they_wait
from tests.support.service import Backend
from tests.support.small_clinic import add_chart, add_doctor

DAY = {"from": "2160-01-01T00:00:00Z", "to": "2160-01-02T00:00:00Z"}
BOOK = (
    "INSERT INTO appointments (id, patient_id, doctor_id, date, ends_at, reason, fee) VALUES "
    "(gen_random_uuid(), $1, $2, '2160-01-01 10:00Z', '2160-01-01 10:30Z', 'x', 0)"
)
SHARED, ALONE = "pg_advisory_xact_lock_shared", "pg_advisory_xact_lock"


def new_hours(world: World, doctor: str) -> httpx.Response:
    return world.staff.put(f"/api/doctors/{doctor}/hours", {"hours": []})


def leave(world: World, doctor: str) -> httpx.Response:
    return world.staff.post("/api/absences", {"doctorId": doctor, **DAY})


def closing(world: World, doctor: str) -> httpx.Response:
    return world.staff.post("/api/absences", DAY)


@pytest.mark.parametrize("act", [new_hours, leave, closing])
def test_what_is_booked_until_then_is_in_the_answer(
    world: World, backend: Backend, act: Callable[[World, str], httpx.Response]
) -> None:
    """Contract: "So a booking is either in the list or sees the absence"."""
    doctor, chart = add_doctor(backend, "Dr. Deniz Dogan"), add_chart(backend, "Charlie Chart")
    key, how = (CLINIC_KEY, SHARED) if act is closing else (lock_key(doctor), ALONE)
    with ThreadPoolExecutor() as pool:
        with transaction(backend) as booking:
            booking(f"SELECT {how}($1)", key)
            asked = pool.submit(act, world, str(doctor))
            until_they_wait(backend, asked)
            booking(BOOK, chart, doctor)
        answer: dict[str, Any] = asked.result().json()
    assert [each["patientId"] for each in answer["appointments"] if each["doctorId"] == str(doctor)] == [
        str(chart)
    ]
    if act is closing:
        assert world.staff.delete(f"/api/absences/{answer['id']}").status_code == 200


def test_of_two_who_set_the_same_hours_the_second_finds_them_changed(world: World, backend: Backend) -> None:
    """Two requests with one `ETag`: one is 200, the other 412."""
    doctor = add_doctor(backend, "Dr. Deniz Dogan")
    path = f"/api/doctors/{doctor}/hours"
    tag = {"If-Match": world.staff.get(path).headers["etag"]}
    with ThreadPoolExecutor() as pool, transaction(backend) as other:
        other("SELECT pg_advisory_xact_lock($1)", lock_key(doctor))
        asked = [pool.submit(world.staff.put, path, {"hours": []}, headers=tag) for _ in range(2)]
        until_they_wait(backend, *asked)
        other("COMMIT")
        assert sorted(each.result().status_code for each in asked) == [200, 412]


def test_an_absence_is_deleted_once(world: World, backend: Backend) -> None:
    made = world.staff.post("/api/absences", DAY).json()
    path = f"/api/absences/{made['id']}"
    with ThreadPoolExecutor() as pool, transaction(backend) as other:
        other("SELECT FROM absences WHERE id = $1 FOR UPDATE", made["id"])
        asked = [pool.submit(world.staff.delete, path) for _ in range(2)]
        until_they_wait(backend, *asked)
        other("COMMIT")
        assert sorted(each.result().status_code for each in asked) == [200, 404]


@pytest.mark.parametrize("act", [new_hours, leave, closing])
def test_each_booking_of_a_rush_is_in_the_answer_or_refused(
    world: World, backend: Backend, act: Callable[[World, str], httpx.Response]
) -> None:
    """Contract: "So a booking is either in the list or sees the absence"."""
    doctor = str(add_doctor(backend, "Dr. Deniz Dogan"))
    charts = [str(add_chart(backend, f"Charlie Chart {n}")) for n in range(12)]

    def book(number: int) -> httpx.Response:
        body = {"doctorId": doctor, "patientId": charts[number], "reason": "Check-up"}
        return world.staff.post("/api/appointments", {**body, "date": f"2160-01-01T{number + 1:02}:00:00Z"})

    with ThreadPoolExecutor(13) as pool:
        bookings = [pool.submit(book, n) for n in range(6)]
        asked = pool.submit(act, world, doctor)
        bookings += [pool.submit(book, n) for n in range(6, 12)]
        answers = [each.result() for each in bookings]
        answer = asked.result().json()
    made = [each.json()["id"] for each in answers if each.status_code == 201]
    assert {each.status_code for each in answers} <= {201, 400}
    assert sorted(made) == sorted(each["id"] for each in answer["appointments"] if each["doctorId"] == doctor)
    assert book(0).status_code == 400
    if act is closing:
        assert world.staff.delete(f"/api/absences/{answer['id']}").status_code == 200
