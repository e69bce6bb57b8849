"""Two charts of one person, merged and parted again (openapi.yaml, "Merging two charts of one person")."""

from uuid import uuid4

import pytest

from tests.support.factories import World
from tests.support.merges import ASKED, history, merge, merge_charts, pair, records_of, unmerge

pytestmark = pytest.mark.slow


def test_all_of_the_merged_chart_becomes_the_survivors(world: World) -> None:
    survivor, merged = pair(world)
    booked = world.appointment(patientId=merged["id"])
    record = world.record(merged["id"])
    own = world.record(survivor["id"])
    before = world.admin.get("/api/patients").json()["total"]

    answer = merge(world.admin, survivor["id"], merged["id"])
    assert (answer.status_code, answer.json()) == (200, survivor)
    assert answer.headers["etag"] == world.admin.get(f"/api/patients/{survivor['id']}").headers["etag"]
    assert world.admin.get("/api/patients").json()["total"] == before - 1
    found = world.admin.get("/api/patients", params={"search": "Mia Maine"}).json()
    assert merged["id"] not in [one["id"] for one in found["patients"]]
    moved = world.staff.get(f"/api/appointments/{booked['id']}").json()
    assert moved == {**booked, "patientId": survivor["id"], "patientName": survivor["name"]}
    moved = world.doctor.get(f"/api/records/{record['id']}").json()
    assert moved == {**record, "patientId": survivor["id"], "patientName": survivor["name"]}
    assert records_of(world.doctor, survivor["id"]) == [own["id"], record["id"]]


def test_both_ids_go_on_working(world: World) -> None:
    survivor, merged = pair(world)
    merge_charts(world, survivor, merged)
    old = f"/api/patients/{merged['id']}"
    assert world.doctor.get(old).json() == survivor
    changed = world.staff.patch(old, {"phone": "+1 555 7777"})
    assert changed.json() == {**survivor, "phone": "+1 555 7777"}
    assert world.admin.get(f"/api/patients/{survivor['id']}").json() == changed.json()
    record = world.record(merged["id"])
    assert record["patientId"] == survivor["id"]
    assert (
        records_of(world.doctor, merged["id"]) == records_of(world.doctor, survivor["id"]) == [record["id"]]
    )
    booked = world.appointment(patientId=merged["id"])
    assert booked["patientId"] == survivor["id"]
    assert world.staff.patch(f"/api/appointments/{booked['id']}", {"date": world.slot()}).status_code == 200
    patient, _ = world.account()
    world.link(merged["id"], patient)
    assert patient.get(old).json()["id"] == survivor["id"]
    assert patient.get(f"/api/patients/{survivor['id']}").status_code == 200
    account = world.staff.get(f"{old}/account").json()
    assert account == world.staff.get(f"/api/patients/{survivor['id']}/account").json()
    own = patient.post("/api/appointments", {
        "patientId": merged["id"], "doctorId": booked["doctorId"], "date": world.slot(), "reason": "Cough",
    })  # fmt: skip
    assert (own.status_code, own.json()["patientId"]) == (201, survivor["id"])
    assert world.staff.delete(f"{old}/account").status_code == 200
    assert patient.get(old).status_code == 404


def test_what_is_unknown_stays_unknown(world: World) -> None:
    survivor, merged = pair(world)
    merge_charts(world, survivor, merged)
    assert world.patient.get(f"/api/patients/{merged['id']}").status_code == 404
    body = {"patientId": str(uuid4()), "diagnosis": "Well", "prescription": "", "notes": ""}
    assert world.doctor.post("/api/records", body).status_code == 404
    body = {
        "patientId": merged["id"],
        "doctorId": world.doctor.me()["id"],
        "reason": "x",
        "date": world.slot(),
    }
    assert world.patient.post("/api/appointments", body).json() == {"detail": "Patient not found"}


def test_a_merge_is_in_both_histories_and_in_the_trail(world: World) -> None:
    survivor, merged = pair(world)
    merge_charts(world, survivor, merged)
    assert history(world.doctor, survivor["id"]) == [("merge", None, merged["id"])]
    assert history(world.staff, merged["id"]) == [("merge", None, survivor["id"])]
    events = world.admin.get("/api/audit", params={"patientId": merged["id"], "action": "patient.merge"})
    [event] = events.json()["events"]
    assert (event["patientId"], event["targetId"]) == (survivor["id"], merged["id"])
    assert unmerge(world.admin, survivor["id"], merged["id"]).json() == {"left": []}
    assert history(world.doctor, survivor["id"])[0] == ("merge", merged["id"], None)
    assert history(world.staff, merged["id"])[0] == ("merge", survivor["id"], None)


def test_those_who_saw_the_merged_chart_have_seen_the_survivor(world: World) -> None:
    survivor, merged = pair(world)
    world.other_doctor.get(f"/api/patients/{merged['id']}")
    merge_charts(world, survivor, merged)
    for chart in (survivor, merged):
        accesses = world.admin.get(f"/api/patients/{chart['id']}/accesses").json()["accesses"]
        seen = [one["userId"] for one in accesses if one["action"] == "patient.read"]
        assert world.other_doctor.me()["id"] in seen


