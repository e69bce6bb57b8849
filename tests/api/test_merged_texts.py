"""What a merged chart says goes on being shown (openapi.yaml, "Merging two charts of one person")."""

from typing import Any
from uuid import uuid4

import pytest

from tests.support import audit_trail
from tests.support.factories import World
from tests.support.merges import REASON, merge_charts, pair, unmerge

pytestmark = pytest.mark.slow


def merges_of(world: World, role: str, chart: str, query: str = "") -> Any:
    answer = getattr(world, role).get(f"/api/patients/{chart}/merges{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_merged_chart_is_shown_as_it_was_by_whom_and_why(world: World) -> None:
    survivor, merged = pair(world)
    allergic = world.admin.patch(f"/api/patients/{merged['id']}", {"allergies": "Penicillin: anaphylaxis"})
    assert merges_of(world, "doctor", survivor["id"]) == {"merges": [], "total": 0}
    merge_charts(world, survivor, merged)
    admin = world.admin.me()
    for role in ("admin", "doctor", "staff"):
        for chart in (survivor["id"], merged["id"]):
            found = merges_of(world, role, chart)
            assert found["total"] == 1
            [shown] = found["merges"]
            assert shown.pop("at")
            assert shown == {
                "userId": admin["id"], "name": admin["name"], "role": "admin", "reason": REASON,
                "patient": allergic.json(),
            }  # fmt: skip
    assert unmerge(world.admin, survivor["id"], merged["id"]).status_code == 200
    assert merges_of(world, "doctor", survivor["id"]) == {"merges": [], "total": 0}


def test_charts_merged_one_after_the_other_are_all_shown(world: World) -> None:
    first, second = pair(world)
    third = world.chart(name="Mia Mainz")
    merge_charts(world, second, first)
    assert unmerge(world.admin, second["id"], first["id"]).status_code == 200
    merge_charts(world, second, first)
    merge_charts(world, third, second)
    found = merges_of(world, "staff", third["id"])
    assert [one["patient"]["id"] for one in found["merges"]] == [second["id"], first["id"]]
    page = merges_of(world, "staff", third["id"], "?page=2&limit=1")
    assert (page["merges"], page["total"]) == (found["merges"][1:], 2)
    assert merges_of(world, "staff", third["id"], "?page=3&limit=1") == {"merges": [], "total": 2}


def test_it_is_in_the_trail_with_the_charts_that_it_shows(world: World) -> None:
    survivor, merged = pair(world)
    merge_charts(world, survivor, merged)
    since = audit_trail.newest(world.service.backend)
    merges_of(world, "doctor", survivor["id"])
    [event] = audit_trail.new(world.service.backend, since, "patient.merges")
    assert {str(id) for id in event["patient_ids"]} == {survivor["id"], merged["id"]}


def test_patients_and_who_asks_for_no_chart_are_refused(world: World) -> None:
    patient, linked = world.linked_patient()
    assert patient.get(f"/api/patients/{linked['id']}/merges").status_code == 403
    for unknown in (uuid4(), "x"):
        assert world.staff.get(f"/api/patients/{unknown}/merges").status_code == 404
