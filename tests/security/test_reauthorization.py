"""A caller who was admitted at the head of a request is checked again after everything that may take long: a
body, a lock, a password hash, a queue (ASVS 5.0, 7.4.1 and 8.3.2)."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from api.contract import contract
from api.http.requests import OperationPolicy
from security.roles import Role
from tests.support.client import Browser
from tests.support.factories import PASSWORD, World, chart, email, registration
from tests.support.handlers import handlers
from tests.support.openapi import operations
from tests.support.service import Backend
from tests.support.sessions import disable, sign_out

pytestmark = pytest.mark.slow

Answer = tuple[int, dict[str, Any]]


@contextmanager
def begin_request(browser: Browser, method: str, path: str, body: Any) -> Iterator[Callable[[], Answer]]:
    """Send the head of a request and one byte of its body. Gives a function that sends the rest and reads the
    answer."""
    content = json.dumps(body).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Cookie: access_token={browser.cookies['access_token']}\r\nContent-Length: {len(content)}\r\n"
        "Connection: close\r\n\r\n"
    )
    port = int(browser.base_url.rpartition(":")[2])
    with socket.create_connection(("localhost", port), timeout=30) as connection:
        connection.sendall(head.encode() + content[:1])
        # Once a later request on another connection is answered, the caller of this one has been checked.
        assert browser.get("/api/users/me").status_code == 200

        def finish() -> Answer:
            connection.sendall(content[1:])
            received = b"".join(iter(lambda: connection.recv(65536), b""))
            status, _, answer = received.partition(b"\r\n\r\n")
            return int(status.split()[1]), json.loads(answer)

        yield finish


def demote(world: World, browser: Browser) -> None:
    assert world.admin.patch(f"/api/users/{browser.me()['id']}", {"role": "patient"}).status_code == 200


def set_another_password(world: World, browser: Browser) -> None:
    path = f"/api/users/{browser.me()['id']}/password"
    assert world.admin.post(path, {"newPassword": "another horse"}).status_code == 200


def end_elsewhere(world: World, browser: Browser) -> None:
    me = browser.me()
    elsewhere = world.service.browser()
    assert elsewhere.login(me["email"], PASSWORD).status_code == 200
    for session in elsewhere.get("/api/users/me/sessions").json()["sessions"]:
        if not session["current"]:
            assert elsewhere.delete(f"/api/users/me/sessions/{session['id']}").status_code == 200


def demote_in_the_database(world: World, browser: Browser) -> None:
    world.service.backend.sql("UPDATE users SET role = 'patient' WHERE email = $1", browser.me()["email"])


ENDS = [
    sign_out,
    disable,
    demote,
    set_another_password,
    end_elsewhere,
    demote_in_the_database,
]
# operation -> (role, method, path, body, what counts the rows or values that it would change)
WRITES: dict[str, tuple[Role, str, str, Any, str]] = {
    "register": (Role.ADMIN, "POST", "/api/auth/register", registration(Role.ADMIN, email="{email}"),
                 "SELECT count(*) FROM users WHERE email = '{email}' AND status = 'active'"),
    "updateUser": (Role.ADMIN, "PATCH", "/api/users/{self}", {"status": "active"},
                   "SELECT status, role FROM users WHERE id = '{self}'"),
    "setUserPassword": (Role.ADMIN, "POST", "/api/users/{other}/password", {"newPassword": "stolen horse"},
                        "SELECT password_hash FROM users WHERE id = '{other}'"),
    "updateMe": (Role.DOCTOR, "PATCH", "/api/users/me", {"name": "Evil"},
                 "SELECT count(*) FROM users WHERE id = '{self}' AND name = 'Evil'"),
    "changeMyPassword": (Role.PATIENT, "POST", "/api/users/me/password",
                         {"currentPassword": PASSWORD, "newPassword": "stolen horse"},
                         "SELECT updated_at FROM users WHERE id = '{self}'"),
    "createPatient": (Role.STAFF, "POST", "/api/patients", chart(name="Evil"),
                      "SELECT count(*) FROM patients WHERE name = 'Evil'"),
    "updatePatient": (Role.DOCTOR, "PATCH", "/api/patients/{chart}", {"allergies": "Evil"},
                      "SELECT count(*) FROM patients WHERE allergies = 'Evil'"),
    "linkPatientAccount": (Role.STAFF, "PUT", "/api/patients/{chart}/account", {"userId": "{other}"},
                           "SELECT count(*) FROM patients WHERE user_id = '{other}'"),
    "mergePatient": (Role.ADMIN, "POST", "/api/patients/{chart}/merge",
                     {"from": "{merged}", "reason": "Evil"},
                     "SELECT count(*) FROM patients WHERE id = '{merged}'"),
    "unmergePatient": (Role.ADMIN, "POST", "/api/patients/{chart}/unmerge",
                       {"from": "{parted}", "reason": "Evil"},
                       "SELECT count(*) FROM patients WHERE id = '{parted}'"),
    "createAppointment": (Role.STAFF, "POST", "/api/appointments",
                          {"patientId": "{chart}", "doctorId": "{doctor}", "date": "{slot}",
                           "reason": "Evil"},
                          "SELECT count(*) FROM appointments WHERE reason = 'Evil'"),
    "updateAppointment": (Role.STAFF, "PATCH", "/api/appointments/{appointment}", {"notes": "Evil"},
                          "SELECT count(*) FROM appointments WHERE notes = 'Evil'"),
    "updateVisit": (Role.STAFF, "POST", "/api/appointments/{appointment}/visit", {"act": "arrived"},
                    "SELECT count(*) FROM appointment_changes WHERE appointment_id = '{appointment}'"),
    "reassignAppointments": (Role.STAFF, "POST", "/api/appointments/reassign",
                             {"doctorId": "{doctor}", "from": "2000-01-01T00:00:00Z",
                              "to": "2199-01-01T00:00:00Z", "appointments": "cancel"},
                             "SELECT status FROM appointments WHERE id = '{appointment}'"),
    "createRecord": (Role.DOCTOR, "POST", "/api/records",
                     {"patientId": "{chart}", "diagnosis": "Evil", "prescription": "", "notes": ""},
                     "SELECT count(*) FROM medical_records WHERE diagnosis = 'Evil'"),
    "createRecordVersion": (Role.DOCTOR, "POST", "/api/records/{record}/versions",
                            {"reason": "Evil", "diagnosis": "Evil"},
                            "SELECT count(*) FROM medical_records WHERE diagnosis = 'Evil'"),
    "createAbsence": (Role.STAFF, "POST", "/api/absences",
                      {"from": "2199-01-01T00:00:00Z", "to": "2199-01-02T00:00:00Z", "reason": "Evil"},
                      "SELECT count(*) FROM absences WHERE reason = 'Evil'"),
    "putDoctorHours": (Role.STAFF, "PUT", "/api/doctors/{doctor}/hours",
                       {"hours": [{"weekday": 1, "from": "08:00", "to": "08:01"}]},
                       "SELECT count(*) FROM doctor_hours WHERE doctor_id = '{doctor}'"),
    "retractRecord": (Role.ADMIN, "POST", "/api/records/{record}/retraction", {"reason": "Evil"},
                      "SELECT count(*) FROM medical_records WHERE id = '{record}'"),
}  # fmt: skip


def fill_in(value: Any, names: dict[str, str]) -> Any:
    text = json.dumps(value)
    for name, given in names.items():
        text = text.replace("{" + name + "}", given)
    return json.loads(text)


def write_record(author: Browser, patient: str) -> str:
    body = {"patientId": patient, "diagnosis": "Well", "prescription": "", "notes": ""}
    return str(author.post("/api/records", body).json()["id"])


def prepare_call(world: World, operation_id: str) -> tuple[Browser, str, str, Any, str]:
    """A new account that may call the operation, and the call; `effect` counts what it would store."""
    role, method, path, body, effect = WRITES[operation_id]
    browser, me = world.account(role)
    _, other = world.account()
    chart_id, parted = world.chart()["id"], world.chart()["id"]
    merged = {"from": parted, "reason": "Registered twice"}
    assert world.admin.post(f"/api/patients/{chart_id}/merge", merged).status_code == 200
    names = {
        "self": me["id"],
        "other": other["id"],
        "chart": chart_id,
        "parted": parted,
        "doctor": world.doctor.me()["id"],
        "appointment": world.appointment(date=world.past_slot())["id"],
        "record": write_record(browser if role is Role.DOCTOR else world.doctor, world.chart()["id"]),
        "merged": world.chart()["id"],
        "slot": world.slot(),
        "email": email("evil"),
    }
    return browser, method, fill_in(path, names), fill_in(body, names), fill_in(effect, names)


def test_every_write_with_a_body_has_a_case() -> None:
    with_body = {spec["operationId"] for _, _, spec in operations(contract()) if "requestBody" in spec}
    assert with_body == {*WRITES, "login"}


@pytest.mark.parametrize("remembered", [5.0, 0.0], ids=["within what is remembered", "later"])
@pytest.mark.parametrize("operation_id", WRITES)
def test_a_write_is_not_stored_if_the_caller_was_disabled_while_its_body_came(
    operation_id: str, remembered: float, world: World, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.http.reauthorization.ALIVE_CACHE_SECONDS", remembered)
    browser, method, path, body, effect = prepare_call(world, operation_id)
    with begin_request(browser, method, path, body) as finish:
        disable(world, browser)
        before = backend.sql(effect)
        status, answer = finish()
    if operation_id == "register":  # dead cookies mean anonymous: the account waits for approval
        assert status == 201
    else:
        assert (status, answer["detail"]) == (401, "Not authenticated")
    assert backend.sql(effect) == before


@pytest.mark.parametrize("end", ENDS)
def test_every_end_of_a_session_or_role_ends_a_write_under_way(
    end: Callable[[World, Browser], None], world: World, backend: Backend
) -> None:
    browser, method, path, body, effect = prepare_call(world, "createRecord")
    with begin_request(browser, method, path, body) as finish:
        end(world, browser)
        status, _ = finish()
    assert status == 401
    assert backend.sql(effect)[0][0] == 0


@pytest.mark.parametrize(
    "body", [{"patientId": "nonsense"}, {"unknown": 1}, {"patientId": "11111111-1111-4111-8111-111111111111"}]
)
def test_after_a_long_wait_a_signed_out_caller_gets_401_and_no_details(
    body: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.http.reauthorization.ALIVE_CACHE_SECONDS", 0.0)
    browser, _ = world.account(Role.DOCTOR)
    record = {"diagnosis": "Well", "prescription": "", "notes": "", **body}
    with begin_request(browser, "POST", "/api/records", record) as finish:
        sign_out(world, browser)
        assert finish() == (401, {"detail": "Not authenticated"})


def test_after_a_long_wait_guards_use_the_current_role(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.http.reauthorization.ALIVE_CACHE_SECONDS", 0.0)
    browser, _ = world.account(Role.DOCTOR)
    body = {"patientId": world.chart()["id"], "diagnosis": "Well", "prescription": "", "notes": ""}
    with begin_request(browser, "POST", "/api/records", body) as finish:
        demote_in_the_database(world, browser)
        status, _ = finish()
    assert status == 403


def test_a_slow_body_of_a_signed_in_caller_is_accepted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.http.reauthorization.ALIVE_CACHE_SECONDS", 0.0)
    browser, _ = world.account()
    with begin_request(browser, "PATCH", "/api/users/me", {"name": "Patient Person"}) as finish:
        status, answer = finish()
    assert (status, answer["name"]) == (200, "Patient Person")


def test_only_refresh_manages_the_session_itself(world: World) -> None:
    own = {
        handler.operation_id
        for handler in handlers(world.service.app).values()
        if OperationPolicy.of(handler).manages_session
    }
    assert own == {"refresh"}
