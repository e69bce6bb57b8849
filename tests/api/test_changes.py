"""`GET /api/changes`: who is told of what, each change once."""

import asyncio
import re
from uuid import uuid4

import asyncpg
import pytest

from api.contract import contract
from persistence.changes import ChangeAct, ChangeNoun
from security.roles import Role
from tests.support.audit_trail import newest
from tests.support.client import Browser
from tests.support.factories import PASSWORD, World
from tests.support.listening import CHANGES, MANY, cursor_for, told
from tests.support.service import Backend, Service

Entry = tuple[str, str, str]
EVERYBODY = ("admin", "doctor", "other_doctor", "staff", "patient", "other_patient")


def told_to(world: World, cursor: str) -> dict[Entry, set[str]]:
    """Who is told of each entry, which nobody is told twice."""
    heard: dict[Entry, set[str]] = {}
    for name in EVERYBODY:
        entries = told(world.people[name], cursor)
        assert len(entries) == len(set(entries)), (name, entries)
        for entry in entries:
            heard.setdefault(entry, set()).add(name)
    return heard


def people(*names: str) -> set[str]:
    return {name for name in EVERYBODY if name.removeprefix("other_") in names or name in names}


CLINIC = people("admin", "doctor", "staff")


def test_without_since_nothing_is_told_and_nobody_waits(world: World) -> None:
    """contract: "Without `since` there are none, and the cursor is that of now"."""
    world.chart()
    answer = world.staff.get(f"{CHANGES}?wait=25&since=")
    assert answer.json()["changes"] == []
    assert told(world.staff, answer.json()["cursor"]) == []


def test_each_is_told_what_they_may_see(world: World, own_chart_for_a_test: dict[str, str]) -> None:
    """contract: "of what the caller may see"."""
    cursor = cursor_for(world.staff)
    other = world.chart()
    visit = world.appointment(patientId=own_chart_for_a_test["id"])
    record = world.record(own_chart_for_a_test["id"])
    accounts = {role: world.account(role)[1]["id"] for role in Role}
    assert told_to(world, cursor) == {
        ("patient", other["id"], "create"): CLINIC,
        ("appointment", visit["id"], "create"): {"admin", "staff", "doctor", "patient"},
        ("record", record["id"], "create"): {"admin", "doctor", "other_doctor", "patient"},
        ("user", accounts[Role.ADMIN], "create"): {"admin"},
        ("user", accounts[Role.DOCTOR], "create"): set(EVERYBODY),
        ("user", accounts[Role.STAFF], "create"): {"admin"},
        ("user", accounts[Role.PATIENT], "create"): {"admin", "staff"},
    }


def test_the_guide_says_where_to_read_what_changed() -> None:
    """contract: "read it at its own path"."""
    [code] = re.findall(r"const paths = \{(.*)\};", contract()["info"]["description"])
    paths = dict(re.findall(r"(\w+): '(\w+)'", code))
    assert {*paths, "absence"} == set(ChangeNoun)
    assert all("get" in contract()["paths"][f"/api/{path}/{{id}}"] for path in paths.values())


def test_absences_are_told_to_the_clinic(world: World, backend: Backend) -> None:
    """contract: "absence"."""
    cursor = cursor_for(world.staff)
    absence = str(uuid4())
    backend.sql("INSERT INTO absences (id, begins, ends) VALUES ($1, '2042-05-14', '2042-05-15')", absence)
    assert told_to(world, cursor) == {(ChangeNoun.ABSENCE, absence, ChangeAct.CREATE): CLINIC}
    cursor = cursor_for(world.staff)
    backend.sql("DELETE FROM absences WHERE id = $1", absence)
    assert told_to(world, cursor) == {(ChangeNoun.ABSENCE, absence, ChangeAct.UPDATE): CLINIC}


