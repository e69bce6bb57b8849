"""Lists of appointments (requirement, section 5): their order and filters."""

import pytest

from tests.support.appointments import change, later, listed
from tests.support.factories import World
from tests.support.service import Backend, Service

pytestmark = pytest.mark.slow

# Requirement, section 5, GET: filters and order


def test_appointments_are_ordered_by_date_then_id(world: World, doctors: list[str]) -> None:
    """Stable where many begin at once, from page to page."""
    day, made = "2180-06-01", []
    for hour in (9, 8, 9, 10, 9, 8, 9, 9, 9, 9, 8):
        made.append(world.appointment(date=f"{day}T{hour:02}:00:00Z"))
        assert change(world.staff, made[-1], status="cancelled").status_code == 200
    made.append(world.appointment(date=f"{day}T09:00:00Z", doctorId=doctors[1]))
    expected = [a["id"] for a in sorted(made, key=lambda a: (a["date"], a["id"]))]
    assert [a["id"] for a in listed(world.staff, date=day)] == expected
    pages = [
        world.staff.get("/api/appointments", params={"date": day, "limit": 5, "page": page}).json()
        for page in range(1, 5)
    ]
    assert [a["id"] for page in pages for a in page["appointments"]] == expected
    assert [page["total"] for page in pages] == [12] * 4
    assert [a["id"] for a in listed(world.doctor, date=day)] == [
        id for id in expected if id != made[-1]["id"]
    ]


def test_appointments_are_filtered_by_status(world: World) -> None:
    day = "1980-07-01"
    made = [world.appointment(date=f"{day}T{hour:02}:00:00Z") for hour in (8, 9, 10, 11)]
    assert change(world.staff, made[1], status="completed").status_code == 200
    assert change(world.staff, made[2], status="cancelled").status_code == 200
    for status, expected in [
        ("scheduled", [made[0], made[3]]),
        ("completed", [{**made[1], "status": "completed"}]),
        ("cancelled", [{**made[2], "status": "cancelled"}]),
    ]:
        assert listed(world.staff, date=day, status=status) == expected
        assert listed(world.doctor, date=day, status=status) == expected
        every = world.staff.get("/api/appointments", params={"status": status, "limit": 100}).json()
        assert {seen["status"] for seen in every["appointments"]} == {status}
    totals = [
        world.staff.get("/api/appointments", params=params).json()["total"]
        for params in ({}, {"status": "scheduled"}, {"status": "completed"}, {"status": "cancelled"})
    ]
    assert totals[0] == sum(totals[1:])


@pytest.mark.parametrize(
    "query",
    [
        "status=done", "status=%20", "status=Scheduled", "status=null", "status=Null", "status=%00",
        "status=scheduled,done", "status=scheduled,", "status=,", "date=%20", "date=today", "date=null",
        "date=2180-02-30",
        "date=2180-6-1", "date=21800601", "date=0", "date=2180-06-01T00:00:00Z", "date=10000-01-01",
        "date=-001-01-01", "date=2180-06-01%00",
    ],
)  # fmt: skip
def test_invalid_appointment_filters_are_400(world: World, query: str) -> None:
    """400 and the rule, never a list that was not asked for."""
    refused = world.staff.get(f"/api/appointments?{query}")
    assert refused.status_code == 400
    rule = {"status": "must be one of scheduled, completed, cancelled", "date": "must be a date, YYYY-MM-DD"}
    name = query.split("=")[0]
    assert refused.json() == {"detail": f"{name}: {rule[name]}"}


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Pacific/Kiritimati"])
def test_appointment_lists_of_extreme_dates_are_empty(world: World, backend: Backend, zone: str) -> None:
    """Contract, "Values": extreme dates are no error of ours, in whatever zone."""
    with Service(backend, backend.settings(clinic_timezone=zone)) as clinic:
        staff = clinic.browser(world.staff.cookies)
        for day in ("0001-01-01", "0001-01-02", "1582-10-10", "9999-12-30", "9999-12-31"):
            assert listed(staff, date=day) == []


@pytest.mark.parametrize(
    ("day", "begins", "ends", "hours"),
    [
        ("2027-03-14", "2027-03-14T05:00:00Z", "2027-03-15T04:00:00Z", 23),
        ("2027-03-17", "2027-03-17T04:00:00Z", "2027-03-18T04:00:00Z", 24),
        ("2027-11-07", "2027-11-07T04:00:00Z", "2027-11-08T05:00:00Z", 25),
    ],
)
def test_the_date_filter_of_appointments_means_a_day_at_the_clinic(
    world: World, backend: Backend, doctors: list[str], day: str, begins: str, ends: str, hours: int
) -> None:
    """CLINIC_TIMEZONE decides when a day begins and ends, when the clocks change too."""
    assert later(begins, hours=hours) == ends
    before, first, last, after = (
        world.appointment(doctorId=doctors[4], date=date)
        for date in (later(begins, minutes=-30), begins, later(ends, minutes=-30), ends)
    )
    with Service(backend, backend.settings(clinic_timezone="America/New_York")) as new_york:
        assert listed(new_york.browser(world.staff.cookies), date=day) == [first, last]
    at_a_clinic_in_utc = listed(world.staff, date=day)
    assert at_a_clinic_in_utc == [a for a in (before, first, last, after) if a["date"].startswith(day)]
    assert last not in at_a_clinic_in_utc


def test_a_clinic_day_that_repeats_an_hour_is_one_day_in_the_date_filter(
    world: World, backend: Backend, doctors: list[str]
) -> None:
    """At 00:01 on 7 November 2010 the clocks of St. John's went back to 23:01 of the day before."""
    first, second, next_day = (
        world.appointment(doctorId=doctors[4], date=date)
        for date in ("2010-11-06T23:15:00-02:30", "2010-11-06T23:15:00-03:30", "2010-11-07T00:00:00-03:30")
    )
    with Service(backend, backend.settings(clinic_timezone="America/St_Johns")) as clinic:
        staff = clinic.browser(world.staff.cookies)
        assert listed(staff, date="2010-11-06") == [first, second]
        assert listed(staff, date="2010-11-07") == [next_day]
