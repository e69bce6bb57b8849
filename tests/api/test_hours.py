"""The working hours of doctors (contract: "Nothing that is booked moves")."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from security.roles import Role
from tests.support.audit_trail import rows
from tests.support.client import PROBLEM, Browser
from tests.support.factories import World
from tests.support.service import Backend, Service
from tests.support.small_clinic import add_doctor

TUESDAY = datetime(2101, 3, 1, tzinfo=UTC)


def hours(weekday: int, begins: str, ends: str, **more: Any) -> dict[str, Any]:
    whole = {"validFrom": None, "validUntil": None, "minutes": None, **more}
    return {"weekday": weekday, "from": begins, "to": ends, **whole}


def doctor_of(world: World) -> dict[str, Any]:
    """Somebody new, who does not sign in."""
    return {"id": str(add_doctor(world.service.backend, "Dr. Deniz Dogan"))}


def path_of(doctor: dict[str, Any]) -> str:
    return f"/api/doctors/{doctor['id']}/hours"


def put(browser: Browser, doctor: dict[str, Any], week: list[dict[str, Any]] | None) -> dict[str, Any]:
    answer = browser.put(path_of(doctor), {"hours": week})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def at(day: int, clock: str) -> str:
    hour, minute = map(int, clock.split(":"))
    return (TUESDAY + timedelta(days=day, hours=hour, minutes=minute)).isoformat()


@pytest.fixture(scope="module")
def doctor(world: World) -> tuple[Browser, dict[str, Any]]:
    return world.account(Role.DOCTOR)


def test_a_doctor_has_the_hours_of_the_clinic_until_they_have_their_own(world: World) -> None:
    """Contract: "`null`: they have no hours of their own"."""
    browser, me = world.account(Role.DOCTOR)
    assert browser.get(path_of(me)).json() == {"hours": None}
    week = [hours(1, "08:00", "12:00"), hours(7, "12:00", "24:00", validFrom="2026-06-01", minutes=45)]
    for whoever in (browser, world.staff, world.admin):
        assert put(whoever, me, week) == {"hours": week, "appointments": [], "total": 0}
        assert world.staff.get(path_of(me)).json() == {"hours": week}
    assert put(browser, me, [])["hours"] == []
    assert browser.get(path_of(me)).json() == {"hours": []}
    assert put(browser, me, None)["hours"] is None
    assert browser.get(path_of(me)).json() == {"hours": None}


def test_what_may_be_null_may_be_absent(world: World, doctor: tuple[Browser, dict[str, Any]]) -> None:
    browser, me = doctor
    assert put(browser, me, [{"weekday": 3, "from": "00:00", "to": "00:01"}])["hours"] == [
        hours(3, "00:00", "00:01")
    ]
    assert browser.put(path_of(me), {}).status_code == 400


def test_doctors_have_to_do_with_their_own_hours_only(
    world: World, doctor: tuple[Browser, dict[str, Any]]
) -> None:
    _, me = doctor
    for browser in (world.doctor, world.patient):
        assert browser.get(path_of(me)).status_code == 403
        assert browser.put(path_of(me), {"hours": []}).status_code == 403
    *_, event = rows(world.service.backend, "action = 'hours.update'")
    assert (event["outcome"], str(event["target_id"])) == ("refused", me["id"])


def test_who_is_no_active_doctor_has_no_hours(world: World) -> None:
    _, gone = world.account(Role.DOCTOR)
    assert world.admin.patch(f"/api/users/{gone['id']}", {"status": "disabled"}).status_code == 200
    for person in (gone, world.patient.me()):
        for answer in (world.staff.get(path_of(person)), world.staff.put(path_of(person), {"hours": None})):
            assert (answer.status_code, answer.json()) == (404, {"detail": "Doctor not found"})


@pytest.mark.parametrize(
    ("week", "faults"),
    [
        ([hours(1, "08:00", "08:00")], {"/hours/0/to": "bad_order"}),
        ([hours(1, "24:00", "24:00")], {"/hours/0/to": "bad_order"}),
        (
            [hours(1, "08:00", "09:00", validFrom="2026-06-02", validUntil="2026-06-01")],
            {"/hours/0/validUntil": "bad_order"},
        ),
        ([hours(1, "08:00", "09:00"), hours(1, "08:59", "09:30")], {"/hours/1": "overlap"}),
        ([hours(0, "8:00", "24:01", minutes=0)], {
            "/hours/0/weekday": "out_of_range", "/hours/0/from": "bad_format", "/hours/0/to": "bad_format",
            "/hours/0/minutes": "out_of_range",
        }),
        ([hours(8, "08:00", "09:00", minutes=1441, validFrom="2026-02-30")], {
            "/hours/0/weekday": "out_of_range", "/hours/0/validFrom": "bad_format",
            "/hours/0/minutes": "out_of_range",
        }),
        ([hours(1, "08:00", "09:00", room=5)], {"/hours/0/room": "unknown_field"}),
        ([None], {"/hours/0": "invalid_type"}),
        ([hours(1, "08:00", "09:00")] * 201, {"/hours": "too_many_items"}),
    ],
)  # fmt: skip
def test_hours_that_are_none_are_refused_each_where_it_stands(
    doctor: tuple[Browser, dict[str, Any]], week: list[Any], faults: dict[str, str]
) -> None:
    """Contract: "These are 400: an end that is not later than its beginning"."""
    browser, me = doctor
    refused = browser.put(path_of(me), {"hours": week}, headers=PROBLEM)
    assert refused.status_code == 400
    found = {error["pointer"]: error["code"] for error in refused.json()["errors"]}
    assert found.items() >= faults.items()


def test_hours_on_days_apart_do_not_overlap(doctor: tuple[Browser, dict[str, Any]]) -> None:
    browser, me = doctor
    week = [
        hours(1, "08:00", "12:00", validUntil="2026-05-31"),
        hours(1, "09:00", "13:00", validFrom="2026-06-01"),
        hours(2, "08:00", "12:00"),
        hours(2, "12:00", "13:00"),
    ]
    assert put(browser, me, week)["hours"] == week


def test_the_answer_names_what_is_booked_outside_of_the_new_hours(world: World) -> None:
    """Contract: "The answer names the scheduled appointments, not over yet, that lie outside of the new
    hours"."""
    me = doctor_of(world)
    booked = {
        when: world.appointment(doctorId=me["id"], date=at(*when))
        for when in [(0, "08:00"), (0, "11:45"), (1, "08:00"), (7, "08:00"), (14, "12:30"), (21, "08:00")]
    }
    cancelled = booked[21, "08:00"]["id"]
    assert world.staff.patch(f"/api/appointments/{cancelled}", {"status": "cancelled"}).status_code == 200
    world.appointment(doctorId=me["id"], date=world.past_slot())
    until = (TUESDAY + timedelta(days=6)).date().isoformat()
    answer = put(world.staff, me, [hours(2, "08:00", "12:00", validUntil=until), hours(2, "12:00", "13:00")])
    assert answer["appointments"] == [booked[when] for when in [(1, "08:00"), (7, "08:00")]]
    assert answer["total"] == 2
    *_, event = rows(world.service.backend, "action = 'hours.update'")
    assert str(event["target_id"]) == me["id"]
    assert [str(id) for id in event["target_ids"]] == [each["id"] for each in answer["appointments"]]
    chart = answer["appointments"][0]["patientId"]
    [seen, *_] = world.admin.get(f"/api/patients/{chart}/accesses").json()["accesses"]
    assert seen["action"] == "hours.update"
    for each in booked.values():
        assert world.staff.get(f"/api/appointments/{each['id']}").json()["date"] == each["date"]
    assert put(world.staff, me, None) == {"hours": None, "appointments": [], "total": 0}


