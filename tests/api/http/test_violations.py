"""Errors that a form can use (contract, "Errors", "Values"): everything that is wrong at once, each with its
field and a detail that speaks of nothing else."""

import json
import re
from typing import Any
from unicodedata import category

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.contract import contract
from api.http import violations
from api.http.problems import ErrorCode, Fault
from security.roles import Role
from tests.api.http.helpers import ASKED, JSON, NOBODY, Places, places
from tests.contract.test_fuzz import BOUNDED
from tests.support.client import Browser
from tests.support.conformance import CONTRACT
from tests.support.factories import PASSWORD, World, chart, registration
from tests.support.shapes import structs

# Everything at once


def test_all_invalid_fields_are_told_at_once(anonymous: Browser) -> None:
    """In the order of the fields, unknown fields last. The default error has the first of them."""
    body = {
        "confirmPassword": "x", "<b>": 1, "phone": 5, "email": "nobody", "name": " ", "password": "short",
        "specialization": "x" * 121,
    }  # fmt: skip
    answer = anonymous.post("/api/auth/register", body, headers=ASKED)
    assert answer.status_code == 400
    assert places(answer) == [
        ("/name", "required"),
        ("/email", "bad_format"),
        ("/password", "too_short"),
        ("/role", "required"),
        ("/phone", "invalid_type"),
        ("/specialization", "too_long"),
        ("/confirmPassword", "unknown_field"),
        ("", "unknown_field"),
    ]
    problem = answer.json()
    assert (problem["detail"], problem["code"]) == ("name: is required", "required")
    assert problem["errors"][1] == {
        "pointer": "/email",
        "code": "bad_format",
        "detail": "must be an e-mail address",
    }
    assert anonymous.post("/api/auth/register", body).json() == {"detail": "name: is required"}


def invalid_requests(
    world: World, anonymous: Browser
) -> list[tuple[Browser, str, str, dict[str, Any] | None, Places]]:
    """(caller, method, path, body, faults) of requests that break both."""
    return [
        (
            anonymous, "POST", "/api/auth/register",
            registration(Role.PATIENT, name="", password="€" * 25, specialization="x", department="y"),
            [
                ("/name", "required"), ("/password", "too_long"),
                ("/specialization", "not_of_this_role"), ("/department", "not_of_this_role"),
            ],
        ),
        (
            anonymous, "POST", "/api/auth/register",
            {**registration(), "email": "İ" * 200 + "@b.c", "role": "nurse", "specialization": "x"},
            [("/email", "too_long"), ("/role", "not_allowed_value")],
        ),
        (
            world.staff, "PATCH", "/api/users/me", {"specialization": "Surgery", "name": None, "x": 1},
            [("/name", "required"), ("/specialization", "not_of_this_role"), ("/x", "unknown_field")],
        ),
        (
            world.patient, "POST", "/api/users/me/password", {"currentPassword": 5, "newPassword": "é" * 37},
            [("/currentPassword", "invalid_type"), ("/newPassword", "too_long")],
        ),
        (
            world.staff, "POST", "/api/patients", chart(phone=" ", dateOfBirth="2999-01-01", gender="x"),
            [("/phone", "required"), ("/dateOfBirth", "in_the_future"), ("/gender", "not_allowed_value")],
        ),
        (
            world.staff, "PATCH", f"/api/patients/{NOBODY}", {"dateOfBirth": "2999-01-01", "address": ""},
            [("/dateOfBirth", "in_the_future"), ("/address", "required")],
        ),
        (
            world.staff, "POST", "/api/appointments",
            {"patientId": "x", "doctorId": NOBODY, "date": "1899-01-01T00:00:00Z", "reason": "\n"},
            [("/patientId", "bad_format"), ("/date", "out_of_range"), ("/reason", "required")],
        ),
        (
            world.admin, "GET", "/api/audit?from=0001-01-01T00:00:00%2B14:00&action=x&limit=", None,
            [("from", "out_of_range"), ("action", "not_allowed_value"), ("limit", "invalid_type")],
        ),
    ]  # fmt: skip


def test_violations_of_schemas_and_of_rules_are_told_together(world: World, anonymous: Browser) -> None:
    """One field breaks its schema, another one of our own rules that need no stored data."""
    for browser, method, path, body, expected in invalid_requests(world, anonymous):
        options = {} if body is None else {"json": body}
        answer = browser.request(method, path, headers=ASKED, **options)
        assert (answer.status_code, places(answer)) == (400, expected)
        assert browser.request(method, path, **options).json() == {"detail": answer.json()["detail"]}


