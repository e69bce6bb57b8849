"""Every look is on record (ASVS 5.0, 16.3; 45 CFR 164.312(b)): one row per act, ids and no medical text,
durable before the answer leaves, and sealed so that tampering shows."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest

from security.roles import Role
from tests.support.audit_trail import Row, named, new, newest, rows
from tests.support.client import Browser
from tests.support.factories import PASSWORD, World, chart, registration
from tests.support.service import Backend, Service


def test_reading_a_chart_leaves_a_complete_audit_event(world: World, backend: Backend, since: int) -> None:
    patient = world.chart()
    assert world.doctor.get(f"/api/patients/{patient['id']}").status_code == 200
    [row] = new(backend, since, "patient.read")
    me = world.doctor.me()
    assert str(row["user_id"]) == me["id"]
    assert row["email"] == me["email"]
    assert row["role"] == "doctor"
    assert str(row["patient_id"]) == str(row["target_id"]) == patient["id"]
    assert row["outcome"] == "success"
    assert row["address"] in {"127.0.0.1", "::1"}
    assert row["session_id"]


def test_the_request_id_header_names_the_audit_event(world: World, backend: Backend, since: int) -> None:
    answer = world.doctor.get("/api/patients")
    [row] = new(backend, since, "patient.list")
    assert answer.headers["x-request-id"] == str(row["request_id"])


def test_audit_events_contain_no_medical_text_passwords_or_tokens(
    world: World, backend: Backend, since: int
) -> None:
    """Nothing that was written into a chart, a booking or a record, no password and no token."""
    secrets = [f"secret-{number}" for number in range(8)]
    patient = world.chart(name=secrets[0], address=secrets[1], allergies=secrets[2])
    appointment = world.appointment(patientId=patient["id"], reason=secrets[3], notes=secrets[4])
    world.record(patient["id"], diagnosis=secrets[5], prescription=secrets[6], notes=secrets[7])
    world.staff.get(f"/api/patients?search={secrets[0]}")
    world.doctor.get("/api/records")
    world.doctor.get(f"/api/appointments/{appointment['id']}")
    account, _ = world.account()
    text = json.dumps(
        [{key: str(value) for key, value in row.items()} for row in rows(backend, "id > $1", since)]
    )
    for secret in [*secrets, PASSWORD, *account.cookies.values()]:
        assert secret not in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("action", "act"),
    [
        ("patient.create", lambda w: w.chart()),
        ("patient.update", lambda w: w.staff.patch(f"/api/patients/{w.chart()['id']}", {"phone": "1"})),
        ("appointment.create", lambda w: w.appointment()),
        ("appointment.list", lambda w: w.staff.get("/api/appointments")),
        ("appointment.update", lambda w: w.doctor.patch(f"/api/appointments/{w.appointment()['id']}", {})),
        ("appointment.read", lambda w: w.staff.get(f"/api/appointments/{w.appointment()['id']}")),
        ("record.create", lambda w: w.record(w.chart()["id"])),
        ("record.list", lambda w: w.doctor.get("/api/records")),
        ("record.read", lambda w: w.doctor.get(f"/api/records/{w.record(w.chart()['id'])['id']}")),
        ("patient.link", lambda w: w.linked_patient()),
        ("account.list", lambda w: w.admin.get("/api/users")),
        ("account.update", lambda w: w.patient.patch("/api/users/me", {"phone": "1"})),
        ("session.list", lambda w: w.patient.get("/api/users/me/sessions")),
        ("audit.list", lambda w: w.admin.get("/api/audit")),
        ("account.create", lambda w: w.admin.post("/api/auth/register", registration())),
    ],
)  # fmt: skip
def test_every_audited_operation_leaves_exactly_one_event(
    action: str, act: Any, world: World, backend: Backend, since: int
) -> None:
    act(world)
    assert len(new(backend, since, action)) == 1


@pytest.mark.slow
def test_sign_in_failure_lock_and_sign_out_leave_audit_events(
    backend: Backend, world: World, since: int
) -> None:
    _, me = world.account()
    with Service(backend, backend.settings(login_attempts=2)) as strict:
        browser = strict.browser()
        assert browser.login(me["email"], PASSWORD).status_code == 200
        assert browser.post("/api/auth/logout").status_code == 200
        for expected in (401, 401, 429, 429):
            assert strict.browser().login(me["email"], "not right").status_code == expected
    mine = rows(backend, "id > $1 AND user_id = $2", since, UUID(me["id"]))
    acts = [(row["action"], row["outcome"]) for row in mine if row["action"].startswith("auth.")]
    assert acts == [
        ("auth.login", "success"),  # world.account signs in
        ("auth.login", "success"),
        ("auth.logout", "success"),
        ("auth.login", "failure"),
        ("auth.login", "failure"),
        ("auth.lock", "refused"),
    ]


def test_the_email_of_an_unknown_account_is_not_kept_in_the_audit_trail(
    anonymous: Browser, backend: Backend, since: int
) -> None:
    """It may be a password in the wrong field."""
    assert anonymous.login("my-secret-password", "x").status_code == 401
    [row] = new(backend, since, "auth.login")
    assert (row["email"], row["user_id"], row["outcome"]) == (None, None, "failure")


def test_refused_requests_leave_audit_events(world: World, backend: Backend, since: int) -> None:
    patient = world.chart()
    assert world.patient.get(f"/api/patients/{patient['id']}").status_code == 404
    assert world.staff.get("/api/records").status_code == 403
    assert world.patient.post("/api/patients", chart()).status_code == 403
    refused = rows(backend, "id > $1 AND outcome = 'refused'", since)
    assert [(row["action"], row["role"]) for row in refused] == [
        ("patient.read", "patient"),
        ("record.list", "staff"),
        ("patient.create", "patient"),
    ]
    assert str(refused[0]["target_id"]) == patient["id"]


def test_a_failed_write_leaves_no_audit_event_of_success(world: World, backend: Backend, since: int) -> None:
    """Rows of writes commit with the write."""
    taken = world.appointment()
    body = {key: taken[key] for key in ("patientId", "doctorId", "date", "reason")}
    before = len(new(backend, since, "appointment.create"))
    assert world.staff.post("/api/appointments", body).status_code == 400
    assert len(new(backend, since, "appointment.create")) == before


def test_a_chart_is_not_shown_if_the_audit_event_cannot_be_stored(world: World, backend: Backend) -> None:
    """If the trail cannot be written, the chart is not shown."""
    patient = world.chart()
    backend.sql("ALTER TABLE audit_events ADD CONSTRAINT broken CHECK (false) NOT VALID")
    try:
        assert world.doctor.get(f"/api/patients/{patient['id']}").status_code == 500
        assert world.staff.post("/api/patients", chart(name="Never Stored")).status_code == 500
        # The caller is refused all the same.
        assert world.patient.get(f"/api/patients/{patient['id']}").status_code == 404
    finally:
        backend.sql("ALTER TABLE audit_events DROP CONSTRAINT broken")
    assert world.staff.get("/api/patients?search=never stored").json()["total"] == 0
    assert world.doctor.get(f"/api/patients/{patient['id']}").status_code == 200


@pytest.mark.slow
def test_concurrent_reads_lose_no_audit_event(world: World, backend: Backend, since: int) -> None:
    """Requests share commits; each has its row when it is answered."""
    patient = world.chart()

    def read(_: int) -> int:
        return world.doctor.get(f"/api/patients/{patient['id']}").status_code

    with ThreadPoolExecutor(20) as pool:
        assert set(pool.map(read, range(200))) == {200}
    assert len(new(backend, since, "patient.read")) == 200


def test_administrators_read_and_filter_the_audit_trail(world: World) -> None:
    patient = world.chart()
    begin = datetime.now(UTC)
    world.doctor.get(f"/api/patients/{patient['id']}")
    world.staff.get(f"/api/patients/{patient['id']}")
    end = datetime.now(UTC)
    doctor = world.doctor.me()["id"]

    def events(query: str) -> list[Row]:
        answer = world.admin.get(f"/api/audit?limit=100&{query}")
        assert answer.status_code == 200, answer.text
        assert answer.json()["total"] >= len(answer.json()["events"])
        return list(answer.json()["events"])

    found = events(f"patientId={patient['id']}")
    assert [event["action"] for event in found] == ["patient.read", "patient.read", "patient.create"]
    assert found[0]["at"] >= found[1]["at"] >= found[2]["at"]
    assert [e["role"] for e in events(f"patientId={patient['id']}&action=patient.read&userId={doctor}")] == [
        "doctor"
    ]
    window = f"from={quote(begin.isoformat())}&to={quote(end.isoformat())}"
    assert len(events(f"patientId={patient['id']}&{window}")) == 2
    assert events(f"patientId={patient['id']}&to={quote(begin.isoformat())}")[0]["action"] == "patient.create"


@pytest.mark.parametrize(
    "query",
    [
        "action=nothing",
        "from=yesterday",
        "from=2026-01-01T00:00:00",
        "from=null",
        "from=1767225600",
        "from=0.5",
        "from=0001-01-01T00:00:00%2B14:00",
        "userId=1",
        "patientId=1a2b3c4d5e6f4a1b8c2d5d9e4f304a05",
        "from=2026-01-01T00:00:00%2B0200",
        "from=2026-01-01%2000:00:00Z",
        "limit=101",
        "to=null",
        "to=9999-12-31T23:59:59-12:00",
    ],
)
def test_invalid_audit_filters_are_400(query: str, world: World) -> None:
    """Each is refused by the name that the contract has for it."""
    refused = world.admin.get(f"/api/audit?{query}")
    assert refused.status_code == 400
    assert refused.json()["detail"].startswith(f"{query.partition('=')[0]}: must be ")
    assert "None" not in refused.json()["detail"]


@pytest.mark.parametrize("role", [Role.DOCTOR, Role.STAFF, Role.PATIENT])
def test_only_administrators_read_the_audit_trail(role: Role, world: World) -> None:
    assert world.people[role].get("/api/audit").status_code == 403


@pytest.mark.slow
def test_patients_see_who_opened_their_chart(world: World) -> None:
    browser, patient = world.linked_patient()
    world.doctor.get(f"/api/patients/{patient['id']}")
    world.record(patient["id"])
    world.staff.get(f"/api/patients?search={patient['email']}")
    shown = browser.get(f"/api/patients/{patient['id']}/accesses").json()
    assert [(a["name"], a["role"], a["action"]) for a in shown["accesses"]] == [
        ("Sam Staff", "staff", "patient.list"),
        ("Dora Demir", "doctor", "record.create"),
        ("Dora Demir", "doctor", "patient.read"),
        ("Sam Staff", "staff", "patient.link"),
        ("Sam Staff", "staff", "patient.create"),
    ]
    assert shown["total"] == 5
    # their own access is recorded too
    assert browser.get(f"/api/patients/{patient['id']}/accesses").json()["total"] == 6
    assert world.other_patient.get(f"/api/patients/{patient['id']}/accesses").status_code == 404


def test_an_empty_list_of_records_counts_as_an_access_to_the_chart(world: World) -> None:
    """An empty list says something about the chart, and so does the total of a page past the end."""
    patient = world.chart()
    for query in ("", "&page=1000"):
        assert world.doctor.get(f"/api/records?patientId={patient['id']}{query}").json()["records"] == []
    shown = world.admin.get(f"/api/patients/{patient['id']}/accesses").json()
    assert [(access["action"], access["count"]) for access in shown["accesses"]] == [
        ("record.list", 2),
        ("patient.create", 1),
    ]


@pytest.mark.slow
def test_an_empty_list_of_a_patients_own_records_counts_as_an_access(world: World, backend: Backend) -> None:
    browser, patient = world.linked_patient()
    since = newest(backend)
    assert browser.get(f"/api/records?patientId={patient['id']}").json()["total"] == 0
    assert named(backend, since, "record.list") == ([], {patient["id"]})


@pytest.mark.slow
def test_a_patient_asking_for_records_of_a_foreign_chart_is_no_access_to_it(world: World) -> None:
    _, patient = world.linked_patient()
    total = world.admin.get(f"/api/patients/{patient['id']}/accesses").json()["total"]
    assert world.other_patient.get(f"/api/records?patientId={patient['id']}").json()["total"] == 0
    after = world.admin.get(f"/api/patients/{patient['id']}/accesses").json()["total"]
    assert after == total + 1  # the administrator's own access
