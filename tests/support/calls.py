"""Requests of every operation that succeed each time, by each role for which the operation does something
else. They are made of the clinic of tests/bench/clinic.py."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.bench.clinic import PASSWORD, uid
from tests.support.client import Browser
from tests.support.factories import World, chart, registration

ROWS = (1, 10, 100)
CHART, DOCTOR = uid("patient", 0), uid("doctor", 0)
numbers = count(1)
leaving = count(100)  # doctors whom nobody else needs


class Request(NamedTuple):
    browser: Browser
    method: str
    path: str
    body: dict[str, Any] | None = None


class Case(NamedTuple):
    """`make` gives a new request each time, whose answer has as many rows as it is told."""

    make: Callable[[World, int], Request]
    rows: tuple[int, ...] = ROWS[:1]


def get(path: str, *people: str) -> list[Case]:
    """A GET by each of `people`; `{n}` in the path is the number of rows."""

    rows = ROWS if "{n}" in path else ROWS[:1]

    def case(name: str) -> Case:
        return Case(lambda world, n: Request(world.people[name], "GET", path.format(n=n)), rows)

    return [case(name) for name in people or ("admin",)]


def somebody(world: World) -> Browser:
    """Signed in as the clinic's staff, in a session of their own."""
    browser = world.service.browser()
    assert browser.login("staff0@example.com", PASSWORD).status_code == 200
    return browser


def login(world: World, n: int) -> Request:
    return Request(
        world.service.browser(),
        "POST",
        "/api/auth/login",
        {"email": "doctor1@example.com", "password": PASSWORD},
    )


def register(world: World, n: int) -> Request:
    return Request(world.service.browser(), "POST", "/api/auth/register", registration())


def refresh(world: World, n: int) -> Request:
    return Request(world.admin, "POST", "/api/auth/refresh")


def logout(world: World, n: int) -> Request:
    return Request(somebody(world), "POST", "/api/auth/logout")


def update_me(world: World, n: int) -> Request:
    return Request(world.staff, "PATCH", "/api/users/me", {"phone": f"+1 555 {next(numbers)}"})


def change_my_password(world: World, n: int) -> Request:
    person, _ = world.account()
    body = {"currentPassword": "correct horse", "newPassword": "another correct horse"}
    return Request(person, "POST", "/api/users/me/password", body)


def end_my_session(world: World, n: int) -> Request:
    somebody(world)
    listed = world.staff.get("/api/users/me/sessions?limit=100").json()["sessions"]
    other = next(one["id"] for one in listed if not one["current"])
    return Request(world.staff, "DELETE", f"/api/users/me/sessions/{other}")


def create_calendar(world: World, n: int) -> Request:
    return Request(world.doctor, "POST", "/api/users/me/calendar")


def end_calendar(world: World, n: int) -> Request:
    assert world.patient.post("/api/users/me/calendar").status_code == 201
    return Request(world.patient, "DELETE", "/api/users/me/calendar")


def feed(name: str, method: str = "GET") -> Case:
    """By a stranger: a calendar has no cookies."""

    def make(world: World, n: int) -> Request:
        made = world.people[name].post("/api/users/me/calendar")
        assert made.status_code == 201, made.text
        return Request(world.service.browser(), method, urlsplit(made.json()["url"]).path)

    return Case(make)


def update_user(world: World, n: int) -> Request:
    path = f"/api/users/{uid('puser', 20 + next(numbers))}"
    return Request(world.admin, "PATCH", path, {"status": "disabled"})


def disable_doctor(world: World, n: int) -> Request:
    doctor = uid("doctor", next(leaving))
    world.appointment(patientId=CHART, doctorId=doctor)
    body = {"status": "disabled", "appointments": {"reassignTo": uid("doctor", 1)}}
    return Request(world.admin, "PATCH", f"/api/users/{doctor}", body)


def set_user_password(world: World, n: int) -> Request:
    body = {"newPassword": "a password that an administrator chose"}
    return Request(world.admin, "POST", f"/api/users/{uid('puser', 149)}/password", body)


def create_patient(world: World, n: int) -> Request:
    return Request(world.staff, "POST", "/api/patients", chart())


def update_patient(world: World, n: int) -> Request:
    return Request(world.staff, "PATCH", f"/api/patients/{CHART}", {"phone": f"+1 555 {next(numbers)}"})


def link(world: World, n: int) -> Request:
    world.admin.delete(f"/api/patients/{uid('patient', 120)}/account")
    body = {"userId": uid("puser", 120)}
    return Request(world.admin, "PUT", f"/api/patients/{uid('patient', 120)}/account", body)