def test_one_who_loses_what_they_saw_is_told_and_so_is_one_who_gains_it(world: World) -> None:
    """contract: "Who may not see an object any more is told of that too"."""
    browser, chart = world.linked_patient()
    visit, record = world.appointment(patientId=chart["id"]), world.record(chart["id"])
    whole = {("patient", chart["id"]), ("appointment", visit["id"]), ("record", record["id"])}
    account = f"/api/patients/{chart['id']}/account"
    for person, method, body in (
        (world.staff, "DELETE", None),
        (world.admin, "PUT", {"userId": browser.me()["id"]}),
    ):
        cursor = cursor_for(browser)
        assert person.request(method, account, json=body).status_code == 200
        assert {entry[:2] for entry in told(browser, cursor)} == whole
        assert told(world.staff, cursor) == [("patient", chart["id"], "update")]
        assert told(world.other_patient, cursor) == []


def test_both_doctors_are_told_of_an_appointment_that_passes_from_one_to_the_other(
    world: World, backend: Backend
) -> None:
    visit = world.appointment()
    cursor = cursor_for(world.doctor)
    backend.sql(
        "UPDATE appointments SET doctor_id = $1 WHERE id = $2", world.other_doctor.me()["id"], visit["id"]
    )
    heard = told_to(world, cursor)
    assert heard == {("appointment", visit["id"], "update"): people("admin", "doctor", "staff")}


def test_a_change_is_told_once_for_each_commit_that_an_answer_shows(
    world: World, own_chart_for_a_test: dict[str, str]
) -> None:
    """contract: "only if an answer shows something else since"."""
    chart = own_chart_for_a_test["id"]
    visit, record = world.appointment(patientId=chart), world.record(chart)
    _, other = world.account()
    cursor = cursor_for(world.patient)
    for answer in (
        world.staff.patch(f"/api/patients/{chart}", {"phone": "+1 555 0199", "address": "2 New Street"}),
        world.staff.patch(f"/api/patients/{chart}", {"phone": "+1 555 0199"}),  # as it is
        world.staff.patch(f"/api/appointments/{visit['id']}", {"date": world.slot()}),
        world.admin.post(f"/api/users/{other['id']}/password", {"newPassword": "another password"}),
        world.service.browser().login(other["email"], "another password"),
    ):
        assert answer.status_code == 200, answer.text
    version = {"reason": "Once more.", "notes": "The same"}
    for _ in range(2):
        amended = world.doctor.post(f"/api/records/{record['id']}/versions", version)
        assert amended.status_code == 201, amended.text
    heard = told(world.patient, cursor)
    assert heard == [
        ("patient", chart, "update"),
        ("appointment", visit["id"], "update"),
        ("record", record["id"], "update"),
        ("record", record["id"], "update"),
    ]
    cursor = cursor_for(world.patient)
    retracted = world.doctor.post(f"/api/records/{record['id']}/retraction", {"reason": "Wrong chart"})
    assert retracted.status_code == 201
    assert told(world.patient, cursor) == [("record", record["id"], "update")]


def test_a_merge_tells_of_both_charts_and_of_all_that_moves(world: World) -> None:
    browser, merged = world.linked_patient()
    survivor = world.chart()
    visit, record = world.appointment(patientId=merged["id"]), world.record(merged["id"])
    whole = {
        ("patient", merged["id"], "update"),
        ("patient", survivor["id"], "update"),
        ("appointment", visit["id"], "update"),
        ("record", record["id"], "update"),
    }
    cursor, body = cursor_for(browser), {"from": merged["id"], "reason": "Registered twice."}
    assert world.admin.post(f"/api/patients/{survivor['id']}/merge", body).status_code == 200
    assert set(told(world.admin, cursor)) == set(told(browser, cursor)) == whole
    cursor = cursor_for(browser)
    assert world.admin.post(f"/api/patients/{survivor['id']}/unmerge", body).status_code == 200
    back = whole - {("patient", merged["id"], "update")} | {("patient", merged["id"], "create")}
    assert set(told(world.admin, cursor)) == set(told(browser, cursor)) == back


