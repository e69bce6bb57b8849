"""Who saw a record (contract, `GET /api/records/{id}/accesses`)."""

from typing import Any

import pytest

from tests.support.client import Browser
from tests.support.factories import World

pytestmark = pytest.mark.slow

KEYS = ["at", "firstAt", "count", "userId", "name", "role", "action"]


def accesses(browser: Browser, record: str, query: str = "limit=100") -> list[dict[str, Any]]:
    """Without what reading them adds."""
    answer = browser.get(f"/api/records/{record}/accesses?{query}")
    assert answer.status_code == 200, answer.text
    assert list(answer.json()) == ["accesses", "total"]
    return [row for row in answer.json()["accesses"] if row["action"] != "record.accesses"]


def told(rows: list[dict[str, Any]]) -> set[tuple[str, str, int]]:
    return {(row["role"], row["action"], row["count"]) for row in rows}


def test_everything_that_showed_or_changed_a_record_is_among_its_accesses(world: World) -> None:
    """contract: "Every answer that showed the record or its versions, alone or in a list, or found it by a
    filter, and every change of it, newest first"."""
    patient, chart = world.linked_patient()
    record, another = world.record(chart["id"])["id"], world.record(chart["id"])["id"]
    path = f"/api/records/{record}"
    for _ in range(2):
        assert world.doctor.get(path).status_code == 200
    assert patient.get("/api/records").json()["total"] == 2  # a list that shows it
    past_the_end = world.admin.get(f"/api/records?patientId={chart['id']}&page=9").json()
    assert past_the_end == {"records": [], "total": 2}  # which tells of it
    assert world.other_doctor.get(f"{path}/versions").status_code == 200
    assert world.doctor.post(f"{path}/versions", {"reason": "r", "notes": "x"}).status_code == 201
    assert world.doctor.post(f"{path}/retraction", {"reason": "r"}).status_code == 201
    assert world.admin.get(f"{path}/versions").status_code == 200  # once it is retracted, too
    # What shows nothing of it: the chart, another record, a list without it, a refusal.
    assert world.staff.get(f"/api/patients/{chart['id']}").status_code == 200
    assert patient.get(f"/api/records/{another}").status_code == 200
    assert world.other_doctor.get(f"/api/records?patientId={chart['id']}").json()["total"] == 1
    assert world.other_doctor.get(path).status_code == 404
    found = accesses(world.admin, record)
    assert told(found) == {
        ("doctor", "record.create", 1),
        ("doctor", "record.read", 2),
        ("patient", "record.list", 1),
        ("admin", "record.list", 1),
        ("doctor", "record.versions", 1),
        ("doctor", "record.amend", 1),
        ("doctor", "record.retract", 1),
        ("admin", "record.versions", 1),
    }
    assert found[0]["action"] == "record.versions"
    assert found[-1]["action"] == "record.create"
    assert list(found[0]) == KEYS


def test_accesses_of_a_record_are_paged_and_filtered_as_those_of_a_chart(world: World) -> None:
    record = world.record(world.chart()["id"])["id"]
    assert world.admin.get(f"/api/records/{record}").status_code == 200
    assert world.other_doctor.get(f"/api/records/{record}").status_code == 200
    whole = world.admin.get(f"/api/records/{record}/accesses").json()
    assert whole["total"] == len(whole["accesses"]) == 3
    second = world.admin.get(f"/api/records/{record}/accesses?limit=1&page=2").json()
    assert second["total"] == 4  # the look before is one more
    others = accesses(world.admin, record, "others=true")
    assert told(others) == {("doctor", "record.create", 1), ("doctor", "record.read", 1)}


def test_only_administrators_list_the_accesses_of_a_record(world: World) -> None:
    patient, chart = world.linked_patient()
    record = world.record(chart["id"])["id"]
    for browser in (world.doctor, world.staff, patient):
        assert browser.get(f"/api/records/{record}/accesses").status_code == 403


def test_a_look_at_the_accesses_of_a_record_is_one_of_its_chart(world: World) -> None:
    """contract: "whose data it showed or changed"."""
    chart = world.chart()["id"]
    record = world.record(chart)["id"]
    assert accesses(world.admin, record)
    shown = world.admin.get(f"/api/patients/{chart}/accesses").json()["accesses"]
    assert "record.accesses" in {row["action"] for row in shown}