def test_a_dry_run_says_what_would_move_and_moves_nothing(world: World) -> None:
    survivor, merged = pair(world)
    world.appointment(patientId=merged["id"])
    world.record(merged["id"])
    patient, me = world.account()
    world.link(merged["id"], patient)
    planned = merge(world.admin, survivor["id"], merged["id"], "?dryRun=true")
    assert planned.status_code == 200
    assert planned.json() == {"appointments": 1, "records": 1, "account": me["id"]}
    assert world.admin.get(f"/api/patients/{merged['id']}").json() == merged
    assert merge(world.admin, survivor["id"], merged["id"], "?dryRun=false").json() == survivor
    assert history(world.admin, survivor["id"]) == [
        ("account", None, me["id"]),
        ("merge", None, merged["id"]),
    ]
    assert patient.get("/api/patients").json()["patients"][0]["id"] == survivor["id"]


def test_an_account_goes_back_with_its_chart(world: World) -> None:
    survivor, merged = pair(world)
    patient, me = world.account()
    world.link(merged["id"], patient)
    merge_charts(world, survivor, merged)
    assert unmerge(world.admin, survivor["id"], merged["id"]).status_code == 200
    assert [one["id"] for one in patient.get("/api/patients").json()["patients"]] == [merged["id"]]
    assert history(world.admin, merged["id"])[:2] == [
        ("account", None, me["id"]),
        ("merge", survivor["id"], None),
    ]
    refused = world.staff.put(f"/api/patients/{survivor['id']}/account", {"userId": me["id"]})
    assert refused.status_code == 403  # it was linked before, though not of its own


def test_an_account_that_was_linked_elsewhere_meanwhile_stays_there(world: World) -> None:
    survivor, merged = pair(world)
    patient, _ = world.account()
    world.link(merged["id"], patient)
    merge_charts(world, survivor, merged)
    assert world.admin.delete(f"/api/patients/{survivor['id']}/account").status_code == 200
    elsewhere = world.chart()
    world.link(elsewhere["id"], patient)
    assert unmerge(world.admin, survivor["id"], merged["id"]).status_code == 200
    assert [one["id"] for one in patient.get("/api/patients").json()["patients"]] == [elsewhere["id"]]


def test_every_row_of_the_merged_chart_comes_back(world: World) -> None:
    """What was written since stays with the survivor, and `left` names it."""
    survivor, merged = pair(world)
    rows = [world.appointment(patientId=merged["id"]), world.appointment(patientId=survivor["id"])]
    record, retracted = world.record(merged["id"]), world.record(merged["id"])
    merge_charts(world, survivor, merged)
    path = f"/api/records/{retracted['id']}"
    assert world.doctor.post(f"{path}/retraction", {"reason": "Wrong"}).status_code == 201
    assert (
        world.doctor.post(f"/api/records/{record['id']}/versions", {"reason": "x", "notes": "y"}).status_code
        == 201
    )
    since = [world.appointment(patientId=merged["id"])["id"], world.record(survivor["id"])["id"]]
    answer = unmerge(world.admin, survivor["id"], merged["id"])
    assert (answer.status_code, answer.json()) == (200, {"left": sorted(since)})
    assert world.admin.get(f"/api/patients/{merged['id']}").json() == merged
    for row in rows:
        assert world.staff.get(f"/api/appointments/{row['id']}").json() == row
    assert records_of(world.doctor, merged["id"]) == [record["id"]]
    accesses = world.admin.get(f"{path}/accesses").json()
    assert accesses["total"] > 0
    for id in since:
        noun = "appointments" if id == since[0] else "records"
        assert world.doctor.get(f"/api/{noun}/{id}").json()["patientId"] == survivor["id"]


def test_merges_of_merges_are_undone_one_by_one(world: World) -> None:
    first, second = pair(world)
    third = world.chart(name="Mia Mainz")
    record = world.record(first["id"])
    merge_charts(world, second, first)
    merge_charts(world, third, second)
    assert world.doctor.get(f"/api/patients/{first['id']}").json() == third
    assert records_of(world.doctor, first["id"]) == [record["id"]]
    for survivor, merged, code in (
        (second, first, "already_merged"), (third, first, "not_merged"), (first, third, "already_merged"),
    ):  # fmt: skip
        refused = unmerge(world.admin, survivor["id"], merged["id"], headers=ASKED)
        assert (refused.status_code, refused.json()["code"]) == (400, code)
    assert unmerge(world.admin, third["id"], second["id"]).json() == {"left": []}
    assert world.doctor.get(f"/api/records/{record['id']}").json()["patientId"] == second["id"]
    assert records_of(world.doctor, third["id"]) == []
    assert unmerge(world.admin, second["id"], first["id"]).json() == {"left": []}
    assert world.doctor.get(f"/api/records/{record['id']}").json() == record
