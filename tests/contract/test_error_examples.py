"""Every error that openapi.yaml shows can be reproduced on the demo data, word for word, and its headers."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from persistence import demo
from security.roles import Role
from tests.support.client import PROBLEM
from tests.support.conformance import CONTRACT
from tests.support.demo_clinic import (
    ADMIN,
    CHART,
    COLLEAGUE,
    DOCTOR,
    DOCUMENT,
    PATIENT,
    RECORD,
    UNKNOWN,
    VISIT,
    Clinic,
    act,
    begin_visit,
    book,
    examples,
    let_arrive,
    mask_variable_values,
    move_visit,
    settings,
)
from tests.support.factories import chart
from tests.support.listening import Stream
from tests.support.openapi import resolve
from tests.support.service import Service

pytestmark = pytest.mark.slow

FOREIGN = {"origin": "http://localhost:5999"}


def login(clinic: Clinic, email: str, password: str = demo.PASSWORD) -> Any:
    return clinic.anonymous.login(email, password)


def register(clinic: Clinic, headers: Mapping[str, str] = {}, **changes: Any) -> Any:
    body = {"name": "N", "email": "n@example.com", "password": "secret1", "role": "patient", **changes}
    return clinic.anonymous.post("/api/auth/register", body, headers=headers)


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


@contextmanager
def limited(clinic: Clinic, **limits: int) -> Iterator[Clinic]:
    """The clinic under limits for patients, which are in the settings."""
    backend = clinic.service.backend
    with Service(backend, settings(backend, **limits)) as service:
        yield replace(clinic, service=service)


def from_now(after: timedelta) -> str:
    return f"{datetime.now(UTC) + after:%Y-%m-%dT%H:%M:%SZ}"


def book_within(clinic: Clinic, after: timedelta, **limits: int) -> Any:
    """By the patient, so long from now."""
    with limited(clinic, **limits) as one:
        return book(one, Role.PATIENT, doctorId=COLLEAGUE, date=from_now(after))


def book_a_third(clinic: Clinic) -> Any:
    """They have one already."""
    assert book(clinic).status_code == 201
    return book_within(clinic, timedelta(days=900), booking_max_open=2)


def cancelled_shortly_before(clinic: Clinic) -> Any:
    soon = book(clinic, doctorId=COLLEAGUE, date=from_now(timedelta(hours=2))).json()["id"]
    with limited(clinic, cancel_cutoff_minutes=1440) as one:
        return one.patient.patch(f"/api/appointments/{soon}", {"status": "cancelled"})


def missed_and_replaced(clinic: Clinic) -> Any:
    """Another patient is entered for the time of somebody who has not come."""
    begin_visit(clinic)
    assert act(clinic, "noShow").status_code == 200
    other = clinic.find("patients", "Elif")["id"]
    assert book(clinic, patientId=other, date="2020-05-20T07:00:00Z").status_code == 201
    return act(clinic, "undo")


def set_hours(clinic: Clinic, *times: tuple[str, str]) -> Any:
    hours = [{"weekday": 1, "from": opens, "to": closes} for opens, closes in times]
    return clinic.staff.put(f"/api/doctors/{DOCTOR}/hours", {"hours": hours})


def enter_leave(clinic: Clinic, since: str, until: str) -> Any:
    return clinic.staff.post("/api/absences", {"doctorId": DOCTOR, "from": since, "to": until})


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
    "AppointmentRefused.tooSoon": lambda c: book_within(c, timedelta(hours=1), booking_lead_minutes=120),
    "AppointmentRefused.tooFarAhead": lambda c: book_within(c, timedelta(days=90), booking_horizon_days=60),
    "HoursRefused.overlap": lambda c: set_hours(c, ("08:00", "12:00"), ("11:30", "17:00")),
    "HoursRefused.backwards": lambda c: set_hours(c, ("12:00", "08:00")),
    "AbsenceRefused.backwards": lambda c: enter_leave(c, "2042-08-17T22:00:00Z", "2042-08-03T22:00:00Z"),
    "AbsenceRefused.outOfRange": lambda c: enter_leave(c, "2042-08-03T22:00:00Z", "9999-12-31T22:00:00Z"),
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
    "AppointmentRefused.patientOverbooked": lambda clinic: book_twice(
        clinic, doctorId=clinic.find("users", "Émile")["id"], overbook={"reason": "An emergency"}
    ),
    "AppointmentRefused.tooManyOpen": book_a_third,
    "AppointmentRefused.tooLate": cancelled_shortly_before,
    "ReassignmentRefused.busy": busy_colleague,
    "ReassignmentRefused.outside": idle_colleague,
    "ReassignmentRefused.absent": closed_clinic,
    "MergeRefused.linked": lambda c: merge(c, linked_chart(c), "merge"),
    "AppointmentRefused.final": late_change,
    "VisitRefused.taken": missed_and_replaced,
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
            case "X-Accel-Buffering":
                with Stream(clinic.staff) as stream:
                    assert stream.response.headers[name] == shown
            case "WWW-Authenticate":
                assert clinic.anonymous.get("/api/doctors").headers[name] == shown
            case "Retry-After":
                assert 0 < int(limited[name]) <= int(shown)
            case _:
                assert mask_variable_values(first[name]) == mask_variable_values(shown), name
