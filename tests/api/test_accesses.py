"""Who looked at a chart, as a person reads it: what somebody did in one operation within ten minutes is one
row (contract, `GET /api/patients/{id}/accesses`)."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from security.roles import Role
from tests.support.client import Browser
from tests.support.factories import World
from tests.support.service import Backend

pytestmark = pytest.mark.slow

BEGIN = datetime(2026, 3, 29, 0, 55, tzinfo=UTC)  # clocks change in Europe five minutes later
ADD = (
    "INSERT INTO audit_events "
    "(at, user_id, role, action, outcome, target_ids, patient_ids, address, request_id) "
    "VALUES ($1, $2, $3, $4, $5, '{}', ARRAY[$6::uuid], 'x', gen_random_uuid())"
)
Row = dict[str, Any]


class Chart:
    """A chart on whose trail there is just what a test puts there."""

    def __init__(self, backend: Backend, world: World) -> None:
        self.backend, self.world = backend, world
        self.patient, chart = world.linked_patient()
        self.id = chart["id"]
        backend.sql("DELETE FROM audit_events WHERE $1::uuid = ANY(patient_ids)", UUID(self.id))

    def look(
        self,
        minutes: float,
        by: Browser | None = None,
        action: str = "patient.list",
        role: str = "staff",
        outcome: str = "success",
    ) -> None:
        user = UUID((by or self.world.staff).me()["id"])
        at = BEGIN + timedelta(minutes=minutes)
        self.backend.sql(ADD, at, user, role, action, outcome, UUID(self.id))

    def accesses(self, query: str = "", by: Browser | None = None) -> tuple[list[Row], int]:
        """What is answered, without what reading it adds."""
        answer = (by or self.world.admin).get(f"/api/patients/{self.id}/accesses?{query}")
        assert answer.status_code == 200, answer.text
        self.backend.sql("DELETE FROM audit_events WHERE action = 'patient.accesses'")
        return list(answer.json()["accesses"]), int(answer.json()["total"])

    def rows(self, query: str = "limit=100", by: Browser | None = None) -> list[tuple[float, float, int]]:
        """(minutes of the first time, of the last, count) of each row."""
        shown, total = self.accesses(query, by)
        assert total == len(shown)
        return [(minutes(row["firstAt"]), minutes(row["at"]), row["count"]) for row in shown]


def minutes(instant: str) -> float:
    return round((datetime.fromisoformat(instant) - BEGIN).total_seconds() / 60, 3)


@pytest.fixture
def chart(backend: Backend, world: World) -> Chart:
    return Chart(backend, world)


def test_searches_while_typing_make_one_access_row(world: World) -> None:
    """Through the API: ten letters typed make ten searches that find the chart, and one row."""
    name = "Quirinal Q"
    patient = world.chart(name=name)
    for length in range(1, len(name) + 1):
        assert world.staff.get("/api/patients", params={"search": name[:length], "limit": 1}).json()["total"]
    shown = world.admin.get(f"/api/patients/{patient['id']}/accesses").json()
    assert shown["total"] == 2
    [searched, created] = shown["accesses"]
    me = world.staff.me()
    assert list(searched) == ["at", "firstAt", "count", "userId", "name", "role", "action"]
    assert {key: searched[key] for key in ("userId", "name", "role", "action", "count")} == {
        "userId": me["id"],
        "name": me["name"],
        "role": "staff",
        "action": "patient.list",
        "count": 10,
    }
    assert searched["firstAt"] < searched["at"]
    assert (created["action"], created["count"]) == ("patient.create", 1)
    assert created["firstAt"] == created["at"]


def test_an_access_row_spans_ten_minutes_from_its_first_event(chart: Chart) -> None:
    """Ten minutes and no more, however close the events are to each other, at any time of the hour."""
    for minute in (0, 4, 9.5, 10, 10.001, 14, 20, 20.002, 31):
        chart.look(minute)
    assert chart.rows() == [(31, 31, 1), (20.002, 20.002, 1), (10.001, 20, 3), (0, 10, 4)]


def test_two_accesses_a_minute_apart_are_one_row_at_any_hour(chart: Chart) -> None:
    for hour in range(24):
        chart.look(60 * hour + 2.5 * hour)
        chart.look(60 * hour + 2.5 * hour + 1)
    assert [count for _, _, count in chart.rows()] == [2] * 24


def test_another_person_operation_or_role_makes_another_access_row(chart: Chart, world: World) -> None:
    for minute in range(3):
        chart.look(minute)
        chart.look(minute, action="patient.read")
        chart.look(minute, by=world.doctor)
        chart.look(minute, role="admin")  # the same person has another role now
    assert chart.rows() == [(0, 2, 3)] * 4
    shown, _ = chart.accesses()
    assert len({(row["userId"], row["role"], row["action"]) for row in shown}) == 4


def test_refused_and_failed_requests_are_no_accesses(chart: Chart) -> None:
    chart.look(0, outcome="refused")
    chart.look(1)
    chart.look(2, outcome="failure")
    assert chart.rows() == [(1, 1, 1)]


def test_others_filter_leaves_out_the_callers_own_accesses(chart: Chart, world: World) -> None:
    """For the patient and for an administrator, from the rows and from the total."""
    for browser, role in ((chart.patient, "patient"), (world.admin, "admin"), (world.staff, "staff")):
        chart.look(0, by=browser, role=role)
        chart.look(1, by=browser, role=role)
    everyone = {"patient", "admin", "staff"}
    for browser, own in ((chart.patient, "patient"), (world.admin, "admin")):
        for query, expected in (
            ("others=true", everyone - {own}),
            ("others=false", everyone),
            ("others=", everyone),
            ("", everyone),
        ):
            shown, total = chart.accesses(query, by=browser)
            assert {row["role"] for row in shown} == expected
            assert total == len(expected)
    for malformed in ("1", "yes", "TRUE"):
        assert world.admin.get(f"/api/patients/{chart.id}/accesses?others={malformed}").status_code == 400


def test_access_pages_count_rows_and_do_not_cut_them(chart: Chart, world: World) -> None:
    """Newest first by the last time; each row on one page, the total true past the end."""
    people = [(world.staff, "staff"), (world.doctor, "doctor")]
    for number in range(60):
        by, role = people[number % 2]
        action = ["patient.list", "patient.read", "patient.update"][number % 3]
        chart.look(number * 37 % 91, by=by, role=role, action=action)
    whole, total = chart.accesses("limit=100")
    assert len(whole) == total < 60
    assert sum(row["count"] for row in whole) == 60
    assert [row["at"] for row in whole] == sorted((row["at"] for row in whole), reverse=True)
    for limit in (1, 7):
        pages = [chart.accesses(f"limit={limit}&page={page + 1}") for page in range(total // limit + 1)]
        assert [row for shown, _ in pages for row in shown] == whole
        assert {count for _, count in pages} == {total}
    assert chart.accesses("page=2147483647") == ([], total)


@pytest.mark.parametrize("role", [Role.DOCTOR, Role.STAFF])
def test_only_administrators_and_the_patient_list_accesses(role: Role, chart: Chart, world: World) -> None:
    path = f"/api/patients/{chart.id}/accesses?others=true"
    assert world.people[role].get(path).status_code == 403
    assert world.other_patient.get(path).status_code == 404
