"""Doctors (requirement, section 4): who is listed, and how many patients are assigned to whom."""

from typing import Any

import pytest

from security.roles import Role
from tests.support.client import Browser
from tests.support.factories import World, registration

UNKNOWN_ID = "0e4a7c52-93b1-4d6f-8a25-6b1f0c9d3e77"

KEYS = ["id", "name", "email", "specialization", "phone"]


def listed(browser: Browser) -> list[dict[str, Any]]:
    page = browser.get("/api/doctors?limit=100").json()
    assert list(page) == ["doctors", "total"]
    assert page["total"] == len(page["doctors"])
    return list(page["doctors"])


def ids(browser: Browser) -> list[str]:
    return [doctor["id"] for doctor in listed(browser)]


def assigned(world: World, doctor: Browser) -> int:
    return int(world.staff.get(f"/api/doctors/{doctor.me()['id']}").json()["assignedPatients"])


@pytest.mark.parametrize("role", Role)
def test_every_signed_in_role_reads_doctors(world: World, role: Role) -> None:
    """Section 4 and "Who may do what": the same list and the same doctor for all four roles."""
    browser = world.people[role]
    doctors = listed(browser)
    assert all(list(doctor) == KEYS for doctor in doctors)
    assert doctors == listed(world.admin)
    me = world.doctor.me()
    one = browser.get(f"/api/doctors/{me['id']}")
    assert one.status_code == 200
    assert list(one.json()) == [*KEYS, "assignedPatients"]
    assert {key: one.json()[key] for key in KEYS} == {key: me[key] for key in KEYS}
    assert {key: one.json()[key] for key in KEYS} in doctors


def test_anonymous_callers_cannot_read_doctors(world: World, anonymous: Browser) -> None:
    assert anonymous.get("/api/doctors").status_code == 401
    assert anonymous.get(f"/api/doctors/{world.doctor.me()['id']}").status_code == 401


def test_a_doctor_without_phone_and_specialization_has_null(world: World) -> None:
    """Contract, "Values": every key, null where there is no value."""
    before = world.other_doctor.me()
    assert world.other_doctor.patch("/api/users/me", {"specialization": None, "phone": ""}).status_code == 200
    one = world.staff.get(f"/api/doctors/{before['id']}").json()
    assert (one["specialization"], one["phone"]) == (None, None)
    [summary] = [doctor for doctor in listed(world.staff) if doctor["id"] == before["id"]]
    assert (summary["specialization"], summary["phone"]) == (None, None)
    restored = {"specialization": before["specialization"], "phone": "+1 555 0142"}
    assert world.other_doctor.patch("/api/users/me", restored).status_code == 200
    assert world.staff.get(f"/api/doctors/{before['id']}").json()["phone"] == "+1 555 0142"


def test_only_active_doctors_are_listed(world: World, anonymous: Browser) -> None:
    """Pending, approved, disabled, restored, and then a doctor no more: listed and found while active."""
    new = anonymous.post("/api/auth/register", registration(Role.DOCTOR)).json()
    path, account = f"/api/doctors/{new['id']}", f"/api/users/{new['id']}"
    for change, visible in [
        ({}, False),
        ({"status": "active"}, True),
        ({"status": "disabled"}, False),
        ({"status": "active"}, True),
        ({"role": "staff"}, False),
        ({"role": "doctor"}, True),
        ({"status": "disabled"}, False),
    ]:
        assert world.admin.patch(account, change).status_code == 200
        assert (new["id"] in ids(world.patient)) is visible, change
        answer = world.admin.get(path)
        assert answer.status_code == (200 if visible else 404)
        if not visible:
            assert answer.json() == {"detail": "Doctor not found"}


@pytest.mark.parametrize("role", [Role.ADMIN, Role.STAFF, Role.PATIENT])
def test_accounts_of_other_roles_are_no_doctors(world: World, role: Role) -> None:
    id = world.people[role].me()["id"]
    assert id not in ids(world.staff)
    assert world.staff.get(f"/api/doctors/{id}").json() == {"detail": "Doctor not found"}


@pytest.mark.parametrize("id", [UNKNOWN_ID, "1", "me", "not-a-uuid", "null", UNKNOWN_ID.replace("-", "")])
def test_an_unknown_or_malformed_doctor_id_is_404(world: World, id: str) -> None:
    answer = world.patient.get(f"/api/doctors/{id}")
    assert answer.status_code == 404
    assert answer.json() == {"detail": "Doctor not found"}


@pytest.mark.slow
def test_doctors_are_ordered_by_name_then_id(world: World) -> None:
    """Contract, "Paging and search": case aside; equal names by id, page after page."""
    names = ["aaron", "AARON", " Aaron ", "Aaron", "aaron b", "Aaron A"]
    new = [
        world.admin.post("/api/auth/register", registration(Role.DOCTOR, name=name)).json() for name in names
    ]
    expected = [*sorted(doctor["id"] for doctor in new[:4]), new[5]["id"], new[4]["id"]]
    assert ids(world.staff)[:6] == expected
    pages = [world.staff.get(f"/api/doctors?limit=2&page={page}").json() for page in (1, 2, 3)]
    assert [doctor["id"] for page in pages for doctor in page["doctors"]] == expected

    me, before = world.doctor.me()["id"], ids(world.staff)
    assert world.doctor.patch("/api/users/me", {"name": "Ébner"}).status_code == 200
    after, emil = [id for id in before if id != me], world.other_doctor.me()["id"]
    assert ids(world.staff) == [*after[: after.index(emil)], me, *after[after.index(emil) :]]
    past = world.staff.get("/api/doctors?limit=100&page=2").json()
    assert past == {"doctors": [], "total": len(before)}
    assert world.doctor.patch("/api/users/me", {"name": "Dora Demir"}).status_code == 200
    assert ids(world.staff) == before


def test_assigned_patients_of_a_doctor_counts_distinct_patients(world: World) -> None:
    """Contract, "Dashboard": patients with a not-cancelled appointment or a record, each once."""
    before, others = assigned(world, world.doctor), assigned(world, world.other_doctor)
    first, second, third = (world.chart()["id"] for _ in range(3))

    booked = world.appointment(patientId=first)
    assert assigned(world, world.doctor) == before + 1
    world.appointment(patientId=first)  # the same patient again
    world.record(first)
    assert assigned(world, world.doctor) == before + 1

    world.record(second)  # a record is enough
    assert assigned(world, world.doctor) == before + 2

    only = world.appointment(patientId=third, date=world.past_slot())
    done = world.doctor.patch(f"/api/appointments/{only['id']}", {"status": "completed"})
    assert done.status_code == 200
    assert assigned(world, world.doctor) == before + 3  # a completed one is not cancelled

    assert world.staff.patch(f"/api/appointments/{booked['id']}", {"status": "cancelled"}).status_code == 200
    assert assigned(world, world.doctor) == before + 3  # another appointment and a record are left

    fourth = world.appointment()
    assert assigned(world, world.doctor) == before + 4
    assert world.staff.patch(f"/api/appointments/{fourth['id']}", {"status": "cancelled"}).status_code == 200
    assert assigned(world, world.doctor) == before + 3  # nothing but a cancelled one
    assert assigned(world, world.other_doctor) == others
    assert world.doctor.get("/api/dashboard/stats").json()["assignedPatients"] == before + 3
