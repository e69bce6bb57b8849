"""Every example in openapi.yaml is executed on the demo data: requests get their documented success, answers
are the documented ones, and every error can be reproduced."""

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime
from ipaddress import ip_address
from typing import Any
from uuid import UUID

import httpx
import pytest

from api.commands.development import add_demo
from api.commands.environment import run_transaction
from api.contract import contract
from api.settings import Settings
from persistence import demo
from security.roles import Role
from tests.support.client import Browser
from tests.support.conformance import CONTRACT
from tests.support.factories import chart
from tests.support.openapi import operations, parameters, resolve, success
from tests.support.service import KEY, Backend, Service

pytestmark = pytest.mark.slow

DOCUMENT = contract()
UNKNOWN = "00000000-0000-4000-8000-000000000000"
SECOND_CHART = "2b3c4d5e-6f70-4b2c-9d3e-6eaf50415a06"
CHART, VISIT, RECORD = (str(id) for id in (demo.CHART, demo.VISIT, demo.RECORD))
DOCTOR, ADMIN, PATIENT = (str(id) for id in (demo.DOCTOR, demo.ADMIN, demo.PATIENT))
COLLEAGUE = "3ae884d1-bfd3-5dc7-af43-11b59c8029da"
Cookies = dict[str, str]
FOREIGN = {"origin": "http://localhost:5999"}
PROBLEM = {"accept": "application/problem+json"}


@dataclass
class Clinic:
    """A service of its own over the demo data, with the limits of production, and everyone signed in."""

    service: Service
    jars: dict[Role, Cookies]

    def browser(self, role: Role | None = None) -> Browser:
        return self.service.browser(self.jars[role] if role else None)

    @property
    def anonymous(self) -> Browser:
        return self.browser()

    @property
    def admin(self) -> Browser:
        return self.browser(Role.ADMIN)

    @property
    def doctor(self) -> Browser:
        return self.browser(Role.DOCTOR)

    @property
    def staff(self) -> Browser:
        return self.browser(Role.STAFF)

    @property
    def patient(self) -> Browser:
        return self.browser(Role.PATIENT)

    def find(self, kind: str, name: str) -> dict[str, Any]:
        """The one of the list that `name` finds."""
        [found] = self.admin.get(f"/api/{kind}", params={"search": name}).json()[kind]
        return dict(found)


def settings(backend: Backend, **changes: Any) -> Settings:
    values = {"database_url": backend.database_url, "redis_url": backend.redis_url, "secret_key": KEY}
    return Settings(**{**values, **changes})


@pytest.fixture(scope="module")
def template(servers: Backend) -> tuple[Backend, dict[Role, Cookies]]:
    """The demo data, and the cookies of the four accounts. Only copied, so that every case starts here."""
    backend = servers.copy()
    chosen = settings(backend)
    run_transaction(backend.database_url, lambda transaction: add_demo(transaction, chosen))
    with Service(backend, chosen) as service:
        jars = {}
        for account in demo.ACCOUNTS[:4]:
            browser = service.browser()
            body = {"email": account.email, "password": demo.PASSWORD}
            signed_in = browser.post("/api/auth/login", body, headers={"user-agent": "Mozilla/5.0"})
            assert signed_in.status_code == 200, signed_in.text
            jars[account.role] = browser.cookies
    return backend, jars


@contextmanager
def open_clinic(template: tuple[Backend, dict[Role, Cookies]]) -> Iterator[Clinic]:
    backend = template[0].copy()
    with Service(backend, settings(backend)) as service:
        yield Clinic(service, copy.deepcopy(template[1]))


@pytest.fixture
def clinic(template: tuple[Backend, dict[Role, Cookies]]) -> Iterator[Clinic]:
    """For a case that changes something."""
    with open_clinic(template) as clinic:
        yield clinic


@pytest.fixture(scope="module")
def unchanged(template: tuple[Backend, dict[Role, Cookies]]) -> Iterator[Clinic]:
    """For all cases that change nothing."""
    with open_clinic(template) as clinic:
        yield clinic


# Requests and their answers.