@pytest.mark.parametrize(
    ("account", "change", "heard"),
    [
        ("doctor", "phone = '1'", set(EVERYBODY)),
        ("doctor", "status = 'disabled'", set(EVERYBODY)),
        ("doctor", "status = 'disabled', phone = '2'", {"admin"}),
        ("doctor", "name = 'Dora New'", {"admin"}),  # who has never seen anybody
        ("doctor", "status = 'active'", set(EVERYBODY)),
        ("doctor", "role = 'staff'", set(EVERYBODY)),
        ("doctor", "department = 'Front desk'", {"admin"}),
        ("doctor", "role = 'patient'", {"admin", "staff"}),
        ("doctor", "password_hash = '', updated_at = now()", None),
    ],
)
def test_an_account_is_told_of_to_whoever_may_see_it_before_or_after(
    world: World, backend: Backend, leaving: str, account: str, change: str, heard: set[str] | None
) -> None:
    """contract: "Doctors are told as `user` to everybody"."""
    cursor = cursor_for(world.staff)
    backend.sql(f"UPDATE users SET {change} WHERE id = $1", leaving)
    assert told_to(world, cursor) == ({("user", leaving, "update"): heard} if heard else {})


@pytest.fixture(scope="module")
def leaving(world: World) -> str:
    """A doctor who becomes all sorts of things."""
    return str(world.account(Role.DOCTOR)[1]["id"])


@pytest.mark.parametrize("table", ["appointments", "medical_records"])
def test_the_new_name_of_who_was_a_doctor_is_told_to_whoever_sees_it(
    world: World, backend: Backend, table: str
) -> None:
    _, me = world.account(Role.DOCTOR)
    made = world.appointment() if table == "appointments" else world.record(world.chart()["id"])
    backend.sql(f"UPDATE {table} SET doctor_id = $1 WHERE id = $2", me["id"], made["id"])
    backend.sql("UPDATE users SET role = 'staff' WHERE id = $1", me["id"])
    for change, heard in (("name = 'Nora New'", set(EVERYBODY)), ("phone = '3'", {"admin"})):
        cursor = cursor_for(world.staff)
        backend.sql(f"UPDATE users SET {change} WHERE id = $1", me["id"])
        assert told_to(world, cursor) == {("user", me["id"], "update"): heard}


def test_one_is_told_of_their_own_account(world: World) -> None:
    browser, me = world.account(Role.STAFF)
    cursor = cursor_for(browser)
    assert browser.patch("/api/users/me", {"phone": "+1 555 0177"}).status_code == 200
    assert told(browser, cursor) == [("user", me["id"], "update")]


def test_it_leaves_no_event_in_the_audit_trail(world: World, backend: Backend) -> None:
    """contract: "is no event of the audit trail"."""
    cursor = cursor_for(world.staff)
    world.chart()
    since = newest(backend)
    assert len(told(world.staff, cursor)) == 1
    assert newest(backend) == since


def test_a_long_transaction_holds_up_nobody_and_is_told_once_it_is_over(
    world: World, backend: Backend, second_instance: Service
) -> None:
    """contract: "in whatever order they were committed"."""

    async def run() -> None:
        slow = await asyncpg.connect(backend.database_url)
        transaction = slow.transaction()
        await transaction.start()
        first = await slow.fetchval(
            "INSERT INTO absences (id, begins, ends) "
            "VALUES (gen_random_uuid(), '2042-05-14', '2042-05-15') RETURNING id"
        )
        quick = await asyncio.to_thread(world.chart)
        answer = world.staff.get(CHANGES, params={"since": cursor}).json()
        assert [change["id"] for change in answer["changes"]] == [quick["id"]]
        await transaction.commit()
        await slow.close()
        elsewhere = second_instance.browser(world.staff.cookies)
        assert told(elsewhere, answer["cursor"]) == [("absence", str(first), "create")]

    cursor = cursor_for(world.staff)
    asyncio.run(run())


