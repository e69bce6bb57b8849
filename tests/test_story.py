"""One visit from the registration to the sign-out, in order, as a clinic lives it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from security.roles import Role
from tests.support.client import Browser
from tests.support.factories import World, chart, registration

pytestmark = pytest.mark.slow


def test_a_visit_from_registration_to_sign_out(world: World) -> None:
    lina = register(world, "Lina Lund")
    before = stats(world, lina)
    chart_id = open_and_link_chart(world, lina)
    appointment = book_and_move(lina, chart_id)
    complete_and_record(world, lina, appointment)
    require_new_figures(before, stats(world, lina))
    require_accesses(lina, chart_id)
    sign_out(world, lina)


def register(world: World, name: str) -> Browser:
    """A patient registers and signs in; there is nothing for them to see yet."""
    body = registration(Role.PATIENT, name=name)
    lina = world.service.browser()
    assert lina.post("/api/auth/register", body).status_code == 201
    assert lina.login(body["email"], body["password"]).json()["user"]["role"] == "patient"
    for resource in ("patients", "appointments", "records"):
        assert lina.get(f"/api/{resource}").json()["total"] == 0
    figures = lina.get("/api/dashboard/stats").json()
    assert figures == {"upcomingAppointments": 0, "medicalRecords": 0, "prescriptions": 0}
    return lina


def open_and_link_chart(world: World, lina: Browser) -> str:
    """Staff find the account among those without a chart, open a chart and link it."""
    me = lina.me()
    search = f"/api/users?linked=false&search={me['name'].lower()}"
    [account] = world.staff.get(search).json()["users"]
    chart_id: str = world.staff.post("/api/patients", chart(name=me["name"], email=me["email"])).json()["id"]
    linked = world.staff.put(f"/api/patients/{chart_id}/account", {"userId": account["id"]})
    assert linked.status_code == 200
    assert [seen["id"] for seen in lina.get("/api/patients").json()["patients"]] == [chart_id]
    return chart_id


def book_and_move(lina: Browser, chart_id: str) -> dict[str, Any]:
    """The patient books an appointment three days ahead, and moves it by an hour."""
    [doctor] = [d for d in lina.get("/api/doctors").json()["doctors"] if d["name"] == "Dora Demir"]
    begins = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    booking = {
        "patientId": chart_id,
        "doctorId": doctor["id"],
        "date": begins.isoformat(),
        "reason": "Cough",
    }
    booked = lina.post("/api/appointments", booking).json()
    assert booked["status"] == "scheduled"
    assert lina.get("/api/dashboard/stats").json()["upcomingAppointments"] == 1
    later = begins + timedelta(hours=1)
    moved = lina.patch(f"/api/appointments/{booked['id']}", {"date": later.isoformat()}).json()
    assert moved == {**booked, "date": later.strftime("%Y-%m-%dT%H:%M:%SZ")}
    return dict(moved)


def complete_and_record(world: World, lina: Browser, appointment: dict[str, Any]) -> None:
    """The patient came yesterday. The doctor enters that, completes the appointment and writes a record,
    which the patient reads."""
    path = f"/api/appointments/{appointment['id']}"
    assert world.doctor.patch(path, {"status": "completed"}).status_code == 400
    came = datetime.now(UTC) - timedelta(days=1)
    completed = world.doctor.patch(path, {"status": "completed", "date": came.isoformat()})
    assert completed.json()["status"] == "completed"
    note = {"diagnosis": "Bronchitis", "prescription": "Rest", "notes": ""}
    record = world.doctor.post("/api/records", {"patientId": appointment["patientId"], **note}).json()
    assert lina.get(f"/api/records/{record['id']}").json() == record
    assert lina.get("/api/records").json()["records"] == [record]


def stats(world: World, patient: Browser) -> dict[str, dict[str, int]]:
    people = {"admin": world.admin, "doctor": world.doctor, "staff": world.staff, "patient": patient}
    return {role: person.get("/api/dashboard/stats").json() for role, person in people.items()}


def require_new_figures(before: dict[str, dict[str, int]], after: dict[str, dict[str, int]]) -> None:
    grown = {role: {name: after[role][name] - before[role][name] for name in after[role]} for role in after}
    assert grown == {
        "admin": {"totalPatients": 1, "totalDoctors": 0, "totalAppointments": 1, "revenue": 150},
        "doctor": {"assignedPatients": 1, "todayAppointments": 0, "pendingReports": 0},
        "staff": {"managedPatients": 1, "scheduledAppointments": 0, "pendingRegistrations": -1},
        "patient": {"upcomingAppointments": 0, "medicalRecords": 1, "prescriptions": 1},
    }


def require_accesses(lina: Browser, chart_id: str) -> None:
    """The patient sees who has opened their chart."""
    accesses = lina.get(f"/api/patients/{chart_id}/accesses").json()["accesses"]
    assert {access["name"] for access in accesses} == {"Dora Demir", "Sam Staff", "Lina Lund"}


def sign_out(world: World, lina: Browser) -> None:
    """The patient refreshes and signs out; afterwards the cookies that they had are refused."""
    assert lina.post("/api/auth/refresh").json() == {"message": "Token refreshed"}
    kept = dict(lina.cookies)
    assert lina.post("/api/auth/logout").json() == {"message": "Logged out successfully"}
    assert lina.cookies == {}
    assert world.service.browser(kept).get("/api/users/me").json() == {"detail": "Not authenticated"}
    assert world.service.browser(kept).post("/api/auth/refresh").status_code == 401