@dataclass
class Case:
    """An operation with one of its request examples, if it has any, and the answer that belongs to it."""

    method: str
    path: str
    operation: dict[str, Any]
    request: tuple[str, Any] | None
    answer: tuple[str, Any]

    @property
    def id(self) -> str:
        return f"{self.operation['operationId']}-{(self.request or self.answer)[0]}"

    @property
    def role(self) -> Role | None:
        """Who sends it: the role that the name of an example speaks of, or else one that may."""
        if self.operation.get("security") == []:
            return None
        if {} in self.operation.get("security", []) and self.request:
            return None
        names = [example[0].lower().removeprefix("by") for example in (self.request, self.answer) if example]
        named = [Role(name) for name in names if name in set(Role)]
        allowed = [Role(role) for role in self.operation.get("x-roles", [Role.DOCTOR])]
        return (named or allowed)[0]

    @property
    def status(self) -> int:
        return int(success(DOCUMENT, self.operation)[0])


def examples(content: dict[str, Any]) -> list[tuple[str, Any]]:
    shown = content.get("application/json", {}).get("examples", {})
    return [(name, example["value"]) for name, example in shown.items()]


def cases() -> Iterator[Case]:
    for method, path, operation in operations(DOCUMENT):
        answers = examples(success(DOCUMENT, operation)[1].get("content", {}))
        requests = examples(operation.get("requestBody", {}).get("content", {}))
        for request in requests:
            answer = next((answer for answer in answers if answer[0] == request[0]), answers[0])
            yield Case(method, path, operation, request, answer)
        if not requests:
            yield from (Case(method, path, operation, None, answer) for answer in answers)


def visit_day(clinic: Clinic) -> dict[str, str]:
    """The day of the visit that the answer shows; the day of the example is empty."""
    assert clinic.doctor.get("/api/appointments?date=2042-05-14&status=scheduled").json()["total"] == 0
    return {"date": clinic.doctor.get(f"/api/appointments/{VISIT}").json()["date"][:10]}


def read_chart(clinic: Clinic) -> dict[str, str]:
    assert clinic.doctor.get(f"/api/patients/{CHART}").status_code == 200
    return {}


def read_chart_thrice(clinic: Clinic) -> dict[str, str]:
    for _ in range(3):
        read_chart(clinic)
    return {}


def change_chart(clinic: Clinic) -> dict[str, str]:
    changes = {"allergies": "Penicillin: anaphylaxis"}
    assert clinic.doctor.patch(f"/api/patients/{CHART}", changes).status_code == 200
    return {}


def move_visit(clinic: Clinic) -> dict[str, str]:
    moved = {"date": "2042-05-20T10:00:00+03:00"}
    assert clinic.doctor.patch(f"/api/appointments/{VISIT}", moved).status_code == 200
    return {}


def enter_leave(clinic: Clinic) -> dict[str, str]:
    times = {"from": "2042-08-03T22:00:00Z", "to": "2042-08-17T22:00:00Z"}
    body = {"doctorId": DOCTOR, "reason": "A new knee", **times}
    made = clinic.staff.post("/api/absences", body)
    assert made.status_code == 201
    return {"id": made.json()["id"]}


def leave_one_visit(clinic: Clinic) -> dict[str, str]:
    """One scheduled appointment with the doctor, which is on a Tuesday."""
    move_visit(clinic)
    for booked in clinic.doctor.get("/api/appointments?status=scheduled").json()["appointments"]:
        if booked["id"] != VISIT:
            cancelled = clinic.doctor.patch(f"/api/appointments/{booked['id']}", {"status": "cancelled"})
            assert cancelled.status_code == 200
    return {}


def other_session(clinic: Clinic) -> dict[str, str]:
    assert clinic.anonymous.login("doctor@example.com", demo.PASSWORD).status_code == 200
    sessions = clinic.doctor.get("/api/users/me/sessions").json()["sessions"]
    return {"id": next(session["id"] for session in sessions if not session["current"])}


def subscribe(clinic: Clinic) -> dict[str, str]:
    assert clinic.doctor.post("/api/users/me/calendar").status_code == 201
    return {}


def amend_record(clinic: Clinic) -> dict[str, str]:
    reason = "The dose was wrong: 300 mg is that of the other tablet."
    body = {"reason": reason, "prescription": "Magnesium 150 mg, once a day for four weeks"}
    assert clinic.doctor.post(f"/api/records/{RECORD}/versions", body).status_code == 201
    return {}


def read_record_thrice(clinic: Clinic) -> dict[str, str]:
    for _ in range(3):
        assert clinic.doctor.get(f"/api/records/{RECORD}").status_code == 200
    return {}


