"""Whatever clerks write at the same time: every text that was acknowledged is still there, who wrote what is
known, and the history of each object leads from its creation to what it says today."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest

from api.commands.maintenance import verify_seals
from persistence.audit_chain import Key
from security.roles import Role
from tests.support.accounts import make_account
from tests.support.clerks import FEW, Clerk, Office
from tests.support.client import Browser
from tests.support.factories import World
from tests.support.replay import Step, replay, steps
from tests.support.service import KEY, Backend

pytestmark = pytest.mark.slow

CLERKS, TIMES = 4, 60
# What an appointment shows of others, whose own history that is.
OF_OTHERS = ("patientId", "patientName", "doctorName")
# What a chart's history tells of besides.
BESIDES: dict[str, Any] = {"account": None, "merge": frozenset()}
TABLES = ("patients", "appointments", "medical_records")
TEXTS = ("reason", "diagnosis", "prescription", "notes", "attachments")


def ids_in(backend: Backend, table: str) -> set[str]:
    return {str(row["id"]) for row in backend.sql(f"SELECT id FROM {table}")}


@pytest.fixture(scope="module", params=[1, 2, 3], ids="seed {}".format)
def office(request: pytest.FixtureRequest, world: World, backend: Backend) -> Office:
    """After the clerks have gone home."""
    office = Office(world, accounts=[make_account(world, Role.PATIENT)["id"] for _ in range(FEW)])
    office.before = {table: ids_in(backend, table) for table in TABLES}
    first = Clerk(office, request.param)
    for act, made in (
        (first.open_chart, office.charts.created),
        (first.book, office.appointments.created),
        (first.write_record, office.records.written),
    ):
        while len(made) < FEW:
            act()
    clerks = [Clerk(office, request.param * 1000 + number) for number in range(CLERKS)]
    with ThreadPoolExecutor(CLERKS) as pool:
        list(pool.map(lambda clerk: clerk.work(TIMES), clerks))
    for _ in range(1000):  # in any order, and one that is merged onward is parted later
        first.part()
    assert not office.merged
    print(sorted(office.statuses.items()))
    return office


def without(state: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name not in names}


def test_the_history_of_each_chart_leads_to_what_it_says_today(office: Office, backend: Backend) -> None:
    """And passes through every answer that was given."""
    history = steps(backend, "patients")
    for chart_id, created in office.charts.created.items():
        states = replay({**created, **BESIDES}, history[chart_id])
        account = office.world.admin.get(f"/api/patients/{chart_id}/account")
        linked = account.json()["id"] if account.status_code == 200 else None
        now = office.world.admin.get(f"/api/patients/{chart_id}").json()
        assert states[-1][1] == {**now, "account": linked, "merge": frozenset()}
        by_request = dict(states)
        for request_id, said in office.charts.after[chart_id].items():
            passed = [by_request[request_id]] if request_id in by_request else by_request.values()
            assert said in [without(state, *BESIDES) for state in passed]
        for request_id, user_id in office.links[chart_id].items():
            assert by_request.get(request_id, {"account": user_id})["account"] == user_id
        acknowledged = {*office.charts.after[chart_id], *office.links[chart_id], *office.merges[chart_id]}
        assert by_request.keys() - {""} <= acknowledged


def test_the_history_of_each_appointment_leads_to_what_it_says_today(
    office: Office, backend: Backend
) -> None:
    history = steps(backend, "appointments")
    for appointment_id, created in office.appointments.created.items():
        states = replay(created, history[appointment_id])
        now = office.world.admin.get(f"/api/appointments/{appointment_id}").json()
        assert without(states[-1][1], *OF_OTHERS) == without(now, *OF_OTHERS)
        by_request = dict(states)
        for request_id, said in office.appointments.after[appointment_id].items():
            passed = [by_request[request_id]] if request_id in by_request else by_request.values()
            assert without(said, *OF_OTHERS) in [without(state, *OF_OTHERS) for state in passed]
        assert by_request.keys() - {""} <= office.appointments.after[appointment_id].keys()


def changes_shown(browser: Browser, path: str) -> list[dict[str, Any]]:
    """Every page of a history."""
    shown: list[dict[str, Any]] = []
    for page in count(1):
        answer = browser.get(f"{path}/history?limit=100&page={page}").json()
        shown += answer["changes"]
        if not answer["changes"]:
            assert answer["total"] == len(shown)
            break
    return shown


def test_what_is_shown_of_a_history_is_what_leads_there(office: Office, backend: Backend) -> None:
    """Newest first; to staff, nothing of what doctors have taken back."""
    for kind, told in (("patients", office.charts), ("appointments", office.appointments)):
        history = steps(backend, kind)
        for object_id in told.created:
            path = f"/api/{kind}/{object_id}"
            whole = [tuple(step)[1:] for step in reversed(history[object_id])]
            shown = changes_shown(office.world.admin, path)
            assert [(one["field"], one["from"], one["to"]) for one in shown] == whole
            to_staff = changes_shown(office.world.staff, path)
            assert to_staff == [one for one in shown if one["field"] != "medicalHistory"]


def test_a_history_that_lacks_a_step_leads_elsewhere(office: Office, backend: Backend) -> None:
    """So the tests above would see it."""
    history = steps(backend, "patients")
    for chart_id, created in office.charts.created.items():
        begun, whole = {**created, **BESIDES}, history[chart_id]
        for missing in range(len(whole)):
            with pytest.raises(AssertionError):
                require_end(begun, [*whole[:missing], *whole[missing + 1 :]], replay(begun, whole)[-1][1])


def require_end(begun: dict[str, Any], history: list[Step], end: dict[str, Any]) -> None:
    assert replay(begun, history)[-1][1] == end


def test_every_text_of_a_record_is_still_there(office: Office) -> None:
    """Byte for byte, newest first, and under the record the newest of them; nothing else is."""
    for record_id, written in office.records.written.items():
        answer = office.world.admin.get(f"/api/records/{record_id}/versions?limit=100").json()
        versions = [{name: one[name] for name in TEXTS} for one in answer["versions"]]
        assert answer["total"] == len(versions) == len(written)
        assert [one["reason"] for one in versions][-1] is None
        for one in written:
            assert {name: one[name] for name in TEXTS} in versions
        read = office.world.admin.get(f"/api/records/{record_id}")
        reason = office.records.retracted.get(record_id)
        assert (answer["retraction"] or {"reason": None})["reason"] == reason
        if reason is not None:
            assert read.status_code == 404
        else:
            assert {**read.json(), "reason": versions[0]["reason"]}.items() >= versions[0].items()


def test_nothing_is_there_that_nobody_was_told_of(office: Office, backend: Backend) -> None:
    """What was sent twice with a key was done once."""
    records = office.records.written.keys() - office.records.retracted.keys()
    told = dict(zip(TABLES, (office.charts.created, office.appointments.created, records), strict=True))
    for table in TABLES:
        assert ids_in(backend, table) - office.before[table] == set(told[table])


def test_each_change_is_that_of_the_person_in_the_trail(office: Office, backend: Backend) -> None:
    for table in ("patient_changes", "appointment_changes"):
        strange = backend.sql(
            f"SELECT c.* FROM {table} AS c LEFT JOIN audit_events AS e ON e.request_id = c.request_id "
            "WHERE (c.user_id, c.role, c.at, 'success') IS DISTINCT FROM (e.user_id, e.role, e.at, e.outcome)"
        )
        assert not strange, strange


def test_the_seals_vouch_for_all_of_it(office: Office, backend: Backend) -> None:
    report = asyncio.run(verify_seals(backend.database_url, [Key.of(KEY)], None))
    assert (report.damage, report.not_given) == ([], [])
    assert report.vouched_rows > 0
