"""One visit from the registration to the sign-out, in order, as a clinic lives it."""

from datetime import UTC, datetime, timedelta

from security.roles import Role
from tests.support.client import Browser
from tests.support.factories import World, chart, registration


def stats(world: World, patient: Browser) -> dict[str, dict[str, int]]:
    people = {"admin": world.admin, "doctor": world.doctor, "staff": world.staff, "patient": patient}
    return {name: person.get("/api/dashboard/stats").json() for name, person in people.items()}


def test_a_visit(world: World) -> None:
    # Lina registers and signs in; her world is empty.
    body = registration(Role.PATIENT, name="Lina Lund")
    lina = world.service.browser()
    assert lina.post("/api/auth/register", body).status_code == 201
    assert lina.login(body["email"], body["password"]).json()["user"]["role"] == "patient"
    for name in ("patients", "appointments", "records"):
        assert lina.get(f"/api/{name}").json()["total"] == 0
    before = stats(world, lina)
    assert before["patient"] == {"upcomingAppointments": 0, "medicalRecords": 0, "prescriptions": 0}

    # Staff find her among the registrations that wait, write a chart and link it.
    [account] = world.staff.get("/api/users?linked=false&search=lina lund").json()["users"]
    her_chart = world.staff.post("/api/patients", chart(name="Lina Lund", email=body["email"])).json()
    assert (
        world.staff.put(f"/api/patients/{her_chart['id']}/account", {"userId": account["id"]}).status_code
        == 200
    )
    assert [seen["id"] for seen in lina.get("/api/patients").json()["patients"]] == [her_chart["id"]]

    # She books, and moves it by an hour.
    [doctor] = [d for d in lina.get("/api/doctors").json()["doctors"] if d["name"] == "Dora Demir"]
    begins = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    booking = {
        "patientId": her_chart["id"],
        "doctorId": doctor["id"],
        "date": begins.isoformat(),
        "reason": "Cough",
    }
    appointment = lina.post("/api/appointments", booking).json()
    assert appointment["status"] == "scheduled"
    assert lina.get("/api/dashboard/stats").json()["upcomingAppointments"] == 1
    path = f"/api/appointments/{appointment['id']}"
    moved = lina.patch(path, {"date": (begins + timedelta(hours=1)).isoformat()})
    assert moved.json()["date"] == (begins + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")

    # She has come before that; the doctor enters when, completes it and writes a record; she reads it.
    assert world.doctor.patch(path, {"status": "completed"}).status_code == 400
    came = {"status": "completed", "date": (begins - timedelta(days=4)).isoformat()}
    assert world.doctor.patch(path, came).json()["status"] == "completed"
    note = {"patientId": her_chart["id"], "diagnosis": "Bronchitis", "prescription": "Rest", "notes": ""}
    record = world.doctor.post("/api/records", note).json()
    assert lina.get(f"/api/records/{record['id']}").json() == record
    assert lina.get("/api/records").json()["records"] == [record]

    # Four dashboards have changed.
    after = stats(world, lina)
    grown = {role: {name: after[role][name] - before[role][name] for name in after[role]} for role in after}
    assert grown == {
        "admin": {"totalPatients": 1, "totalDoctors": 0, "totalAppointments": 1, "revenue": 150},
        "doctor": {"assignedPatients": 1, "todayAppointments": 0, "pendingReports": 0},
        "staff": {"managedPatients": 1, "scheduledAppointments": 0, "pendingRegistrations": -1},
        "patient": {"upcomingAppointments": 0, "medicalRecords": 1, "prescriptions": 1},
    }

    # She sees who opened her chart, refreshes, signs out and is refused.
    accesses = lina.get(f"/api/patients/{her_chart['id']}/accesses").json()["accesses"]
    assert {"Dora Demir", "Sam Staff", "Lina Lund"} == {access["name"] for access in accesses}
    assert lina.post("/api/auth/refresh").json() == {"message": "Token refreshed"}
    kept = dict(lina.cookies)
    assert lina.post("/api/auth/logout").json() == {"message": "Logged out successfully"}
    assert lina.cookies == {}
    assert world.service.browser(kept).get("/api/users/me").json() == {"detail": "Not authenticated"}
    assert world.service.browser(kept).post("/api/auth/refresh").status_code == 401
