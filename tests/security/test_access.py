"""Who may do what: every operation by anonymous and the four roles, generated from the contract's
`x-roles` and the ownership table below; every cell is executed (contract, "Who may do what")."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import pytest

from api.contract import contract
from security.roles import Role
from tests.support.client import Browser
from tests.support.factories import World, chart, registration
from tests.support.openapi import Json, operations, parameters
from tests.support.openapi import success as declared_success

OPERATIONS = {
    operation["operationId"]: (method, path, operation) for method, path, operation in operations(contract())
}
READABLE = {
    "checkLiveness", "checkReadiness", "getOpenapiYaml", "getOpenapiJson", "getDocs", "getSecurityTxt",
}  # fmt: skip
FEED = {"getCalendar", "getCalendarHead"}
PUBLIC = {"login", "register", "logout"} | FEED | READABLE | {f"{name}Head" for name in READABLE}
# Operations on one object: which signed-in roles reach one of their own world, and one of somebody else's.
# A role that `x-roles` shuts out is 403 in both; one that may call but not see is 404.
OWN, FOREIGN = "own", "foreign"
REQUIRED = {"required": True, "schema": {}}
ONLY_OWN: dict[str, set[Role]] = {
    "getPatient": {Role.PATIENT},
    "getPatientHistory": {Role.PATIENT},
    "getAppointmentHistory": {Role.PATIENT, Role.DOCTOR},
    "listPatientAccesses": {Role.PATIENT},
    "getAppointment": {Role.PATIENT, Role.DOCTOR},
    "updateAppointment": {Role.PATIENT, Role.DOCTOR},
    "getVisit": {Role.PATIENT, Role.DOCTOR},
    "updateVisit": {Role.DOCTOR},
    "getRecord": {Role.PATIENT},
    "listRecordVersions": {Role.PATIENT},
    "createRecordVersion": {Role.DOCTOR},
    "createAppointment": {Role.PATIENT, Role.DOCTOR},
    "createAbsence": {Role.DOCTOR},
    "getDoctorHours": {Role.DOCTOR},
    "putDoctorHours": {Role.DOCTOR},
}
# What a doctor may not do, but sees.
SEEN = {"createAppointment", "createRecordVersion", "createAbsence", "getDoctorHours", "putDoctorHours"}


@dataclass
class Objects:
    """One world of objects: a chart with its account, a doctor, an appointment, a record."""

    chart: str
    user: str
    doctor: str
    appointment: str
    record: str


@pytest.fixture(scope="module")
def own(world: World) -> Objects:
    patient = world.chart(name="Paula Patient")
    world.link(patient["id"], world.patient)
    doctor = world.doctor.me()["id"]
    appointment = world.appointment(patientId=patient["id"], doctorId=doctor)
    record = world.record(patient["id"])
    return Objects(patient["id"], world.patient.me()["id"], doctor, appointment["id"], record["id"])


@pytest.fixture(scope="module")
def foreign(world: World) -> Objects:
    patient = world.chart(name="Otto Okafor")
    world.link(patient["id"], world.other_patient)
    doctor = world.other_doctor.me()["id"]
    appointment = world.appointment(patientId=patient["id"], doctorId=doctor)
    body = {"patientId": patient["id"], "diagnosis": "Well", "prescription": "", "notes": ""}
    record = world.other_doctor.post("/api/records", body).json()
    return Objects(patient["id"], world.other_patient.me()["id"], doctor, appointment["id"], record["id"])


def ids_of(objects: Objects) -> dict[str, str]:
    """What `{id}` stands for in the paths that begin like this."""
    return {
        "/api/users/": objects.user,
        "/api/patients/": objects.chart,
        "/api/doctors/": objects.doctor,
        "/api/absences/": objects.user,
        "/api/appointments/": objects.appointment,
        "/api/records/": objects.record,
    }


def target_of(document: Json, path: str, operation: Json, ids: dict[str, str]) -> str:
    """The path and the query of a request: `{id}` is one of `ids`, every other parameter that is required has
    the value of its example in the document."""
    found = parameters(document, path, operation)
    required = [one for one in found if one.get("required") and one["in"] in {"path", "query"}]
    values = {(one["in"], one["name"]): in_url(one["example"]) for one in required}
    for start in filter(path.startswith, ids):
        values["path", "id"] = ids[start]
    target = re.sub(r"\{(\w+)\}", lambda name: values["path", name[1]], path)
    query = urlencode({name: value for (kind, name), value in values.items() if kind == "query"})
    return f"{target}?{query}" if query else target


def in_url(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_required_parameters_are_filled_from_the_examples_of_the_contract() -> None:
    """The contract has no operation yet that requires more than an id."""
    path = "/api/doctors/{id}/visits/{number}"
    document: Json = {
        "components": {"parameters": {"Number": {**REQUIRED, "name": "number", "in": "path", "example": 7}}},
        "paths": {path: {"parameters": [{"$ref": "#/components/parameters/Number"}]}},
    }
    operation: Json = {
        "parameters": [
            {**REQUIRED, "name": "id", "in": "path", "example": "somebody"},
            {**REQUIRED, "name": "from", "in": "query", "example": "2026-01-05T08:30:00+01:00"},
            {**REQUIRED, "name": "all", "in": "query", "example": True},
            {"name": "page", "in": "query", "example": 1},
        ]
    }
    target = target_of(document, path, operation, {"/api/doctors/": "dora"})
    assert target == "/api/doctors/dora/visits/7?from=2026-01-05T08%3A30%3A00%2B01%3A00&all=true"
    del operation["parameters"][1]["example"]
    with pytest.raises(KeyError, match="example"):
        target_of(document, path, operation, {})


def merged_chart(objects: Objects, world: World) -> str:
    merged = str(world.chart()["id"])
    body = {"from": merged, "reason": "The same person"}
    assert world.admin.post(f"/api/patients/{objects.chart}/merge", body).status_code == 200
    return merged


def body_of(operation_id: str, objects: Objects, world: World) -> dict[str, Any] | None:
    """A body that the operation accepts, and that changes nothing the other cells depend on."""
    bodies: dict[str, Callable[[], dict[str, Any]]] = {
        "login": lambda: {"email": "nobody@example.com", "password": "not right"},
        "register": registration,
        "updateMe": dict,
        "changeMyPassword": lambda: {"currentPassword": "not right", "newPassword": "whatever"},
        "updateUser": dict,
        "setUserPassword": lambda: {"newPassword": "x"},
        "createPatient": chart,
        "updatePatient": dict,
        "linkPatientAccount": lambda: {"userId": objects.user},
        "createAppointment": lambda: {
            "patientId": objects.chart,
            "doctorId": objects.doctor,
            "date": world.slot(),
            "reason": "Check-up",
        },
        "updateAppointment": dict,
        "updateVisit": lambda: {"act": "undo"},
        "createRecord": lambda: {
            "patientId": objects.chart, "diagnosis": "Well", "prescription": "", "notes": "",
        },
        "reassignAppointments": lambda: {
            "doctorId": objects.doctor, "from": "1990-01-01T00:00:00Z", "to": "1990-01-02T00:00:00Z",
            "appointments": "cancel",
        },
        "mergePatient": lambda: {"from": world.chart()["id"], "reason": "The same person"},
        "unmergePatient": lambda: {"from": merged_chart(objects, world), "reason": "Two people"},
        "createRecordVersion": lambda: {"reason": "A slip", "notes": ""},
        "retractRecord": lambda: {"reason": "Wrong chart"},
        "putDoctorHours": lambda: {"hours": None},
        "createAbsence": lambda: {
            "doctorId": objects.doctor, "from": "2199-01-01T00:00:00Z", "to": "2199-01-02T00:00:00Z",
        },
    }  # fmt: skip
    return bodies[operation_id]() if operation_id in bodies else None


def call(browser: Browser, operation_id: str, objects: Objects, world: World) -> int:
    method, path, operation = OPERATIONS[operation_id]
    target = target_of(contract(), path, operation, ids_of(objects))
    body = body_of(operation_id, objects, world)
    options = {} if body is None else {"json": body}
    return browser.request(method, target, **options).status_code


# What a caller who may call gets: the operation's success, or what `body_of` and `ids_of` ask for (the id
# of a user is that of no session and of no absence; tests/api/test_sessions.py ends real ones,
# tests/api/test_absences.py deletes some; none of the parameters of
# duplicates is required, but one is: tests/api/test_duplicates.py names some; nothing of a visit is done yet
# that could be undone: tests/api/test_visits.py does some).
REFUSED_ON_PURPOSE = {
    "changeMyPassword": 400, "setUserPassword": 400, "endMySession": 404, "listPatientDuplicates": 400,
    "updateVisit": 400, "deleteAbsence": 404,
    **dict.fromkeys(FEED, 404),
}  # fmt: skip


def success_status(operation_id: str) -> int:
    if operation_id in REFUSED_ON_PURPOSE:
        return REFUSED_ON_PURPOSE[operation_id]
    return int(declared_success(contract(), OPERATIONS[operation_id][2])[0])


def expected(operation_id: str, role: Role, whose: str) -> int:
    roles = OPERATIONS[operation_id][2].get("x-roles", [role.value for role in Role])
    if role.value not in roles:
        return 403
    if (operation_id, role) == ("linkPatientAccount", Role.STAFF):
        return 403  # these charts are linked; those that never were have a test of their own
    if whose == FOREIGN and role in ONLY_OWN.get(operation_id, set()):
        return 403 if operation_id in SEEN and role is Role.DOCTOR else 404
    return success_status(operation_id)


# These take something away that other cells need, and have tests of their own.
APART = {"refresh", "unlinkPatientAccount", "retractRecord", "endMyCalendar"}
SIGNED_IN = [name for name in OPERATIONS if name not in PUBLIC | APART]


@pytest.mark.parametrize("operation_id", [*SIGNED_IN, *sorted(APART)])
def test_anonymous_callers_get_401(operation_id: str, world: World, own: Objects, anonymous: Browser) -> None:
    assert call(anonymous, operation_id, own, world) == 401


@pytest.mark.parametrize("operation_id", sorted(PUBLIC))
def test_public_operations_need_no_cookie(
    operation_id: str, world: World, own: Objects, anonymous: Browser
) -> None:
    wanted = 401 if operation_id == "login" else success_status(operation_id)
    assert call(anonymous, operation_id, own, world) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("whose", [OWN, FOREIGN])
@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("operation_id", SIGNED_IN)
def test_each_role_gets_the_status_that_the_contract_says(
    operation_id: str, role: Role, whose: str, world: World, own: Objects, foreign: Objects,
    client_as: Callable[[Role], Browser],
) -> None:  # fmt: skip
    objects = own if whose == OWN else foreign
    assert call(client_as(role), operation_id, objects, world) == expected(operation_id, role, whose)


@pytest.mark.parametrize("role", list(Role))
def test_administrators_and_staff_unlink_a_chart(
    role: Role, world: World, client_as: Callable[[Role], Browser]
) -> None:
    """Apart, because it takes a patient's world away."""
    patient_id = world.chart()["id"]
    answer = client_as(role).delete(f"/api/patients/{patient_id}/account")
    assert answer.status_code == (200 if role in (Role.ADMIN, Role.STAFF) else 403)