def register_twice(clinic: Clinic) -> dict[str, str]:
    """A second chart with the id of the examples, and an appointment of it."""
    again = clinic.staff.post(
        "/api/patients", chart(name="Paula Patiente", email="paula@example.com", allergies="Penicillin")
    ).json()
    clinic.service.backend.sql("UPDATE patients SET id = $1 WHERE id = $2", SECOND_CHART, again["id"])
    booked = {"patientId": SECOND_CHART, "doctorId": DOCTOR, "date": "2042-05-21T07:00:00Z", "reason": "x"}
    assert clinic.staff.post("/api/appointments", booked).status_code == 201
    return {}


def change_visit(clinic: Clinic) -> dict[str, str]:
    """A cursor of before."""
    cursor = clinic.doctor.get("/api/changes").json()["cursor"]
    move_visit(clinic)
    return {"since": cursor}


def merge_second_chart(clinic: Clinic) -> dict[str, str]:
    register_twice(clinic)
    body = {"from": SECOND_CHART, "reason": "Registered twice."}
    assert clinic.admin.post(f"/api/patients/{CHART}/merge", body).status_code == 200
    return {}


def begin_visit(clinic: Clinic) -> dict[str, str]:
    """Its day has come."""
    moved = {"date": "2020-05-20T10:00:00+03:00"}
    assert clinic.doctor.patch(f"/api/appointments/{VISIT}", moved).status_code == 200
    return {}


def let_arrive(clinic: Clinic) -> dict[str, str]:
    begin_visit(clinic)
    assert act(clinic, "arrived").status_code == 200
    return {}


def work_two_hours(clinic: Clinic) -> dict[str, str]:
    hours = [{"weekday": 3, "from": "09:00", "to": "11:00"}]
    assert clinic.staff.put(f"/api/doctors/{DOCTOR}/hours", {"hours": hours}).status_code == 200
    return {}


# What must have happened before, and the parameters that nobody can know in advance, of an operation or of
# one of its examples.
PREPARATIONS: dict[str, Callable[[Clinic], dict[str, str]]] = {
    "listAppointments": visit_day,
    "listAuditEvents": read_chart,
    "listPatientAccesses": read_chart_thrice,
    "getPatientHistory": change_chart,
    "getAppointmentHistory": move_visit,
    "listPatientMerges": merge_second_chart,
    "getVisit": let_arrive,
    "updateVisit": begin_visit,
    "reassignAppointments": move_visit,
    "updateUser-leave": lambda clinic: {"id": DOCTOR},
    "listChanges": change_visit,
    "mergePatient": register_twice,
    "unmergePatient": merge_second_chart,
    "putDoctorHours": leave_one_visit,
    "listDoctorSlots": work_two_hours,
    "listAbsences": enter_leave,
    "createAbsence": move_visit,
    "deleteAbsence": enter_leave,
    "listRecordVersions": amend_record,
    "listRecordAccesses": read_record_thrice,
    "endMySession": other_session,
    "endMyCalendar": subscribe,
}


def in_query(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def send(clinic: Clinic, case: Case) -> Any:
    before = PREPARATIONS.get(case.id) or PREPARATIONS.get(case.operation["operationId"])
    given = before(clinic) if before else {}
    path, query = case.path, {}
    for parameter in parameters(DOCUMENT, case.path, case.operation):
        value = given[parameter["name"]] if parameter["name"] in given else parameter["example"]
        if parameter["in"] == "path":
            path = path.replace("{id}", value)
        elif parameter["in"] == "query":
            query[parameter["name"]] = in_query(value)
    body = {"json": case.request[1]} if case.request else {}
    return clinic.browser(case.role).request(case.method, path, params=query, **body)


IDS = {str(id) for id in (demo.ADMIN, demo.DOCTOR, demo.STAFF, demo.PATIENT, CHART, VISIT, RECORD)}


def mask_variable_values(value: Any, key: str = "") -> Any:
    """The value, but only its kind where it is another each time: instants, network addresses, serial
    numbers, ids of what is made at run time (version 4, and not fixed by the demo data)."""
    match value:
        case dict():
            return {name: mask_variable_values(inner, name) for name, inner in value.items()}
        case list():
            return [mask_variable_values(inner) for inner in value]
        case str() if key == "url":
            return re.sub("[^/]{43}", "secret", value)
        case int() if key == "id":
            return "number"
        case str() if key == "cursor":
            return "cursor"
        case str() if key == "today":
            return type(date.fromisoformat(value))
        case str() if re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)", value):
            return type(datetime.fromisoformat(value))
        case str() if re.fullmatch(r"[0-9a-f-]{36}", value) and value not in IDS and UUID(value).version == 4:
            return UUID
    try:
        return type(ip_address(value)) if key == "address" else value
    except ValueError:
        return value


