"""What the audit event of a list, a search or a filter names."""

from uuid import uuid4

import pytest

from security.roles import Role
from tests.support.audit_trail import named, new, newest, rows
from tests.support.client import Browser
from tests.support.factories import World
from tests.support.service import Backend


def test_the_audit_event_of_a_search_holds_ids_and_not_the_term(
    world: World, backend: Backend, since: int
) -> None:
    patient = world.chart(name="Zebulon Quatermass")
    assert world.staff.get("/api/patients?search=quatermass").json()["total"] == 1
    [row] = new(backend, since, "patient.list")
    assert [str(target) for target in row["target_ids"]] == [patient["id"]]
    assert "quatermass" not in str(row).lower()


@pytest.mark.parametrize("page", [1, 2, 3, 2147483647])
def test_the_audit_event_of_a_search_names_every_chart_that_matched(
    page: int, world: World, backend: Backend
) -> None:
    """Those shown first, then further matches in the list's order: a total, or a page past the end, tells of
    charts that the page does not show."""
    term = f"oracle{uuid4().hex[:8]}"
    charts = [world.chart(name=f"{letter} {term}")["id"] for letter in "CABED"]
    in_order = [charts[number] for number in (1, 2, 0, 4, 3)]
    since = newest(backend)
    answer = world.staff.get(f"/api/patients?search={term}&limit=2&page={page}").json()
    assert answer["total"] == 5
    shown = [patient["id"] for patient in answer["patients"]]
    assert shown == in_order[2 * page - 2 : 2 * page]
    targets, named_charts = named(backend, since, "patient.list")
    assert targets == shown + [id for id in in_order if id not in shown]
    assert named_charts == set(charts)


def test_the_audit_event_of_a_search_by_phone_or_email_names_the_charts(
    world: World, backend: Backend
) -> None:
    """Totals alone let somebody guess a number digit by digit."""
    patient = world.chart(phone="+44 7700 900461")
    for term in ("900461", patient["email"][:12]):
        since = newest(backend)
        query = {"search": term, "page": "1000", "limit": "1"}
        assert world.doctor.get("/api/patients", params=query).json()["patients"] == []
        assert patient["id"] in named(backend, since, "patient.list")[0]
    shown = world.admin.get(f"/api/patients/{patient['id']}/accesses").json()["accesses"]
    assert ("Dora Demir", "patient.list") in [(access["name"], access["action"]) for access in shown]


def test_an_audit_event_names_a_hundred_targets_at_most(world: World, backend: Backend) -> None:
    term = f"many{uuid4().hex[:8]}"
    world.chart(name=f"Template {term}")
    backend.sql(
        "INSERT INTO patients "
        "(id, name, email, phone, date_of_birth, gender, address, sort_name, search_text) "
        "SELECT gen_random_uuid(), 'Z', email, phone, date_of_birth, gender, address, "
        "'z' || lpad(n::text, 3, '0'), search_text FROM patients, generate_series(1, 119) AS n "
        "WHERE name = $1",
        f"Template {term}",
    )
    in_order = [
        str(row["id"])
        for row in backend.sql(
            "SELECT id FROM patients WHERE search_text LIKE $1 ORDER BY sort_name, id", f"%{term}%"
        )
    ]
    for page, limit, expected in (
        (1, 100, in_order[:100]),
        (2, 100, in_order[100:] + in_order[:80]),
        (12, 10, in_order[110:] + in_order[:90]),
        (9999, 10, in_order[:100]),
    ):
        since = newest(backend)
        query = f"search={term}&page={page}&limit={limit}"
        assert world.staff.get(f"/api/patients?{query}").json()["total"] == 120
        targets, charts = named(backend, since, "patient.list")
        assert targets == expected
        assert charts == set(expected)


@pytest.mark.slow
def test_the_audit_event_of_an_unfiltered_list_names_what_the_page_shows(
    world: World, backend: Backend
) -> None:
    world.record(world.appointment()["patientId"])
    world.linked_patient()
    for path, noun, browser in (
        ("/api/patients", "patients", world.staff),
        ("/api/patients?search=", "patients", world.staff),
        ("/api/appointments", "appointments", world.staff),
        ("/api/records", "records", world.doctor),
        ("/api/users", "users", world.admin),
        ("/api/users", "users", world.staff),
    ):
        for paging in ("limit=1", "page=100000"):
            since = newest(backend)
            answer = browser.get(f"{path}{'&' if '?' in path else '?'}{paging}").json()
            assert answer["total"] > 0
            shown = answer[noun]
            [row] = rows(backend, "id > $1 AND action LIKE '%.list'", since)
            assert [str(id) for id in row["target_ids"]] == [item["id"] for item in shown]
            assert len(row["patient_ids"]) == (0 if noun == "users" else len(shown))