def test_of_many_bookings_outside_the_first_hundred_are_named(world: World, backend: Backend) -> None:
    me = doctor_of(world)
    first = world.appointment(doctorId=me["id"], date=at(0, "00:00"))
    backend.sql(
        "INSERT INTO appointments (id, patient_id, doctor_id, date, ends_at, reason, fee) "
        "SELECT gen_random_uuid(), patient_id, doctor_id, date + n * interval '1 hour', "
        "ends_at + n * interval '1 hour', 'x', 0 FROM appointments, generate_series(1, 104) AS n "
        "WHERE id = $1",
        first["id"],
    )
    answer = put(world.staff, me, [])
    assert (len(answer["appointments"]), answer["total"]) == (100, 105)
    dates = [each["date"] for each in answer["appointments"]]
    assert dates == sorted(dates)
    assert answer["appointments"][0] == first


def test_nobody_overwrites_hours_that_they_have_not_seen(world: World) -> None:
    """Contract: "`If-Match` means the `ETag` with which the hours were read"."""
    browser, me = world.account(Role.DOCTOR)
    tag = browser.get(path_of(me)).headers["etag"]
    assert browser.get(path_of(me), headers={"If-None-Match": tag}).status_code == 304
    changed = browser.put(path_of(me), {"hours": []}, headers={"If-Match": tag})
    assert changed.status_code == 200
    assert browser.get(path_of(me)).headers["etag"] == changed.headers["etag"] != tag
    stale = world.staff.put(path_of(me), {"hours": None}, headers={"If-Match": tag})
    assert stale.status_code == 412
    assert browser.get(path_of(me)).json() == {"hours": []}


def test_each_change_of_hours_has_a_version_of_its_own(world: World, backend: Backend) -> None:
    me = doctor_of(world)
    versions = []
    for week in ([], [], [hours(1, "08:00", "09:00")]):
        put(world.staff, me, week)
        [row] = backend.sql("SELECT version FROM doctor_hours WHERE doctor_id = $1", me["id"])
        versions.append(row["version"])
        put(world.staff, me, None)
        assert backend.sql("SELECT FROM doctor_hours WHERE doctor_id = $1", me["id"]) == []
    assert versions == sorted(set(versions))


@pytest.mark.slow
def test_hours_are_those_of_the_clinics_clocks(world: World, backend: Backend) -> None:
    """A doctor without hours is not open when the clinic is not."""
    me = doctor_of(world)
    settings = backend.settings(clinic_timezone="Asia/Kathmandu", clinic_hours="Tue 08:00-09:00")
    inside = world.appointment(doctorId=me["id"], date=at(0, "02:15"))
    late = world.appointment(doctorId=me["id"], date=at(0, "02:46"))
    with Service(backend, settings) as kathmandu:
        staff = kathmandu.browser(world.staff.cookies)
        assert put(staff, me, None)["appointments"] == [late]
        assert put(staff, me, [hours(2, "08:31", "10:00")])["appointments"] == [inside]
