"""Every example in openapi.yaml is executed on the demo data: requests get their documented success, answers
are the documented ones."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from persistence import demo
from security.roles import Role
from tests.support.demo_clinic import (
    CHART,
    DOCTOR,
    DOCUMENT,
    RECORD,
    SECOND_CHART,
    VISIT,
    Clinic,
    begin_visit,
    examples,
    let_arrive,
    mask_variable_values,
    move_visit,
)
from tests.support.factories import chart
from tests.support.openapi import operations, parameters, success

pytestmark = pytest.mark.slow


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
