"""Charts that are not merged: by whom, in which state, and what is written meanwhile (openapi.yaml, "Merging
two charts of one person")."""

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx
import pytest

from security.roles import Role
from tests.support.factories import World
from tests.support.merges import merge, merge_charts, pair, records_of, unmerge

pytestmark = pytest.mark.slow


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
    fresh = {"If-Match": world.admin.get(f"/api/patients/{survivor['id']}").headers["etag"]}
    assert merge(world.admin, survivor["id"], merged["id"], headers=fresh).status_code == 200
    third = world.chart()
    assert merge(world.admin, survivor["id"], third["id"], headers=fresh).status_code == 412
    assert unmerge(world.admin, survivor["id"], merged["id"], headers=stale).status_code == 412
    assert unmerge(world.admin, survivor["id"], merged["id"], headers={"If-Match": "*"}).status_code == 200


@pytest.mark.parametrize(
    "query", ["dryRun=", "dryRun", "dry%52un=", "dryRun=yes", "dryRun=True", "dryrun=true"]
)
def test_a_dry_run_that_is_not_clear_merges_nothing(world: World, query: str) -> None:
    survivor, merged = pair(world)
    assert merge(world.admin, survivor["id"], merged["id"], f"?{query}").status_code == 400
    assert world.admin.get(f"/api/patients/{merged['id']}").json() == merged


def test_keyed_and_other_bookings_by_both_ids_wait_for_each_other(world: World) -> None:
    """None of them is a deadlock's victim, in whatever order the ids lock."""
    charts = [pair(world) for _ in range(4)]
    doctor = world.doctor.me()["id"]
    for survivor, merged in charts:
        merge_charts(world, survivor, merged)

    def book(n: int) -> list[int]:
        survivor, merged = charts[n % 4]
        body = {"doctorId": doctor, "reason": "x"}
        keyed = {**body, "patientId": merged["id"], "date": world.slot()}
        plain = {**body, "patientId": survivor["id"], "date": world.slot()}
        key = {"Idempotency-Key": str(uuid4())}
        return [
            world.staff.post("/api/appointments", keyed, headers=key).status_code,
            world.staff.post("/api/appointments", plain).status_code,
        ]

    with ThreadPoolExecutor(8) as pool:
        assert [status for both in pool.map(book, range(40)) for status in both] == [201] * 80


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