def test_pointers_name_the_invalid_items_of_a_list(world: World) -> None:
    attachments = ["1.pdf", "", 5, "javascript:x", "a\u0000", "2.pdf", "x" * 2049]
    body = {
        "patientId": NOBODY,
        "diagnosis": "x",
        "prescription": "",
        "notes": "",
        "attachments": attachments,
    }
    answer = world.doctor.post("/api/records", body, headers=ASKED)
    assert places(answer) == [
        ("/attachments/1", "too_short"),
        ("/attachments/2", "invalid_type"),
        ("/attachments/3", "bad_format"),
        ("/attachments/4", "bad_characters"),
        ("/attachments/6", "too_long"),
    ]
    assert answer.json()["detail"].startswith("attachments[1]: must be text of 1 to 2048 characters")
    many = world.doctor.post("/api/records", {**body, "attachments": ["x:y"] * 21}, headers=ASKED)
    assert places(many) == [("/attachments", "too_many_items")]


def test_an_error_tells_at_most_a_hundred_faults(world: World) -> None:
    body = chart(**{f"unknown{number}": number for number in range(500)})
    answer = world.staff.post("/api/patients", body, headers=ASKED)
    assert len(places(answer)) == 100


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "required"),
        (b"{", "malformed_json"),
        (b'{"name": 5, ', "malformed_json"),
        (b'{"name": "\xff"}', "malformed_json"),
        (b"[]", "invalid_type"),
        (b"null", "invalid_type"),
        (b'{"name": "a", "name": "b"}', "repeated"),
        (b"[" * 100_000, "malformed_json"),
        (b"1" * 5_000, "malformed_json"),
    ],
)
def test_a_fault_of_the_whole_body_has_an_empty_pointer(world: World, content: bytes, code: str) -> None:
    answer = world.staff.request("POST", "/api/patients", content=content, headers={**JSON, **ASKED})
    assert answer.status_code == 400
    assert places(answer) == [("", code)]
    assert answer.json()["detail"] == f"body: {answer.json()['errors'][0]['detail']}"


def test_a_number_of_thousands_of_digits_is_400(world: World) -> None:
    content = b'{"name": ' + b"1" * 5_000 + b"}"
    for headers in (JSON, {**JSON, **ASKED}):
        assert (
            world.staff.request("POST", "/api/patients", content=content, headers=headers).status_code == 400
        )


# What is required


def required_texts() -> list[Any]:
    """(operationId, schema, field, its rules) of every text of a body that is required and must not be
    empty."""
    found = []
    for path, item in contract()["paths"].items():
        for method, operation in item.items():
            if not isinstance(operation, dict) or "requestBody" not in operation:
                continue
            content = operation["requestBody"]["content"]["application/json"]
            name = content["schema"]["$ref"].rsplit("/", 1)[1]
            schema = contract()["components"]["schemas"][name]
            for field in schema.get("required", ()):
                if "null" in schema["properties"][field].get("type", ()):
                    continue  # null is a value of it
                found.append(pytest.param(method, path, operation, field, id=f"{name}-{field}"))
    return found


MAY_BE_EMPTY = {
    "prescription",
    "notes",
    "password",
    "currentPassword",
}  # the last two at login, where it is 401


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path", "operation", "field"), required_texts())
def test_an_absent_null_empty_or_blank_required_field_is_required(
    world: World, method: str, path: str, operation: dict[str, Any], field: str
) -> None:
    """An empty field of a form may be sent as any of these."""
    role = Role(operation.get("x-roles", ["admin"])[0])
    target = path.replace("{id}", NOBODY)
    values: list[Any] = [None]
    if field not in MAY_BE_EMPTY:
        values += [""] if field == "newPassword" else ["", " ", "\t\r\n", "\u2003\u00a0", "\ufeff"]
    for body in ({}, *({field: value} for value in values)):
        refused = world.people[role].request(method.upper(), target, json=body, headers=ASKED)
        assert refused.status_code == 400
        assert (f"/{field}", "required") in places(refused), body
        [fault] = [fault for fault in refused.json()["errors"] if fault["pointer"] == f"/{field}"]
        assert fault["detail"] == "is required"


@pytest.mark.parametrize("value", ["", "  ", "\u2003", None])
@pytest.mark.parametrize("field", ["name", "email", "phone", "address"])
def test_a_patch_cannot_empty_a_required_text(world: World, field: str, value: Any) -> None:
    refused = world.staff.patch(f"/api/patients/{NOBODY}", {field: value})
    assert (refused.status_code, refused.json()) == (400, {"detail": f"{field}: is required"})


# What a rule speaks of