READS = [
    case for case in cases() if case.method == "GET" and case.operation["operationId"] not in PREPARATIONS
]
WRITES = [case for case in cases() if case not in READS]


@pytest.mark.parametrize("case", READS, ids=lambda case: case.id)
def test_read_examples_get_the_answers_they_show(case: Case, unchanged: Clinic) -> None:
    check(case, unchanged)


@pytest.mark.parametrize("case", WRITES, ids=lambda case: case.id)
def test_write_examples_get_the_answers_they_show(case: Case, clinic: Clinic) -> None:
    check(case, clinic)


def check(case: Case, clinic: Clinic) -> None:
    """Where one answer stands for many requests, it is that answer with what was sent."""
    answer = send(clinic, case)
    assert answer.status_code == case.status, answer.text
    name, expected = case.answer
    if case.request and case.request[0] != name:
        expected = {key: case.request[1].get(key, value) for key, value in expected.items()}
    mismatch = "the example of openapi.yaml is not what the service answers about persistence/demo.py"
    assert mask_variable_values(answer.json()) == mask_variable_values(expected), mismatch


@pytest.mark.parametrize("field", ["phone", "address", "medicalHistory", "created_at", "id"])
def test_a_wrong_example_is_caught(field: str, unchanged: Clinic) -> None:
    [case] = [case for case in READS if case.id == "getPatient-paula"]
    name, shown = case.answer
    with pytest.raises(AssertionError):
        check(replace(case, answer=(name, {**shown, field: "something else"})), unchanged)


# Errors: how to get each detail that the contract shows.


def login(clinic: Clinic, email: str, password: str = demo.PASSWORD) -> Any:
    return clinic.anonymous.login(email, password)


def register(clinic: Clinic, headers: Mapping[str, str] = {}, **changes: Any) -> Any:
    body = {"name": "N", "email": "n@example.com", "password": "secret1", "role": "patient", **changes}
    return clinic.anonymous.post("/api/auth/register", body, headers=headers)


def book(clinic: Clinic, by: Role = Role.STAFF, **changes: Any) -> Any:
    body = {"patientId": CHART, "doctorId": DOCTOR, "date": "2042-05-20T07:00:00Z", "reason": "x", **changes}
    return clinic.browser(by).post("/api/appointments", body)


def book_twice(clinic: Clinic, **changes: Any) -> Any:
    assert book(clinic).status_code == 201
    return book(clinic, **changes)


def link(clinic: Clinic, chart: str, user: str, by: Role = Role.STAFF) -> Any:
    return clinic.browser(by).put(f"/api/patients/{chart}/account", {"userId": user})


def change_password(clinic: Clinic, current: str, new: str) -> Any:
    return clinic.doctor.post("/api/users/me/password", {"currentPassword": current, "newPassword": new})


def disabled(clinic: Clinic) -> Any:
    assert clinic.admin.patch(f"/api/users/{DOCTOR}", {"status": "disabled"}).status_code == 200
    return login(clinic, "doctor@example.com")


def reassign(clinic: Clinic, fate: Any, **changes: Any) -> Any:
    times = {"from": "2020-01-01T00:00:00Z", "to": "2042-12-31T00:00:00Z"}
    body = {"doctorId": DOCTOR, **times, "appointments": fate, **changes}
    return clinic.staff.post("/api/appointments/reassign", body)


def busy_colleague(clinic: Clinic) -> Any:
    for doctor, patient in ((DOCTOR, "Elif"), (COLLEAGUE, "Deniz")):
        chart = clinic.find("patients", patient)["id"]
        assert book(clinic, patientId=chart, doctorId=doctor).status_code == 201
    return reassign(clinic, {"reassignTo": COLLEAGUE})


def idle_colleague(clinic: Clinic) -> Any:
    assert clinic.admin.put(f"/api/doctors/{COLLEAGUE}/hours", {"hours": []}).status_code == 200
    move_visit(clinic)
    return reassign(clinic, {"reassignTo": COLLEAGUE}, **{"from": "2042-05-20T00:00:00Z"})