def unlink(world: World, n: int) -> Request:
    linked = link(world, n)
    assert linked.browser.put(linked.path, linked.body).status_code == 200
    return Request(world.staff, "DELETE", linked.path)


def changes_since_one(name: str) -> Case:
    """What changed, and something has."""

    def make(world: World, n: int) -> Request:
        cursor = world.people[name].get("/api/changes").json()["cursor"]
        world.appointment(patientId=CHART, doctorId=DOCTOR)
        return Request(world.people[name], "GET", f"/api/changes?since={cursor}")

    return Case(make)


def book(name: str) -> Case:
    def make(world: World, n: int) -> Request:
        body = {"patientId": CHART, "doctorId": DOCTOR, "date": world.slot(), "reason": "Check-up"}
        return Request(world.people[name], "POST", "/api/appointments", body)

    return Case(make)


def change(name: str, **values: Callable[[World], str]) -> Case:
    def make(world: World, n: int) -> Request:
        booked = world.appointment(patientId=CHART, doctorId=DOCTOR)
        body = {key: value(world) for key, value in values.items()}
        return Request(world.people[name], "PATCH", f"/api/appointments/{booked['id']}", body)

    return Case(make)


def put_hours(name: str, doctor: str, *weekdays: int) -> Case:
    """`weekdays`: the whole days; none for the hours of the clinic."""

    def make(world: World, n: int) -> Request:
        week = [{"weekday": day, "from": "00:00", "to": "24:00"} for day in weekdays]
        return Request(world.people[name], "PUT", f"/api/doctors/{doctor}/hours", {"hours": week or None})

    return Case(make)


def act(name: str, *acts: str) -> Case:
    """The last of these acts."""

    def make(world: World, n: int) -> Request:
        booked = world.appointment(patientId=CHART, doctorId=DOCTOR, date=world.past_slot())
        path = f"/api/appointments/{booked['id']}/visit"
        for each in acts[:-1]:
            assert world.staff.post(path, {"act": each}).status_code == 200
        return Request(world.people[name], "POST", path, {"act": acts[-1]})

    return Case(make)


def reassign(query: str = "") -> Case:
    def make(world: World, n: int) -> Request:
        for _ in range(n):
            last = world.appointment(patientId=CHART, doctorId=uid("doctor", 2))
        heir, times = uid("doctor", 3), {"from": "2100-01-01T00:00:00Z", "to": "2199-01-01T00:00:00Z"}
        body = {"doctorId": last["doctorId"], **times, "appointments": {"reassignTo": heir}}
        return Request(world.staff, "POST", f"/api/appointments/reassign{query}", body)

    return Case(make, (1, 10))


def away(**more: str | None) -> dict[str, Any]:
    """After everything that is booked."""
    begins = datetime(2199, 1, 1, tzinfo=UTC) + timedelta(minutes=next(numbers))
    return {"from": begins.isoformat(), "to": (begins + timedelta(minutes=1)).isoformat(), **more}


def be_away(name: str) -> Case:
    def make(world: World, n: int) -> Request:
        body = away(doctorId=DOCTOR, reason="A new knee")
        return Request(world.people[name], "POST", "/api/absences", body)

    return Case(make)


def delete_absence(world: World, n: int) -> Request:
    made = world.staff.post("/api/absences", away())
    return Request(world.staff, "DELETE", f"/api/absences/{made.json()['id']}")


def create_record(world: World, n: int) -> Request:
    body = {"patientId": CHART, "diagnosis": "Well", "prescription": "", "notes": ""}
    return Request(world.doctor, "POST", "/api/records", body)


def amend_record(world: World, n: int) -> Request:
    path = f"/api/records/{world.record(CHART)['id']}/versions"
    return Request(world.doctor, "POST", path, {"reason": "A slip", "notes": "Came alone"})


def retract_record(world: World, n: int) -> Request:
    path = f"/api/records/{world.record(CHART)['id']}/retraction"
    return Request(world.doctor, "POST", path, {"reason": "Wrong chart"})


def merge(query: str = "") -> Case:
    def make(world: World, n: int) -> Request:
        path = f"/api/patients/{world.chart()['id']}/merge{query}"
        return Request(world.admin, "POST", path, {"from": world.chart()["id"], "reason": "The same person"})

    return Case(make)


def unmerge(world: World, n: int) -> Request:
    survivor, body = world.chart()["id"], {"from": world.chart()["id"], "reason": "The same person"}
    assert world.admin.post(f"/api/patients/{survivor}/merge", body).status_code == 200
    return Request(world.admin, "POST", f"/api/patients/{survivor}/unmerge", body)