def test_the_detail_describes_only_the_broken_rule(world: World) -> None:
    for field, value, detail, code in [
        ("name", "x" * 201, "must be text of 1 to 200 characters", "too_long"),
        ("name", "a\u0000", "must not contain NUL characters", "bad_characters"),
        ("name", "\u0000", "must not contain NUL characters", "bad_characters"),
        ("name", 5, "must be text of 1 to 200 characters", "invalid_type"),
        ("email", "x", "must be an e-mail address", "bad_format"),
        ("email", "a b@c", "must be an e-mail address", "bad_format"),
        ("email", f"{'x' * 260}@y", "must be text of 3 to 254 characters", "too_long"),
        ("email", "a\u0000@b", "must not contain NUL characters", "bad_characters"),
        ("dateOfBirth", "1980-02-30", "must be a date, YYYY-MM-DD", "bad_format"),
        ("gender", "unknown", "must be one of male, female, other", "not_allowed_value"),
        ("gender", ["male"], "must be one of male, female, other", "invalid_type"),
        ("allergies", "x" * 5001, "must be null or text of at most 5000 characters", "too_long"),
        ("allergies", "\u0000", "must not contain NUL characters", "bad_characters"),
    ]:
        answer = world.staff.post("/api/patients", chart(**{field: value}), headers=ASKED)
        assert answer.json()["errors"] == [{"pointer": f"/{field}", "code": code, "detail": detail}]
        assert answer.json()["detail"] == f"{field}: {detail}"


def test_no_example_of_an_error_describes_an_unbroken_rule() -> None:
    """In the contract."""
    shown = json.dumps(contract()["components"]["responses"])
    assert not re.search(r"NUL|leap second", shown)


@pytest.mark.slow
def test_a_duplicate_email_names_the_field(world: World, anonymous: Browser) -> None:
    body = registration(Role.PATIENT, email=world.patient.me()["email"].upper())
    assert anonymous.post("/api/auth/register", body).json() == {"detail": "email: is already registered"}
    answer = anonymous.post("/api/auth/register", body, headers=ASKED)
    assert answer.json()["errors"] == [
        {"pointer": "/email", "code": "duplicate", "detail": "is already registered"}
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("who", "method", "path", "body", "status", "expected"),
    [
        ("staff", "POST", "/api/appointments", {"patientId": NOBODY}, 404, [("/patientId", "not_found")]),
        ("staff", "POST", "/api/appointments", {"doctorId": NOBODY}, 404, [("/doctorId", "not_found")]),
        (
            "doctor", "POST", "/api/appointments", {"doctorId": NOBODY},
            403, [("/doctorId", "role_not_allowed")],
        ),
        ("doctor", "POST", "/api/records", {"patientId": NOBODY}, 404, [("/patientId", "not_found")]),
        ("patient", "POST", "/api/users/me/password", {}, 400, [("/currentPassword", "wrong_password")]),
    ],
)  # fmt: skip
def test_rules_about_stored_data_name_the_field(
    world: World, who: str, method: str, path: str, body: dict[str, Any], status: int, expected: Places
) -> None:
    """Whatever the status."""
    whole: dict[str, dict[str, Any]] = {
        "/api/appointments": {
            "patientId": world.chart()["id"], "doctorId": world.doctor.me()["id"], "date": world.slot(),
            "reason": "x",
        },
        "/api/records": {"diagnosis": "x", "prescription": "", "notes": ""},
        "/api/users/me/password": {"currentPassword": "wrong", "newPassword": "correct horse 2"},
    }  # fmt: skip
    answer = world.people[who].request(method, path, json={**whole[path], **body}, headers=ASKED)
    assert (answer.status_code, places(answer)) == (status, expected)


def test_a_taken_slot_says_whether_the_doctor_or_the_patient_is_busy(world: World) -> None:
    """So that a page can offer the doctor's next free slot, or tell the patient."""
    booked = world.appointment()
    again = {"date": booked["date"], "reason": "x", "patientId": world.chart()["id"]}
    doctor = world.staff.post("/api/appointments", {**again, "doctorId": booked["doctorId"]}, headers=ASKED)
    assert (doctor.status_code, places(doctor)) == (400, [("/date", "slot_taken_doctor")])
    again |= {"patientId": booked["patientId"], "doctorId": world.other_doctor.me()["id"]}
    patient = world.staff.post("/api/appointments", again, headers=ASKED)
    assert (patient.status_code, places(patient)) == (400, [("/date", "slot_taken_patient")])
    assert patient.json()["detail"] == "date: the patient has another appointment at that time"