def closed_clinic(clinic: Clinic) -> Any:
    move_visit(clinic)
    clinic.service.backend.sql(
        "INSERT INTO absences (id, begins, ends) VALUES (gen_random_uuid(), '2042-05-20', '2042-05-21')"
    )
    return reassign(clinic, {"reassignTo": COLLEAGUE}, **{"from": "2042-05-20T00:00:00Z"})


def late_change(clinic: Clinic) -> Any:
    assert clinic.doctor.patch(f"/api/appointments/{VISIT}", {"status": "cancelled"}).status_code == 200
    return clinic.doctor.patch(f"/api/appointments/{VISIT}", {"notes": "x"})


def cancelled_late(clinic: Clinic) -> Any:
    begun = book(clinic, date="2020-05-20T07:00:00Z").json()["id"]
    return clinic.patient.patch(f"/api/appointments/{begun}", {"status": "cancelled"})


def book_on_tuesdays(clinic: Clinic, by: Role) -> Any:
    hours = [{"weekday": 2, "from": "08:00", "to": "12:00"}]
    assert clinic.staff.put(f"/api/doctors/{DOCTOR}/hours", {"hours": hours}).status_code == 200
    return book(clinic, by)


def moved_to_the_departed(clinic: Clinic) -> Any:
    assert clinic.admin.patch(f"/api/users/{DOCTOR}", {"status": "disabled"}).status_code == 200
    return clinic.staff.patch(f"/api/appointments/{VISIT}", {"date": "2042-05-20T07:00:00Z"})


def retracted_twice(clinic: Clinic) -> Any:
    path, body = f"/api/records/{RECORD}/retraction", {"reason": "Wrong chart"}
    assert clinic.doctor.post(path, body).status_code == 201
    return clinic.doctor.post(path, body)


def amended_by_another(clinic: Clinic) -> Any:
    body = {"name": "N", "email": "n@example.com", "password": "correct-horse", "role": "doctor"}
    assert clinic.admin.post("/api/auth/register", body).status_code == 201
    other = clinic.anonymous
    assert other.login("n@example.com", "correct-horse").status_code == 200
    return other.post(f"/api/records/{RECORD}/versions", {"reason": "x", "notes": "x"})


def act(clinic: Clinic, what: str) -> Any:
    return clinic.staff.post(f"/api/appointments/{VISIT}/visit", {"act": what})


def arrived_twice(clinic: Clinic) -> Any:
    let_arrive(clinic)
    return act(clinic, "arrived")


def arrived_late(clinic: Clinic) -> Any:
    assert clinic.doctor.patch(f"/api/appointments/{VISIT}", {"status": "cancelled"}).status_code == 200
    return act(clinic, "arrived")


def with_a_key_that_was_used(clinic: Clinic) -> Any:
    headers = {"Idempotency-Key": "0b8e5f6c-7d1a-4c3e-9f42-6a5d8e7c1b30"}
    opened = clinic.staff.post("/api/patients", chart(), headers=headers)
    assert opened.status_code == 201
    return clinic.staff.post("/api/patients", chart(name="Nora Novak"), headers=headers)


def merge(clinic: Clinic, source: str, act: str) -> Any:
    return clinic.admin.post(f"/api/patients/{CHART}/{act}", {"from": source, "reason": "x"})


def linked_chart(clinic: Clinic) -> str:
    some = str(clinic.find("patients", "Elif")["id"])
    assert link(clinic, some, clinic.find("users", "Otto")["id"], by=Role.ADMIN).status_code == 200
    return some


def from_a_foreign_page(clinic: Clinic) -> Any:
    body = {"email": "doctor@example.com", "password": demo.PASSWORD}
    return clinic.anonymous.post("/api/auth/login", body, headers=FOREIGN)


def too_many(clinic: Clinic) -> Any:
    answers = (clinic.doctor.get("/api/doctors") for _ in range(101))
    return next(answer for answer in answers if answer.status_code != 200)


def locked_out(clinic: Clinic) -> Any:
    for _ in range(5):
        assert login(clinic, "doctor@example.com", "wrong").status_code == 401
    return login(clinic, "doctor@example.com")


def unreadable(clinic: Clinic) -> Any:
    """A request that is not HTTP: the server itself answers it, and the answer is read from the socket."""
    head, _, body = clinic.service.raw(b"GET /health/live nonsense\r\n\r\n").partition(b"\r\n\r\n")
    status = int(head.split()[1])
    return httpx.Response(status, content=body, request=httpx.Request("GET", "http://test/health/live"))