@pytest.mark.slow
@pytest.mark.parametrize("role", list(Role))
def test_administrators_and_the_author_retract_a_record(
    role: Role, world: World, client_as: Callable[[Role], Browser]
) -> None:
    record_id = world.record(world.chart()["id"])["id"]
    answer = client_as(role).post(f"/api/records/{record_id}/retraction", {"reason": "Wrong chart"})
    assert answer.status_code == (201 if role in (Role.ADMIN, Role.DOCTOR) else 403)


@pytest.mark.slow
@pytest.mark.parametrize("role", list(Role))
def test_administrators_and_staff_link_a_chart_that_was_never_linked(
    role: Role, world: World, client_as: Callable[[Role], Browser]
) -> None:
    patient_id, (_, account) = world.chart()["id"], world.account()
    answer = client_as(role).put(f"/api/patients/{patient_id}/account", {"userId": account["id"]})
    assert answer.status_code == (200 if role in (Role.ADMIN, Role.STAFF) else 403)


@pytest.mark.parametrize("name", ["patients", "appointments", "records"])
def test_lists_and_totals_have_only_what_the_caller_may_see(
    name: str, world: World, own: Objects, foreign: Objects
) -> None:
    mine = {"patients": own.chart, "appointments": own.appointment, "records": own.record}[name]
    other = {"patients": foreign.chart, "appointments": foreign.appointment, "records": foreign.record}[name]
    listed = world.patient.get(f"/api/{name}?limit=100").json()
    ids = {item["id"] for item in listed[name]}
    assert mine in ids
    assert other not in ids
    assert listed["total"] == len(ids)


def test_every_operation_is_in_the_access_matrix() -> None:
    """A new operation is in the matrix by itself; one that is neither public nor signed in cannot be."""
    everything = set(OPERATIONS)
    assert everything == set(SIGNED_IN) | PUBLIC | APART
    for name in PUBLIC:
        security = OPERATIONS[name][2]["security"]
        assert security == [] or {} in security, name
