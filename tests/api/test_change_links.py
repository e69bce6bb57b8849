"""`GET /api/changes` to a patient whose chart is linked, parted from them, merged: what they lose sight of,
and what never was theirs."""

import pytest

from tests.support.factories import World
from tests.support.listening import Stream, cursor_for, told
from tests.support.merges import merge_charts, unmerge
from tests.support.schedule import doctor_with, put_hours, week


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