def test_what_is_too_much_for_one_answer_comes_with_the_next(world: World, backend: Backend) -> None:
    """contract: "At most 1,000; the rest comes with the next cursor"."""
    cursor, sizes, heard = cursor_for(world.staff), [], []
    made = {("absence", str(row["id"]), "create") for row in backend.sql(MANY, 1500)}
    chart = world.chart()
    for _ in range(4):
        answer = world.staff.get(CHANGES, params={"since": cursor}).json()
        cursor = answer["cursor"]
        sizes.append(len(answer["changes"]))
        heard += [tuple(change.values()) for change in answer["changes"]]
    assert sizes == [1000, 500, 1, 0]
    assert len(heard) == len(set(heard))
    assert set(heard) == made | {("patient", chart["id"], "create")}


def test_what_goes_and_comes_in_one_transaction_is_told_once(world: World, backend: Backend) -> None:
    """As whoever repairs a row by hand may do it."""
    visit = world.appointment()
    cursor = cursor_for(world.staff)
    backend.sql(
        "DO $$ DECLARE visit appointments; BEGIN "
        f"DELETE FROM appointments WHERE id = '{visit['id']}' RETURNING * INTO visit; "
        "INSERT INTO appointments SELECT visit.*; END $$"
    )
    assert told(world.staff, cursor) == [("appointment", visit["id"], "create")]


def test_what_a_later_release_tells_of_is_passed_over(
    world: World, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.changes.MAX_CHANGES", 2)
    cursor = cursor_for(world.staff)
    for _ in range(4):
        backend.sql("SELECT note_change('bed', gen_random_uuid(), 'create', 15)")
    chart = world.chart()
    assert told(world.staff, cursor) == [("patient", chart["id"], "create")]


def test_what_is_said_of_a_visit_is_told_too(world: World) -> None:
    visit = world.appointment(date=world.past_slot())
    cursor = cursor_for(world.doctor)
    said = world.staff.post(f"/api/appointments/{visit['id']}/visit", {"act": "arrived"})
    assert said.status_code == 200, said.text
    assert told(world.doctor, cursor) == [("appointment", visit["id"], "update")]


def become(browser: Browser, backend: Backend, role: Role) -> None:
    email = browser.me()["email"]
    backend.sql("UPDATE users SET role = $1 WHERE email = $2", role, email)
    assert browser.login(email, PASSWORD).status_code == 200


@pytest.mark.parametrize(("role", "noun"), [(Role.STAFF, "record"), (Role.DOCTOR, "appointment")])
def test_someone_whose_role_may_not_see_it_is_not_told_although_it_is_in_their_chart(
    world: World, backend: Backend, role: Role, noun: str
) -> None:
    """A patient's account became somebody else's, and the chart stayed linked."""
    browser, chart = world.linked_patient()
    become(browser, backend, role)
    cursor = cursor_for(browser)
    made = world.record(chart["id"]) if noun == "record" else world.appointment(patientId=chart["id"])
    assert (noun, made["id"], "create") in told(world.admin, cursor)
    assert told(browser, cursor) == told(browser, cursor, wait=1) == []


def test_who_was_a_doctor_is_not_told_of_the_appointments_they_left(world: World, backend: Backend) -> None:
    browser, me = world.account(Role.DOCTOR)
    visit = world.appointment(doctorId=me["id"])
    become(browser, backend, Role.PATIENT)
    cursor = cursor_for(browser)
    assert world.staff.patch(f"/api/appointments/{visit['id']}", {"status": "cancelled"}).status_code == 200
    assert told(world.staff, cursor) == [("appointment", visit["id"], "update")]
    assert told(browser, cursor) == told(browser, cursor, wait=1) == []