def broken(clinic: Clinic) -> Any:
    clinic.service.backend.sql("ALTER TABLE medical_records RENAME TO elsewhere")
    return clinic.doctor.get("/api/records")


def other_content(clinic: Clinic, path: str) -> Any:
    return clinic.doctor.get(path, headers={"if-match": '"what it was"'})


def without_postgresql(clinic: Clinic) -> Any:
    backend = clinic.service.backend
    with Service(backend, settings(backend, database_url="postgresql://localhost:1/nowhere")) as service:
        return service.browser().get("/health/ready")


Reproduction = Callable[[Clinic], httpx.Response]
ON_DEMO_DATA: dict[str, Reproduction] = {
    "BadRequest.field": lambda clinic: clinic.admin.get("/api/users?role=nurse"),
    "BadRequest.parameters": lambda c: c.doctor.get("/api/patients?limit=0&order=name", headers=PROBLEM),
    "BadRequest.unknown": lambda clinic: clinic.doctor.get("/api/doctors?order=name"),
    "BadRequest.query": lambda clinic: clinic.doctor.get("/api/patients?limit=0"),
    "BadRequest.malformed": lambda clinic: clinic.anonymous.request(
        "POST", "/api/auth/login", content="{", headers={"content-type": "application/json"}
    ),
    "RegistrationRefused.duplicate": lambda clinic: register(clinic, email="Doctor@Example.com"),
    "RegistrationRefused.field": lambda clinic: register(clinic, role="nurse"),
    "RegistrationRefused.fields": lambda clinic: register(
        clinic, PROBLEM, name="", email="nora", confirmPassword="secret1"
    ),
    "RegistrationRefused.password": lambda clinic: register(clinic, password="€" * 25),
    "PasswordRefused.wrong": lambda clinic: change_password(clinic, "wrong", "correct-horse-battery"),
    "PasswordRefused.short": lambda clinic: change_password(clinic, demo.PASSWORD, "short"),
    "AccountChangeRefused.lastAdmin": lambda c: c.admin.patch(f"/api/users/{ADMIN}", {"status": "disabled"}),
    "AccountChangeRefused.emailTaken": lambda c: c.admin.patch(
        f"/api/users/{DOCTOR}", {"email": "Staff@example.com"}
    ),
    "AccountChangeRefused.pending": lambda c: c.admin.patch(f"/api/users/{DOCTOR}", {"status": "pending"}),
    "AccountChangeRefused.notLeaving": lambda c: c.admin.patch(
        f"/api/users/{DOCTOR}", {"appointments": "cancel"}
    ),
    "ReassignmentRefused.itself": lambda c: reassign(c, {"reassignTo": DOCTOR}),
    "ReassignmentRefused.backwards": lambda c: reassign(c, "cancel", to="2000-01-01T00:00:00Z"),
    "MergeRefused.itself": lambda c: merge(c, CHART, "merge"),
    "MergeRefused.notMerged": lambda c: merge(c, c.find("patients", "Elif")["id"], "unmerge"),
    "LinkRefused.notPatient": lambda c: link(c, c.find("patients", "Elif")["id"], DOCTOR),
    "LinkRefused.accountTaken": lambda c: link(c, c.find("patients", "Elif")["id"], PATIENT),
    "LinkRefused.patientTaken": lambda c: link(c, CHART, c.find("users", "Otto")["id"], by=Role.ADMIN),
    "LinkForbidden.linkedBefore": lambda clinic: link(clinic, CHART, PATIENT),
    "AppointmentRefused.past": lambda clinic: book(clinic, Role.PATIENT, date="2020-05-20T07:00:00Z"),
    "AppointmentRefused.tooEarly": lambda clinic: clinic.doctor.patch(
        f"/api/appointments/{VISIT}", {"status": "completed"}
    ),
    "AppointmentRefused.noOffset": lambda clinic: book(clinic, date="2042-05-20T07:00:00"),
    "UnreadableRequest.unreadable": unreadable,
    "Unauthorized.notAuthenticated": lambda clinic: clinic.anonymous.get("/api/users/me"),
    "InvalidCredentials.invalid": lambda clinic: login(clinic, "doctor@example.com", "wrong"),
    "AccountNotAdmitted.pending": lambda clinic: login(clinic, "new.doctor@example.com"),
    "AccountNotAdmitted.foreignOrigin": from_a_foreign_page,
    "Forbidden.role": lambda clinic: clinic.patient.get("/api/users"),
    "Forbidden.foreignOrigin": lambda clinic: clinic.staff.patch("/api/users/me", {}, headers=FOREIGN),
    "UserNotFound.user": lambda clinic: clinic.admin.get(f"/api/users/{UNKNOWN}"),
    "UserOrDoctorNotFound.user": lambda clinic: clinic.admin.patch(f"/api/users/{UNKNOWN}", {}),
    "UserOrDoctorNotFound.doctor": lambda clinic: clinic.admin.patch(
        f"/api/users/{DOCTOR}", {"status": "disabled", "appointments": {"reassignTo": UNKNOWN}}
    ),
    "PatientNotFound.patient": lambda clinic: clinic.doctor.get(f"/api/patients/{UNKNOWN}"),
    "SessionNotFound.session": lambda clinic: clinic.doctor.delete(f"/api/users/me/sessions/{UNKNOWN}"),
    "CalendarNotFound.calendar": lambda clinic: clinic.doctor.delete("/api/users/me/calendar"),
    "PatientAccountNotFound.patient": lambda c: c.staff.get(f"/api/patients/{UNKNOWN}/account"),
    "PatientAccountNotFound.user": lambda clinic: clinic.staff.get(
        f"/api/patients/{clinic.find('patients', 'Elif')['id']}/account"
    ),
    "PatientOrUserNotFound.patient": lambda clinic: link(clinic, UNKNOWN, PATIENT),
    "PatientOrUserNotFound.user": lambda clinic: link(clinic, CHART, UNKNOWN, by=Role.ADMIN),
    "DoctorNotFound.doctor": lambda clinic: clinic.staff.get(f"/api/doctors/{UNKNOWN}"),
    "PatientOrDoctorNotFound.patient": lambda clinic: book(clinic, patientId=UNKNOWN),
    "PatientOrDoctorNotFound.doctor": lambda clinic: book(clinic, doctorId=UNKNOWN),
    "AbsenceNotFound.absence": lambda clinic: clinic.staff.delete(f"/api/absences/{UNKNOWN}"),
    "DoctorOrAbsenceNotFound.doctor": lambda clinic: clinic.staff.post(
        "/api/absences",
        {"doctorId": UNKNOWN, "from": "2042-08-03T22:00:00Z", "to": "2042-08-17T22:00:00Z"},
    ),
    "AppointmentNotFound.appointment": lambda clinic: clinic.staff.get(f"/api/appointments/{UNKNOWN}"),
    "RecordChangeRefused.reason": lambda c: c.doctor.post(f"/api/records/{RECORD}/retraction", {}),
    "VisitRefused.nothing": lambda clinic: act(clinic, "undo"),
    "VisitRefused.missed": lambda clinic: act(clinic, "noShow"),
    "RecordNotFound.record": lambda clinic: clinic.doctor.get(f"/api/records/{UNKNOWN}"),
    "PayloadTooLarge.tooLarge": lambda clinic: register(clinic, name="x" * 300_000),
    "UnsupportedMediaType.notJson": lambda clinic: clinic.anonymous.request(
        "POST", "/api/auth/login", content="email=x", headers={"content-type": "text/plain"}
    ),
    "UnsupportedMediaType.encoded": lambda clinic: clinic.anonymous.post(
        "/api/auth/login", {}, headers={"content-encoding": "gzip"}
    ),
    "ServiceUnavailable.unavailable": without_postgresql,
    "PreconditionFailed.changed": lambda clinic: other_content(clinic, "/api/dashboard/stats"),
    "Changed.stale": lambda c: c.staff.patch(f"/api/patients/{CHART}", {}, headers={"if-match": '"other"'}),
    "DocumentChanged.changed": lambda clinic: other_content(clinic, "/openapi.yaml"),
}
AFTER_A_CHANGE: dict[str, Reproduction] = {
    "BadRequest.keyUsed": with_a_key_that_was_used,
    "AccountNotAdmitted.disabled": disabled,
    "AppointmentRefused.doctorBusy": lambda clinic: book_twice(
        clinic, patientId=clinic.find("patients", "Elif")["id"]
    ),
    "AppointmentRefused.patientBusy": lambda clinic: book_twice(
        clinic, doctorId=clinic.find("users", "Émile")["id"]
    ),
    "ReassignmentRefused.busy": busy_colleague,
    "ReassignmentRefused.outside": idle_colleague,
    "ReassignmentRefused.absent": closed_clinic,
    "MergeRefused.linked": lambda c: merge(c, linked_chart(c), "merge"),
    "AppointmentRefused.final": late_change,
    "VisitRefused.arrived": arrived_twice,
    "VisitRefused.cancelled": arrived_late,
    "RecordChangeRefused.retracted": retracted_twice,
    "NotTheAuthor.author": amended_by_another,
    "AppointmentRefused.begun": cancelled_late,
    "AppointmentRefused.departed": moved_to_the_departed,
    "AppointmentRefused.outsideHours": lambda clinic: book_on_tuesdays(clinic, Role.STAFF),
    "AppointmentRefused.notFree": lambda clinic: book_on_tuesdays(clinic, Role.PATIENT),
    "TooManyRequests.tooMany": too_many,
    "TooManyFailedAttempts.locked": locked_out,
    "InternalServerError.internal": broken,
}