def head(path: str) -> list[Case]:
    return [Case(lambda world, n: Request(world.admin, "HEAD", path))]


READERS = ("admin", "doctor", "patient")
EVERYBODY = (*READERS, "staff")
DAY = "2024-06-03"
NAME = "Maria%20Anbason"
NOBODY = "00000000-0000-4000-8000-000000000000"
CHARTS, VISITS = (",".join(uid(kind, number) for number in range(100)) for kind in ("patient", "appt"))
WHOSE = f"patientId={CHART}&doctorId={DOCTOR}"
WHEN = "from=2024-01-01T00:00:00Z&to=2025-01-01T00:00:00Z"
CASES: dict[str, list[Case]] = {
    "login": [Case(login)],
    "register": [Case(register)],
    "refresh": [Case(refresh)],
    "logout": [Case(logout)],
    "getMe": get("/api/users/me", *EVERYBODY),
    "updateMe": [Case(update_me)],
    "changeMyPassword": [Case(change_my_password)],
    "listMySessions": get("/api/users/me/sessions?limit={n}", "staff"),
    "endMySession": [Case(end_my_session)],
    "listUsers": [
        *get("/api/users?limit={n}", "admin", "staff"),
        *get("/api/users?limit={n}&page=2"),
        *get("/api/users?limit={n}&search=e&role=patient&status=active&linked=true", "admin", "staff"),
    ],
    "createMyCalendar": [Case(create_calendar)],
    "endMyCalendar": [Case(end_calendar)],
    "getCalendar": [feed("doctor"), feed("patient")],
    "getCalendarHead": [feed("patient", "HEAD")],
    "getUser": get(f"/api/users/{uid('puser', 0)}", "admin", "staff"),
    "updateUser": [Case(update_user), Case(disable_doctor)],
    "setUserPassword": [Case(set_user_password)],
    "listPatients": [
        *get("/api/patients?limit={n}", *EVERYBODY),
        *get("/api/patients?limit={n}&page=2", "staff"),
        *get("/api/patients?limit={n}&search=e", *EVERYBODY),
        *get("/api/patients?limit={n}&sort=-created_at", *EVERYBODY),
        *get(f"/api/patients?limit={{n}}&search=e&ids={CHARTS}&sort=-name", "staff"),
        *get(f"/api/patients?limit={{n}}&ids={CHARTS}&dateOfBirth=1980-05-17", *EVERYBODY),
    ],
    "createPatient": [Case(create_patient)],
    "getPatient": get(f"/api/patients/{CHART}", *EVERYBODY),
    "updatePatient": [Case(update_patient)],
    "getPatientAccount": get(f"/api/patients/{CHART}/account", "admin", "staff"),
    "linkPatientAccount": [Case(link)],
    "unlinkPatientAccount": [Case(unlink)],
    "listPatientAccesses": get(f"/api/patients/{CHART}/accesses?limit={{n}}", "admin", "patient"),
    "listPatientDuplicates": get(
        f"/api/patients/duplicates?name={NAME}&dateOfBirth=1980-05-17&email=a.b@example.com&phone=5550100",
        "admin",
        "staff",
    ),
    "getPatientHistory": get(f"/api/patients/{CHART}/history?limit={{n}}", *EVERYBODY),
    "listPatientMerges": get(f"/api/patients/{CHART}/merges?limit={{n}}", "admin", "doctor", "staff"),
    "mergePatient": [merge(), merge("?dryRun=true")],
    "unmergePatient": [Case(unmerge)],
    "listDoctors": [
        *get("/api/doctors?limit={n}", *EVERYBODY),
        *get("/api/doctors?limit={n}&search=e&specialization=surgery&sort=-name", *EVERYBODY),
        *get(f"/api/doctors?limit={{n}}&ids={DOCTOR}", "patient"),
    ],
    "listAbsences": [
        *get("/api/absences?limit={n}", "admin", "staff", "doctor"),
        *get(
            f"/api/absences?limit={{n}}&doctorId={DOCTOR}&from=2199-01-01T00:00:00Z&to=2199-12-31T00:00:00Z"
        ),
    ],
    "createAbsence": [be_away("staff"), be_away("doctor")],
    "deleteAbsence": [Case(delete_absence)],
    "getDoctorHours": get(f"/api/doctors/{DOCTOR}/hours", "admin", "staff", "doctor"),
    "putDoctorHours": [put_hours("staff", uid("doctor", 5), *range(1, 8)), put_hours("doctor", DOCTOR)],
    "getDoctor": get(f"/api/doctors/{DOCTOR}", *EVERYBODY),
    "listDoctorSlots": get(f"/api/doctors/{DOCTOR}/slots?date=2042-05-14", *EVERYBODY),
    "listSlots": [
        *get("/api/slots?limit={n}", *EVERYBODY),
        *get(f"/api/slots?limit={{n}}&doctorId={DOCTOR}&specialization=Cardiology", "patient"),
    ],
    "listAppointments": [
        *get("/api/appointments?limit={n}", *EVERYBODY),
        *get("/api/appointments?limit={n}&page=2", "staff"),
        *get(f"/api/appointments?limit={{n}}&date={DAY}&status=completed", *EVERYBODY),
        *get("/api/appointments?limit={n}&status=completed", *EVERYBODY),
        *get("/api/appointments?limit={n}&status=completed,cancelled&sort=-created_at", *EVERYBODY),
        *get("/api/appointments?limit={n}&status=completed,cancelled&page=2", "staff"),
        *get(f"/api/appointments?limit={{n}}&{WHOSE}&{WHEN}&status=completed,scheduled", *EVERYBODY),
        *get(f"/api/appointments?limit={{n}}&patientId={NOBODY}&sort=-date", *EVERYBODY),
        *get(f"/api/appointments?limit={{n}}&ids={VISITS}&{WHEN}", *EVERYBODY),
        *get("/api/appointments?limit={n}&orphaned=false", "staff"),
        *get("/api/appointments?limit={n}&overdue=true", *EVERYBODY),
    ],
    "createAppointment": [book("staff"), book("doctor"), book("patient")],
    "getAppointment": get(f"/api/appointments/{uid('appt', 0)}", "admin", "staff"),
    "updateAppointment": [
        change("staff", notes=lambda world: "Bring the letter."),
        change("staff", date=World.slot),
        change("doctor", date=World.slot, status=lambda world: "cancelled"),
        change("patient", status=lambda world: "cancelled"),
    ],
    "getDaySheet": [
        *get(f"/api/appointments/day-sheet?date={DAY}", "admin", "doctor", "staff"),
        *get(f"/api/appointments/day-sheet?doctorId={DOCTOR}", "staff"),
    ],
    "reassignAppointments": [reassign(), reassign("?dryRun=true")],
    "getAppointmentHistory": get(f"/api/appointments/{uid('appt', 0)}/history?limit={{n}}", "admin", "staff"),
    "getVisit": get(f"/api/appointments/{uid('appt', 0)}/visit", "admin", "staff"),
    "updateVisit": [
        act("staff", "arrived"),
        act("doctor", "noShow"),
        act("admin", "noShow", "undo"),
    ],
    "listRecords": [
        *get("/api/records?limit={n}", *READERS),
        *get("/api/records?limit={n}&page=2"),
        *get(f"/api/records?limit={{n}}&patientId={CHART}", *READERS),
        *get(f"/api/records?limit={{n}}&{WHOSE}&{WHEN}&sort=date", *READERS),
        *get(f"/api/records?limit={{n}}&patientId={NOBODY}&{WHEN}", *READERS),
    ],
    "createRecord": [Case(create_record)],
    "getRecord": get(f"/api/records/{uid('rec', 0)}", *READERS),
    "listRecordVersions": get(f"/api/records/{uid('rec', 0)}/versions?limit=10", *READERS),
    "createRecordVersion": [Case(amend_record)],
    "retractRecord": [Case(retract_record)],
    "listRecordAccesses": get(f"/api/records/{uid('rec', 0)}/accesses?limit={{n}}"),
    "getDashboardStats": get("/api/dashboard/stats", *EVERYBODY),
    "listChanges": [*get("/api/changes", *EVERYBODY), *map(changes_since_one, EVERYBODY)],
    "getClinic": get("/api/clinic", *EVERYBODY),
    "listAuditEvents": [
        *get("/api/audit?limit={n}"),
        *get("/api/audit?limit={n}&page=2"),
        *get(f"/api/audit?limit={{n}}&patientId={CHART}&action=patient.read"),
    ],
    "getSecurityTxt": get("/.well-known/security.txt"),
    "getSecurityTxtHead": head("/.well-known/security.txt"),
    "checkLiveness": get("/health/live"),
    "checkLivenessHead": head("/health/live"),
    "checkReadiness": get("/health/ready"),
    "checkReadinessHead": head("/health/ready"),
    "getOpenapiYaml": get("/openapi.yaml"),
    "getOpenapiYamlHead": head("/openapi.yaml"),
    "getOpenapiJson": get("/openapi.json"),
    "getOpenapiJsonHead": head("/openapi.json"),
    "getDocs": get("/docs"),
    "getDocsHead": head("/docs"),
}