@pytest.mark.slow
def test_fields_that_a_role_may_not_set_are_all_named(world: World) -> None:
    """With the roles that may. Fields that the role may set are not mentioned."""
    some = world.chart()
    body = {"phone": "0", "allergies": "Latex", "name": "X"}
    answer = world.doctor.patch(f"/api/patients/{some['id']}", body, headers=ASKED)
    assert places(answer) == [("/name", "role_not_allowed"), ("/phone", "role_not_allowed")]
    assert {fault["detail"] for fault in answer.json()["errors"]} == {"only admin and staff may change it"}
    visitor, own = world.linked_patient()
    visit = world.appointment(patientId=own["id"])
    for change, field in (({"notes": "x"}, "/notes"), ({"status": "completed"}, "/status")):
        refused = visitor.patch(f"/api/appointments/{visit['id']}", change, headers=ASKED)
        assert (refused.status_code, places(refused)) == (403, [(field, "role_not_allowed")])
        assert named(refused.json()["detail"]) == {"admin", "doctor", "staff"}


@pytest.mark.slow
def test_pending_and_disabled_accounts_have_their_own_error_codes(world: World, anonymous: Browser) -> None:
    """So that a page can tell the two apart without reading English."""
    body = registration(Role.DOCTOR)
    assert anonymous.post("/api/auth/register", body).status_code == 201
    credentials = {"email": body["email"], "password": body["password"]}
    pending = anonymous.post("/api/auth/login", credentials, headers=ASKED)
    assert (pending.status_code, pending.json()["code"]) == (403, "account_pending")
    _, me = world.account()
    assert world.admin.patch(f"/api/users/{me['id']}", {"status": "disabled"}).status_code == 200
    credentials = {"email": me["email"], "password": PASSWORD}
    disabled = anonymous.post("/api/auth/login", credentials, headers=ASKED)
    assert (disabled.status_code, disabled.json()["code"]) == (403, "account_disabled")


def test_a_403_for_a_role_names_the_roles_that_may(world: World) -> None:
    """Contract, "In what order a request is judged": role 403, "a detail that says which roles may"."""
    for path, item in contract()["paths"].items():
        for method, operation in item.items():
            roles = operation.get("x-roles", list(Role)) if isinstance(operation, dict) else list(Role)
            for role in set(Role) - set(roles):
                target = path.replace("{id}", NOBODY)
                answer = world.people[role].request(method.upper(), target, headers=ASKED)
                assert (answer.status_code, answer.json()["code"]) == (403, "role_not_allowed")
                assert named(answer.json()["detail"]) == set(roles), answer.text


def named(detail: str) -> set[str]:
    return set(re.findall(r"\b(?:admin|doctor|staff|patient)\b", detail))


# Against msgspec and the contract


SCHEMAS = [
    (method.upper(), path, body["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1])
    for path, methods in contract()["paths"].items()
    for method, operation in methods.items()
    if isinstance(operation, dict) and (body := operation.get("requestBody"))
]
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.lists(st.text(max_size=3), max_size=3), st.dictionaries(st.text(max_size=3), st.none(), max_size=2),
    st.sampled_from([
        NOBODY, "1980-05-17", "1980-02-30", "0000-01-01", "2042-05-14T09:30:00Z", "2042-05-14T09:30:60Z",
        "a@b.c", "admin", "male", "active", "scheduled", "x" * 201, "x" * 300, "secret1", "\u2003", "\ufeff",
    ]),
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path", "name"), SCHEMAS)
@BOUNDED
@given(data=st.data())
def test_violations_agree_with_the_schemas_of_the_contract(
    method: str, path: str, name: str, data: st.DataObject
) -> None:
    """What msgspec refuses has a violation, and what has one is refused by the schema in the contract."""
    fields = contract()["components"]["schemas"][name]["properties"]
    body = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys([*fields, "other"], VALUES)))
    faults = violations.body_faults(structs()[name], body)
    try:
        msgspec.json.decode(json.dumps(body), type=structs()[name])
    except msgspec.ValidationError:
        assert faults, body
    if any(is_in_the_patterns(fault, body) for fault in faults):
        assert not CONTRACT.validator(f"/components/schemas/{name}").is_valid(body), (body, faults)


def is_in_the_patterns(fault: Fault, body: dict[str, Any]) -> bool:
    """Whether a pattern of the contract can name the fault. It cannot name an invisible character outside the
    basic plane, nor one that Python's version of Unicode does not know; there the description holds."""
    if (fault.pointer, fault.code) != ("/email", ErrorCode.BAD_CHARACTERS):
        return True
    return all(ord(one) <= 0xFFFF and category(one) != "Cn" for one in body["email"])
