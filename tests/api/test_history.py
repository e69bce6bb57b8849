"""What charts and appointments said before, and who reads it."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from security.roles import Role
from tests.support import audit_trail
from tests.support.client import HTTP_CLIENT, Browser
from tests.support.factories import World
from tests.support.service import Backend

Change = dict[str, Any]


def history(browser: Browser, path: str, **query: Any) -> tuple[list[Change], int]:
    answer = browser.get(f"{path}/history", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["changes"], answer.json()["total"]


def fields(changes: list[Change]) -> list[tuple[str, str | None, str | None]]:
    return [(change["field"], change["from"], change["to"]) for change in changes]


def chart_path(chart: Change) -> str:
    return f"/api/patients/{chart['id']}"


def patch(browser: Browser, path: str, **changes: Any) -> Change:
    answer = browser.patch(path, changes)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_the_overwritten_text_and_its_author_stay(world: World) -> None:
    """contract: "what stood there, what stands there since, who changed it and when"."""
    path = chart_path(world.chart(allergies="Latex"))
    before = patch(world.doctor, path, allergies="PENICILLIN: anaphylaxis")
    patch(world.staff, path, allergies="Latex", phone="1")
    changes, total = history(world.doctor, path)
    assert total == 3
    assert fields(changes) == [
        ("allergies", "PENICILLIN: anaphylaxis", "Latex"),
        ("phone", before["phone"], "1"),
        ("allergies", "Latex", "PENICILLIN: anaphylaxis"),
    ]
    doctor, staff = world.doctor.me(), world.staff.me()
    people = [(change["userId"], change["name"], change["role"]) for change in changes]
    assert people == [(staff["id"], staff["name"], "staff")] * 2 + [(doctor["id"], doctor["name"], "doctor")]
    assert changes[0]["at"] == changes[1]["at"] >= changes[2]["at"]


def test_values_are_as_the_answers_showed_them(world: World) -> None:
    """contract: "What answers showed before"."""
    chart = world.chart(bloodType=None)
    path = chart_path(chart)
    sent = {"dateOfBirth": "1999-12-31", "gender": "male", "bloodType": "A+", "email": " new@example.com "}
    changed = patch(world.admin, path, **sent)
    changes, _ = history(world.admin, path)
    assert sorted(fields(changes), key=str) == sorted(
        ((name, chart[name], changed[name]) for name in sent), key=str
    )
    patch(world.admin, path, bloodType=None)
    assert fields(history(world.admin, path)[0])[0] == ("bloodType", "A+", None)


def test_creation_and_what_changes_nothing_leave_no_entry(world: World) -> None:
    """contract: "as it was created; that itself is no change"."""
    chart = world.chart()
    path = chart_path(chart)
    patch(world.staff, path)
    patch(world.staff, path, name=chart["name"], email=f" {chart['email']} ", allergies=None)
    assert world.doctor.patch(path, {"phone": "1"}).status_code == 403
    assert world.staff.patch(path, {"phone": "1"}, headers={"if-match": '"other"'}).status_code == 412
    assert history(world.staff, path) == ([], 0)
    visit = world.appointment(patientId=chart["id"])
    patch(world.staff, f"/api/appointments/{visit['id']}", notes=visit["notes"], status="scheduled")
    assert history(world.staff, f"/api/appointments/{visit['id']}") == ([], 0)


def test_the_linked_account_is_in_the_history(world: World) -> None:
    """contract: "`account` is the account that is linked to the chart, by its id"."""
    patient, _ = world.account(Role.PATIENT)
    account = patient.me()["id"]
    path = chart_path(world.chart())
    assert world.admin.delete(f"{path}/account").status_code == 200  # of none
    for _ in range(2):  # the same pair again changes nothing
        assert world.admin.put(f"{path}/account", {"userId": account}).status_code == 200
    assert fields(history(patient, path)[0]) == [("account", None, account)]
    assert world.staff.delete(f"{path}/account").status_code == 200
    changes, total = history(world.staff, path)
    assert (fields(changes)[0], total) == (("account", account, None), 2)
    assert [change["role"] for change in changes] == ["staff", "admin"]


def test_staff_see_nothing_of_the_medical_history_of_before(world: World) -> None:
    """contract: "To staff, changes of `medicalHistory` are neither shown nor counted"."""
    path = chart_path(world.chart())
    for text in ("Schizophrenia", "Written into the wrong chart"):
        patch(world.doctor, path, medicalHistory=text)
    patch(world.staff, path, phone="2")
    changes, total = history(world.staff, path)
    assert ([change["field"] for change in changes], total) == (["phone"], 1)
    assert history(world.staff, path, page=2) == ([], 1)
    for browser in (world.doctor, world.admin):
        changes, total = history(browser, path)
        assert total == 3
        assert fields(changes)[1] == ("medicalHistory", "Schizophrenia", "Written into the wrong chart")


def test_patients_read_the_history_of_their_own_chart(world: World) -> None:
    patient, chart = world.linked_patient()
    patch(world.doctor, chart_path(chart), medicalHistory="Asthma")
    changes, _ = history(patient, chart_path(chart))
    assert fields(changes)[0] == ("medicalHistory", None, "Asthma")
    assert patient.get(f"{chart_path(world.chart())}/history").status_code == 404
    assert world.other_patient.get(f"{chart_path(chart)}/history").status_code == 404


def test_an_appointment_says_who_moved_and_cancelled_it(world: World) -> None:
    """contract: "who moved or cancelled it, and when"."""
    patient, chart = world.linked_patient()
    visit = world.appointment(patientId=chart["id"])
    path = f"/api/appointments/{visit['id']}"
    moved = patch(patient, path, date=world.slot())
    patch(world.doctor, path, notes="Fasting.")
    patch(world.staff, path, status="cancelled")
    for browser in (patient, world.doctor, world.staff, world.admin):
        changes, total = history(browser, path)
        assert total == 3
        assert fields(changes) == [
            ("status", "scheduled", "cancelled"),
            ("notes", None, "Fasting."),
            ("date", visit["date"], moved["date"]),
        ]
        assert [change["role"] for change in changes] == ["staff", "doctor", "patient"]
    assert world.other_doctor.get(f"{path}/history").status_code == 404
    assert world.other_patient.get(f"{path}/history").status_code == 404


def test_names_and_roles_are_those_of_then(world: World) -> None:
    """contract: "The name of the account at that time"."""
    clerk, body = world.account(Role.STAFF)
    path = chart_path(world.chart())
    patch(clerk, path, phone="3")
    patch(clerk, "/api/users/me", name="Robin Married")
    patch(clerk, path, phone="4")
    changes, _ = history(world.admin, path)
    assert [change["name"] for change in changes] == ["Robin Married", body["name"]]
    patch(world.admin, f"/api/users/{changes[0]['userId']}", role="admin")
    assert {change["role"] for change in history(world.admin, path)[0]} == {"staff"}


def test_the_history_is_paged_newest_first(world: World) -> None:
    path = chart_path(world.chart(phone="0"))
    for number in range(1, 13):
        patch(world.staff, path, phone=str(number))
    first, total = history(world.staff, path)
    assert ([change["to"] for change in first], total) == ([str(n) for n in range(12, 2, -1)], 12)
    rest, total = history(world.staff, path, page=2)
    assert ([change["to"] for change in rest], total) == (["2", "1"], 12)
    assert history(world.staff, path, page=3) == ([], 12)
    assert history(world.staff, path, limit=100)[0] == first + rest
    assert world.staff.get(f"{path}/history?limit=101").status_code == 400


def test_reading_a_history_is_in_the_trail(world: World, backend: Backend) -> None:
    chart = world.chart()
    visit = world.appointment(patientId=chart["id"])
    since = audit_trail.newest(backend)
    history(world.doctor, chart_path(chart))
    history(world.doctor, f"/api/appointments/{visit['id']}")
    for action, target in (("patient.history", chart["id"]), ("appointment.history", visit["id"])):
        [row] = audit_trail.new(backend, since, action)
        assert (str(row["target_id"]), str(row["patient_id"])) == (target, chart["id"])


def test_a_change_of_a_later_release_is_shown(world: World, backend: Backend) -> None:
    """The enumeration may grow, and the release before must bear it."""
    chart = world.chart()
    backend.sql(
        "INSERT INTO patient_changes (patient_id, at, role, request_id, field, before, after) "
        "VALUES ($1::text::uuid, now(), 'nurse', gen_random_uuid(), 'dreams', NULL, 'x')",
        chart["id"],
    )
    cookie = f"access_token={world.admin.cookies['access_token']}"
    answer = HTTP_CLIENT.get(f"{world.admin.base_url}{chart_path(chart)}/history", headers={"cookie": cookie})
    assert [change["field"] for change in answer.json()["changes"]] == ["dreams"]


def test_changes_at_once_make_one_history(world: World) -> None:
    """Taken back one after the other, they lead to the chart as it was created."""
    created = world.chart(phone="0", address="0")
    path = chart_path(created)

    def write(number: int) -> None:
        patch(world.staff if number % 2 else world.admin, path, phone=str(number), address=str(number % 3))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(1, 25)))
    chart = world.admin.get(path).json()
    changes, total = history(world.admin, path, limit=100)
    assert len(changes) == total
    for change in changes:
        assert chart[change["field"]] == change["to"]
        chart[change["field"]] = change["from"]
    assert chart == created
