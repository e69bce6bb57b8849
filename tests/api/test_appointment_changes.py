"""Changes of appointments (contract, "Appointments"): scheduled, then completed or cancelled for good; and
who may change what."""

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from tests.support.appointments import FINAL, change, listed, now, read
from tests.support.factories import World

# Contract, "Appointments": scheduled, then completed or cancelled for good


@pytest.mark.slow
@pytest.mark.parametrize("end", ["completed", "cancelled"])
def test_completed_and_cancelled_appointments_cannot_change(world: World, end: str) -> None:
    some = world.appointment(date=world.past_slot())
    ended = change(world.doctor, some, status=end)
    assert (ended.status_code, ended.json()) == (200, {**some, "status": end})
    other_end = {"completed": "cancelled", "cancelled": "completed"}[end]
    for too_late in ({"status": "scheduled"}, {"status": other_end}, {"date": world.slot()}):
        for browser in (world.admin, world.staff, world.doctor):
            refused = change(browser, some, **too_late)
            assert (refused.status_code, refused.json()) == (400, FINAL)
    assert change(world.staff, some, notes="x", date=world.slot()).json() == FINAL
    assert read(world, some) == {**some, "status": end}


def test_only_the_notes_of_a_completed_appointment_may_change(world: World) -> None:
    done, off = (world.appointment(notes="before", date=world.past_slot()) for _ in range(2))
    assert change(world.doctor, done, status="completed", notes="while").json()["notes"] == "while"
    assert change(world.doctor, done, notes="after").json() == {
        **done,
        "status": "completed",
        "notes": "after",
    }
    assert change(world.staff, done, notes=None).json()["notes"] is None
    assert change(world.staff, off, status="cancelled", notes="while").json()["notes"] == "while"
    assert change(world.staff, off, notes="after").json() == FINAL
    assert read(world, off)["notes"] == "while"


@pytest.mark.parametrize("end", ["scheduled", "completed", "cancelled"])
def test_equal_values_in_an_appointment_change_count_as_absent(world: World, end: str) -> None:
    """So a client may send back what it has read, even of one that is over, the date in whatever offset."""
    some = world.appointment(notes="noted", date=world.past_slot())
    assert change(world.staff, some, status=end).status_code == 200
    shifted = datetime.fromisoformat(some["date"]) + timedelta(hours=3)
    in_istanbul = shifted.replace(tzinfo=None).isoformat() + "+03:00"
    same = change(world.staff, some, status=end, notes="noted", date=in_istanbul)
    assert (same.status_code, same.json()) == (200, {**some, "status": end})
    assert change(world.staff, some).json() == {**some, "status": end}
    if end == "completed":
        assert change(world.staff, some, status=end, date=some["date"], notes="new").json()["notes"] == "new"


@pytest.mark.slow
def test_an_appointment_may_be_completed_and_moved_in_one_change(world: World, doctors: list[str]) -> None:
    """It took place at another time than planned, when others have appointments: only scheduled ones
    overlap."""
    taken, some = world.appointment(date=world.past_slot()), world.appointment()
    done = change(world.doctor, some, status="completed", date=taken["date"])
    assert done.json() == {**some, "status": "completed", "date": taken["date"]}


UNCHANGEABLE = [
    {"status": "done"}, {"status": None}, {"status": ""}, {"date": None}, {"notes": 5},
    {"notes": "n" * 5001}, {"reason": "x"}, {"fee": 0}, {"id": str(uuid4())},
    {"patientId": str(uuid4())}, {"doctorId": str(uuid4())},
]  # fmt: skip


@pytest.mark.parametrize("body", UNCHANGEABLE)
def test_unknown_and_null_fields_of_an_appointment_change_are_400(world: World, body: dict[str, Any]) -> None:
    some = world.appointment()
    assert change(world.staff, some, **body).status_code == 400
    assert read(world, some) == some


@pytest.mark.parametrize("cleared", [None, ""])
def test_notes_of_an_appointment_can_be_cleared(world: World, cleared: str | None) -> None:
    some = world.appointment(notes="noted")
    assert change(world.staff, some, notes=cleared).json() == {**some, "notes": None}


# Contract, "Who may do what": changing and reading


def test_patients_move_or_cancel_their_own_appointments(world: World, own_chart: dict[str, Any]) -> None:
    some, new = world.appointment(patientId=own_chart["id"]), world.slot()
    moved = change(world.patient, some, date=new)
    assert (moved.status_code, moved.json()) == (200, {**some, "date": new})
    past = change(world.patient, some, date=now(hours=-2))
    assert (past.status_code, past.json()) == (400, {"detail": "date: must not be in the past"})
    cancelled = change(world.patient, some, status="cancelled")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert change(world.patient, some, date=world.slot()).json() == FINAL


def test_patients_cannot_complete_appointments_or_change_notes(
    world: World, own_chart: dict[str, Any]
) -> None:
    """403 and nothing changes; a value that is so already is no change."""
    some = world.appointment(patientId=own_chart["id"], notes="by staff", date=world.past_slot())
    for body in ({"notes": "mine"}, {"notes": None}, {"status": "completed"}):
        for more in ({}, {"date": world.slot()}):
            assert change(world.patient, some, **body, **more).status_code == 403
    assert read(world, some) == some
    assert change(world.patient, some, notes="by staff", status="scheduled").json() == some
    assert change(world.staff, some, status="completed").status_code == 200
    # The role is checked before the state.
    assert change(world.patient, some, notes="mine").status_code == 403
    assert change(world.patient, some, status="scheduled").status_code == 403
    assert change(world.patient, some, status="cancelled").json() == FINAL


@pytest.mark.slow
def test_appointments_of_other_people_are_404(world: World, own_chart: dict[str, Any]) -> None:
    """Doctors and patients see and change their own; the rest is the same 404 as an unknown id."""
    foreign = world.appointment(doctorId=world.other_doctor.me()["id"])
    missing = {"detail": "Appointment not found"}
    for browser in (world.doctor, world.patient, world.other_patient):
        for id in (foreign["id"], str(uuid4()), "not-a-uuid"):
            seen = browser.get(f"/api/appointments/{id}")
            changed = browser.patch(f"/api/appointments/{id}", {"status": "cancelled"})
            assert (seen.status_code, seen.json()) == (changed.status_code, changed.json()) == (404, missing)
        assert foreign["id"] not in [seen["id"] for seen in listed(browser, date=foreign["date"][:10])]
    assert read(world, foreign) == foreign
    for browser in (world.admin, world.staff, world.other_doctor):
        foreign = {**foreign, "notes": f"by {browser.me()['name']}"}
        assert change(browser, foreign, notes=foreign["notes"]).json() == foreign
        assert browser.get(f"/api/appointments/{foreign['id']}").json() == foreign
        assert foreign in listed(browser, date=foreign["date"][:10])


def test_appointments_become_visible_and_invisible_with_the_link_of_their_chart(world: World) -> None:
    """Linked, the patient sees them; unlinked, they see and change nothing."""
    some = world.appointment()
    link = f"/api/patients/{some['patientId']}/account"
    assert listed(world.other_patient) == []
    assert world.staff.put(link, {"userId": world.other_patient.me()["id"]}).status_code == 200
    assert listed(world.other_patient) == [some]
    assert world.staff.delete(link).status_code == 200
    assert listed(world.other_patient) == []
    assert change(world.other_patient, some, status="cancelled").status_code == 404