@pytest.mark.slow
@pytest.mark.parametrize("query", ["date=2099-07-01", "status=cancelled", "date=2099-07-01&status=cancelled"])
def test_the_audit_event_of_filtered_appointments_names_what_matched(
    query: str, world: World, backend: Backend
) -> None:
    """And no more than the caller may see."""
    doctor, me = world.account(Role.DOCTOR)
    made = [
        world.appointment(doctorId=me["id"], date=f"2099-07-01T{8 + hour:02}:00:00Z") for hour in range(3)
    ]
    world.appointment(doctorId=world.other_doctor.me()["id"])
    for appointment in made:
        cancelled = world.staff.patch(f"/api/appointments/{appointment['id']}", {"status": "cancelled"})
        assert cancelled.status_code == 200
    for page in (1, 2, 500):
        since = newest(backend)
        answer = doctor.get(f"/api/appointments?{query}&limit=1&page={page}").json()
        assert answer["total"] == 3
        shown = [appointment["id"] for appointment in answer["appointments"]]
        targets, charts = named(backend, since, "appointment.list")
        assert targets == shown + [a["id"] for a in made if a["id"] not in shown]
        assert charts == {appointment["patientId"] for appointment in made}


@pytest.mark.parametrize("page", [1, 2, 500])
def test_the_audit_event_of_filtered_records_names_what_matched(
    page: int, world: World, backend: Backend
) -> None:
    patient = world.chart()["id"]
    made = [world.record(patient)["id"] for _ in range(3)][::-1]
    since = newest(backend)
    answer = world.admin.get(f"/api/records?patientId={patient}&limit=1&page={page}").json()
    assert answer["total"] == 3
    shown = [record["id"] for record in answer["records"]]
    assert named(backend, since, "record.list") == (
        shown + [id for id in made if id not in shown],
        {patient},
    )


@pytest.mark.slow
def test_the_audit_event_of_filtered_accounts_names_what_matched(world: World, backend: Backend) -> None:
    """Only the accounts: nothing of the charts that are linked to them was shown."""
    term = f"account{uuid4().hex[:8]}"
    _, first = world.account(name=f"A {term}")
    second, third = (world.account(role, name=f"B {term}")[1] for role in (Role.PATIENT, Role.DOCTOR))
    wanted: list[tuple[Browser, str, list[str]]] = [
        (world.admin, "", [first["id"], *sorted([second["id"], third["id"]])]),
        (world.staff, "", [first["id"], second["id"]]),
        (world.staff, "&role=patient", [first["id"], second["id"]]),
        (world.staff, "&role=doctor", []),
        (world.admin, "&role=doctor", [third["id"]]),
        (world.admin, "&status=active&linked=false&role=patient", [first["id"], second["id"]]),
    ]
    for browser, query, matches in wanted:
        for page in (1, 2, 500):
            since = newest(backend)
            answer = browser.get(f"/api/users?search={term}{query}&limit=1&page={page}").json()
            assert answer["total"] == len(matches)
            shown = [user["id"] for user in answer["users"]]
            targets, charts = named(backend, since, "account.list")
            assert targets == shown + [id for id in matches if id not in shown]
            assert charts == set()


@pytest.mark.slow
@pytest.mark.parametrize("query", ["role=staff", "status=active", "linked=true", "linked=false"])
def test_the_audit_event_of_each_account_filter_names_what_matched(
    query: str, world: World, backend: Backend
) -> None:
    world.linked_patient()
    everyone = [user["id"] for user in world.admin.get(f"/api/users?{query}&limit=100").json()["users"]]
    since = newest(backend)
    assert world.admin.get(f"/api/users?{query}&page=9999").json()["users"] == []
    assert named(backend, since, "account.list")[0] == everyone


def test_listing_audit_events_of_a_chart_names_the_chart(world: World, backend: Backend) -> None:
    patient = world.chart()["id"]
    since = newest(backend)
    assert world.admin.get(f"/api/audit?patientId={patient}&page=9999").json()["total"] == 1
    [row] = new(backend, since, "audit.list")
    assert (str(row["patient_id"]), [str(id) for id in row["patient_ids"]]) == (patient, [patient])
    shown = world.admin.get(f"/api/patients/{patient}/accesses").json()["accesses"]
    assert [access["action"] for access in shown] == ["audit.list", "patient.create"]
