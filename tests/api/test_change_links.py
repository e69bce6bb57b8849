"""`GET /api/changes` to a patient whose chart is linked, parted from them, merged: what they lose sight of,
and what never was theirs."""

import asyncio
from itertools import count
from uuid import uuid4

import asyncpg
import pytest

from tests.support.factories import World
from tests.support.listening import Stream, cursor_for, told
from tests.support.merges import merge_charts, unmerge
from tests.support.schedule import doctor_with, put_hours, week
from tests.support.service import Backend

numbers = count(1)


def retract(world: World, record: str) -> None:
    body = {"reason": "Wrong chart"}
    assert world.doctor.post(f"/api/records/{record}/retraction", body).status_code == 201


def part(world: World, chart: str) -> None:
    assert world.admin.delete(f"/api/patients/{chart}/account").status_code == 200


def test_what_was_retracted_before_the_link_ended_is_told(world: World) -> None:
    """contract: "Who may not see an object any more is told of that too"."""
    browser, chart = world.linked_patient()
    record = world.record(chart["id"])["id"]
    cursor = cursor_for(browser)
    with Stream(browser) as stream:
        assert stream.ids.get(timeout=10)
        retract(world, record)
        part(world, chart["id"])
        lost = [("record", record, "update"), ("patient", chart["id"], "update")]
        assert told(browser, cursor) == lost
        assert stream.entries(2) == lost


def test_what_was_retracted_before_the_account_went_to_another_chart_is_told(world: World) -> None:
    browser, chart = world.linked_patient()
    record, survivor = world.record(chart["id"])["id"], world.chart()
    cursor = cursor_for(browser)
    retract(world, record)
    merge_charts(world, survivor, chart)
    assert ("record", record, "update") in told(browser, cursor)


def test_what_went_back_to_another_chart_before_the_link_ended_is_told(world: World) -> None:
    browser, chart = world.linked_patient()
    merged = world.chart()
    visit, record = world.appointment(patientId=merged["id"])["id"], world.record(merged["id"])["id"]
    merge_charts(world, chart, merged)
    assert browser.get(f"/api/appointments/{visit}").status_code == 200
    cursor = cursor_for(browser)
    assert unmerge(world.admin, chart["id"], merged["id"]).status_code == 200
    part(world, chart["id"])
    assert {entry[:2] for entry in told(browser, cursor)} >= {("appointment", visit), ("record", record)}


def test_what_came_and_went_while_the_chart_itself_changed_is_told(world: World) -> None:
    """contract: "One entry for each object and commit"."""
    browser, chart = world.linked_patient()
    cursor = cursor_for(browser)
    record = world.record(chart["id"])["id"]
    assert world.staff.patch(f"/api/patients/{chart['id']}", {"phone": "5"}).status_code == 200
    retract(world, record)
    assert told(browser, cursor) == [
        ("record", record, "create"),
        ("patient", chart["id"], "update"),
        ("record", record, "update"),
    ]


def test_what_had_left_a_chart_before_the_link_is_not_told(world: World) -> None:
    """contract: "of what the caller may see"."""
    browser, _ = world.account()
    cursor = cursor_for(browser)
    chart, merged = world.chart(), world.chart()
    record, gone = world.record(chart["id"])["id"], world.record(chart["id"])["id"]
    retract(world, gone)
    visit = world.appointment(patientId=merged["id"])["id"]
    merge_charts(world, chart, merged)
    assert unmerge(world.admin, chart["id"], merged["id"]).status_code == 200
    with Stream(browser) as stream:
        assert stream.ids.get(timeout=10)
        world.link(chart["id"], browser)
        assert set(stream.entries(2)) == {("patient", chart["id"], "update"), ("record", record, "update")}
    heard = {entry[:2] for entry in told(browser, cursor)}
    assert heard == {("patient", chart["id"]), ("record", record)}
    assert not {gone, visit} & {id for _, id in heard}
    cursor = cursor_for(browser)
    retract(world, record)
    assert told(browser, cursor) == [("record", record, "update")]


@pytest.mark.parametrize("hours", [week("08:00-12:00"), []])
def test_the_hours_of_a_doctor_are_told_as_their_account(
    world: World, hours: list[dict[str, object]]
) -> None:
    """contract: "So are a doctor's hours": whoever shows free times asks for them again."""
    _, doctor = doctor_with(world, None)
    for now in (hours, None):
        cursor = cursor_for(world.staff)
        put_hours(world.staff, doctor, now)
        put_hours(world.staff, doctor, now)  # which changes nothing
        for browser in (world.patient, world.staff, world.other_doctor):
            assert told(browser, cursor) == [("user", doctor, "update")]


def change_all(world: World, chart: str, visit: str) -> list[str]:
    """The nouns of what changed, in this order."""
    assert world.staff.patch(f"/api/patients/{chart}", {"phone": str(next(numbers))}).status_code == 200
    moved = world.staff.patch(f"/api/appointments/{visit}", {"date": world.slot()})
    assert moved.status_code == 200, moved.text
    world.record(chart)
    return ["patient", "appointment", "record"]


def test_who_asks_later_is_told_what_a_listener_was_told_of_a_chart_that_came_and_went(world: World) -> None:
    """contract: "each exactly once": what changed before the link is the link's, and what changed after it
    ended is nobody's."""
    browser, _ = world.account()
    chart = world.chart()["id"]
    visit = world.appointment(patientId=chart)["id"]
    cursor = cursor_for(browser)
    expected: list[str] = []
    for is_linked in (False, True, False, True):
        changed = change_all(world, chart, visit)
        if is_linked:
            expected += changed
            part(world, chart)
        else:
            world.admin.put(f"/api/patients/{chart}/account", {"userId": browser.me()["id"]})
        records = world.admin.get("/api/records", params={"patientId": chart}).json()["total"]
        expected += ["appointment", "patient", *["record"] * records]
    assert [noun for noun, _, _ in told(browser, cursor)] == expected
    with Stream(browser, cursor) as stream:
        assert [noun for noun, _, _ in stream.entries(len(expected))] == expected
        assert stream.is_silent()


@pytest.mark.parametrize("is_new", [True, False])
def test_what_was_begun_before_the_link_and_committed_after_it_is_told(
    world: World, backend: Backend, is_new: bool
) -> None:
    """contract: "in whatever order they were committed"."""
    browser, _ = world.account()
    chart = world.chart()["id"]
    visit = world.appointment(patientId=chart)["id"]
    cursor = cursor_for(browser)

    async def run() -> None:
        slow = await asyncpg.connect(backend.database_url)
        async with slow.transaction():
            await slow.execute("SELECT pg_current_xact_id()")
            if not is_new:
                await slow.execute("UPDATE appointments SET notes = 'Late' WHERE id = $1", visit)
            await asyncio.to_thread(world.link, chart, browser)
            if is_new:
                copied = "(SELECT to_jsonb(old) || $1 AS new FROM appointments AS old WHERE id = $2)"
                await slow.execute(
                    "INSERT INTO appointments SELECT (jsonb_populate_record(NULL::appointments, new)).* "
                    f"FROM {copied}",
                    f'{{"id": "{late}", "status": "cancelled"}}',
                    visit,
                )
        await slow.close()

    late = str(uuid4()) if is_new else visit
    asyncio.run(run())
    assert ("appointment", late) in {entry[:2] for entry in told(browser, cursor)}
