"""Two charts of one person, merged and parted again (openapi.yaml, "Merging two charts of one person")."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest

from security.roles import Role
from tests.support.client import Browser
from tests.support.factories import World

pytestmark = pytest.mark.slow
Json = dict[str, Any]
ASKED = {"Accept": "application/problem+json"}
REASON = "The same person, registered twice"


def merge(browser: Browser, survivor: str, merged: str, query: str = "", **options: Any) -> httpx.Response:
    body = {"from": merged, "reason": REASON}
    return browser.post(f"/api/patients/{survivor}/merge{query}", body, **options)


def unmerge(browser: Browser, survivor: str, merged: str, **options: Any) -> httpx.Response:
    body = {"from": merged, "reason": "Two people after all"}
    return browser.post(f"/api/patients/{survivor}/unmerge", body, **options)


def merge_charts(world: World, survivor: Json, merged: Json) -> None:
    answer = merge(world.admin, survivor["id"], merged["id"])
    assert answer.status_code == 200, answer.text


def pair(world: World) -> tuple[Json, Json]:
    return world.chart(name="Mia Main"), world.chart(name="Mia Maine")


def history(browser: Browser, chart: str) -> list[tuple[str, str | None, str | None]]:
    found = browser.get(f"/api/patients/{chart}/history?limit=100")
    assert found.status_code == 200, found.text
    return [(one["field"], one["from"], one["to"]) for one in found.json()["changes"]]


def records_of(browser: Browser, chart: str) -> list[str]:
    found = browser.get("/api/records", params={"patientId": chart, "limit": 100}).json()
    assert found["total"] == len(found["records"])
    return [one["id"] for one in found["records"]]


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


def test_charts_that_cannot_be_merged_are_400_or_404(world: World) -> None:
    survivor, merged = pair(world)
    other = world.chart()
    merge_charts(world, survivor, merged)
    for path, source, status, detail in (
        (survivor, survivor, 400, "from: a chart cannot be merged into itself"),
        (merged, survivor, 400, "from: a chart cannot be merged into itself"),
        (other, merged, 400, "from: this chart is merged already"),
        (survivor, {"id": str(uuid4())}, 404, "Patient not found"),
        ({"id": str(uuid4())}, other, 404, "Patient not found"),
        ({"id": "x"}, other, 404, "Patient not found"),
        (other, {"id": "x"}, 400, "from: must be a UUID"),
    ):
        refused = merge(world.admin, path["id"], source["id"])
        assert (refused.status_code, refused.json()) == (status, {"detail": detail})
    for path, source, status in (
        (survivor, other, 400), (survivor, {"id": str(uuid4())}, 404), ({"id": str(uuid4())}, merged, 404),
        (merged, survivor, 400),
    ):  # fmt: skip
        assert unmerge(world.admin, path["id"], source["id"]).status_code == status
    body = {"from": other["id"]}
    assert world.admin.post(f"/api/patients/{survivor['id']}/merge", body).json() == {
        "detail": "reason: is required"
    }


def test_two_linked_charts_are_400(world: World) -> None:
    survivor, merged = pair(world)
    for some in (survivor, merged):
        world.link(some["id"], world.account()[0])
    refused = merge(world.admin, survivor["id"], merged["id"])
    detail = "Both charts are linked to accounts: unlink one of them first"
    assert (refused.status_code, refused.json()) == (400, {"detail": detail})


def test_charts_whose_appointments_overlap_are_400(world: World) -> None:
    survivor, merged = pair(world)
    slot = world.slot()
    first = world.appointment(patientId=survivor["id"], date=slot)
    world.appointment(patientId=merged["id"], date=slot, doctorId=world.other_doctor.me()["id"])
    for query in ("", "?dryRun=true"):
        assert merge(world.admin, survivor["id"], merged["id"], query).status_code == 400
    cancelled = world.staff.patch(f"/api/appointments/{first['id']}", {"status": "cancelled"})
    assert cancelled.status_code == 200
    assert merge(world.admin, survivor["id"], merged["id"]).status_code == 200


def test_a_stale_tag_merges_nothing(world: World) -> None:
    survivor, merged = pair(world)
    stale = {"If-Match": world.admin.get(f"/api/patients/{survivor['id']}").headers["etag"]}
    assert world.staff.patch(f"/api/patients/{survivor['id']}", {"phone": "+1 555 8"}).status_code == 200
    assert merge(world.admin, survivor["id"], merged["id"], headers=stale).status_code == 412
    merge_charts(world, survivor, merged)
    assert unmerge(world.admin, survivor["id"], merged["id"], headers=stale).status_code == 412
    assert unmerge(world.admin, survivor["id"], merged["id"], headers={"If-Match": "*"}).status_code == 200


@pytest.mark.parametrize("role", [Role.DOCTOR, Role.STAFF, Role.PATIENT])
def test_only_administrators_merge(world: World, role: Role) -> None:
    survivor, merged = pair(world)
    assert merge(world.people[role], survivor["id"], merged["id"]).status_code == 403
    merge_charts(world, survivor, merged)
    assert unmerge(world.people[role], survivor["id"], merged["id"]).status_code == 403


def test_what_is_written_during_a_merge_is_lost_by_nobody(world: World) -> None:
    """Bookings and records by the old id, and merges to and fro, at the same time."""
    survivor, merged = pair(world)

    def write(n: int) -> list[httpx.Response]:
        doctor = world.doctor.me()["id"]
        visit = {"patientId": merged["id"], "doctorId": doctor, "date": world.slot(), "reason": "x"}
        note = {"patientId": merged["id"], "diagnosis": "Well", "prescription": "", "notes": ""}
        return [world.staff.post("/api/appointments", visit), world.doctor.post("/api/records", note)]

    def part(n: int) -> list[httpx.Response]:
        done = merge(world.admin, survivor["id"], merged["id"])
        return [done, unmerge(world.admin, survivor["id"], merged["id"])]

    with ThreadPoolExecutor(6) as pool:
        parting = pool.submit(lambda: [answer for n in range(6) for answer in part(n)])
        written = [answer for answers in pool.map(write, range(24)) for answer in answers]
    assert [answer.status_code for answer in parting.result()] == [200] * 12
    assert [answer.status_code for answer in written] == [201] * 48
    both = records_of(world.doctor, survivor["id"]) + records_of(world.doctor, merged["id"])
    assert sorted(both) == sorted(answer.json()["id"] for answer in written[1::2])
    for answer in written[::2]:
        found = world.staff.get(f"/api/appointments/{answer.json()['id']}").json()
        assert found["patientId"] in {survivor["id"], merged["id"]}