def error_examples() -> Iterator[tuple[str, dict[str, Any]]]:
    """(component.example, body) of every error that the contract shows, problems among them. Content that
    several responses share, by an anchor of YAML, is of the first."""
    contents: list[int] = []
    for name, response in DOCUMENT["components"]["responses"].items():
        if id(response.get("content")) in contents:
            continue
        contents.append(id(response.get("content")))
        for content in (response.get("content", {}), problems(response)):
            for example, value in examples(content):
                if value.get("detail"):
                    yield f"{name}.{example}", value


def problems(response: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": response.get("content", {}).get(PROBLEM["accept"], {})}


@pytest.mark.parametrize("name", ON_DEMO_DATA)
def test_error_examples_are_reproduced_on_the_demo_data(name: str, unchanged: Clinic) -> None:
    check_error_example(name, ON_DEMO_DATA[name], unchanged)


@pytest.mark.parametrize("name", AFTER_A_CHANGE)
def test_error_examples_are_reproduced_after_a_change(name: str, clinic: Clinic) -> None:
    check_error_example(name, AFTER_A_CHANGE[name], clinic)


def check_error_example(name: str, reproduce: Reproduction, clinic: Clinic) -> None:
    """The body, word for word, from an operation that declares this response, or one of the same content."""
    answer = reproduce(clinic)
    assert answer.json() == dict(error_examples())[name]
    found = CONTRACT.operation(answer.request.method, answer.request.url.path)
    assert found is not None
    declared = resolve(DOCUMENT, found[1]["responses"][str(answer.status_code)])
    assert declared["content"] is DOCUMENT["components"]["responses"][name.split(".")[0]]["content"]


def test_every_error_example_is_reproduced() -> None:
    shown = {name for name, _ in error_examples()}
    assert shown == {*ON_DEMO_DATA, *AFTER_A_CHANGE}, "add to one of the two how a caller gets this error"


def test_header_examples_are_what_answers_carry(clinic: Clinic) -> None:
    """What the contract shows of headers is what the first answer of a minute carries."""
    origin = {"origin": "http://localhost:5173"}
    first = clinic.doctor.get("/api/doctors", headers=origin).headers
    limited = too_many(clinic).headers
    for name, header in DOCUMENT["components"]["headers"].items():
        shown = str(header.get("example", header["schema"].get("const")))
        match name:
            case "SessionCookies" | "RenewedCookies" | "ClearedCookies":
                assert shown == "None"  # no two are equal; the description has them
            case "Content-Disposition":
                day = {"date": "2042-05-14"}
                assert clinic.staff.get("/api/appointments/day-sheet", params=day).headers[name] == shown
            case "ETag":
                tag = clinic.staff.get("/api/dashboard/stats").headers[name]
                assert re.sub("[0-9a-f]", "x", tag) == re.sub("[0-9a-f]", "x", shown)
            case "Idempotency-Replayed":
                headers = {"Idempotency-Key": "0b8e5f6c-7d1a-4c3e-9f42-6a5d8e7c1b30"}
                one = chart()
                answers = [clinic.staff.post("/api/patients", one, headers=headers) for _ in range(2)]
                assert [answer.headers.get(name) for answer in answers] == [None, shown]
            case "WWW-Authenticate":
                assert clinic.anonymous.get("/api/doctors").headers[name] == shown
            case "Retry-After":
                assert 0 < int(limited[name]) <= int(shown)
            case _:
                assert mask_variable_values(first[name]) == mask_variable_values(shown), name
