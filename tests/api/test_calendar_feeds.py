"""The feed of one's appointments for one's own calendar: who has one, when it ends, what is in it."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from icalendar import Calendar

from api.paper.workbench import Workbench
from persistence import calendar_feeds
from tests.support import audit_trail
from tests.support.client import Browser
from tests.support.factories import PASSWORD, World
from tests.support.feeds import MINE, is_gone, subscribe
from tests.support.service import Backend, Service

CLINIC = "https://clinic.example"
NAME = "Praxis\nNord; Süd,\r \\Nord\x07"


@pytest.fixture(scope="module")
def named(backend: Backend) -> Iterator[Service]:
    """An instance of a clinic that wants names in feeds, at an address of its own."""
    settings = backend.settings(calendar_names=True, public_url=CLINIC, clinic_name=NAME)
    with Service(backend, settings) as running:
        yield running


def read(anyone: Browser, path: str) -> dict[str, Any]:
    """The events of a feed, by their UIDs."""
    answer = anyone.get(path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/calendar; charset=utf-8"
    calendar = Calendar.from_ical(answer.content)
    assert (calendar["version"], calendar["prodid"]) == ("2.0", "-//MediSecure//MediSecure//EN")
    return {str(event["uid"]): event for event in calendar.walk("VEVENT")}


def test_a_doctors_calendar_reads_their_appointments_without_a_cookie(
    world: World, anonymous: Browser, own_chart: dict[str, Any]
) -> None:
    """contract: "as iCalendar (RFC 5545), in UTC" """
    mine = world.appointment(patientId=own_chart["id"], date="2100-02-03T10:30:00+02:00", notes="Fasting")
    other = world.appointment(doctorId=world.other_doctor.me()["id"])
    answer = world.doctor.post(MINE)
    assert answer.json()["url"].startswith("http://localhost:8000/api/calendars/")
    path = urlsplit(answer.json()["url"]).path
    events = read(anonymous, path)
    assert other["id"] not in events
    event = events[mine["id"]]
    assert event.decoded("dtstart") == datetime(2100, 2, 3, 8, 30, tzinfo=UTC)
    assert event.decoded("dtend") - event.decoded("dtstart") == timedelta(minutes=30)
    text = anonymous.get(path).text
    assert "\r\nDTSTART:21000203T083000Z\r\n" in text
    assert "TZID" not in text
    assert (str(event["status"]), event["sequence"], str(event["class"])) == ("CONFIRMED", 0, "PRIVATE")
    assert (str(event["summary"]), str(event["location"])) == ("Appointment", "MediSecure")
    for hidden in ("Paula", "Check-up", "Fasting", "@", own_chart["id"]):
        assert hidden not in text


def test_the_address_is_the_clinics_whatever_host_the_client_names(world: World, named: Service) -> None:
    """Never from a header that a client chose: a link to another host would hand it the secret."""
    doctor = named.browser(dict(world.doctor.cookies))
    forged = {"host": "evil.example", "x-forwarded-host": "evil.example", "forwarded": "host=evil.example"}
    url = doctor.post(MINE, headers=forged).json()["url"]
    assert url.startswith(f"{CLINIC}/api/calendars/")


def test_a_change_keeps_the_uid_and_counts_on_and_a_cancelled_one_stays(
    world: World, anonymous: Browser
) -> None:
    """contract: "`SEQUENCE` grows whenever its date, doctor or status changes, but neither with its notes,
    nor with an arrival, nor with a person's name. A cancelled one stays there, as `STATUS:CANCELLED`." """
    path, visit = subscribe(world.doctor), world.appointment()
    before = read(anonymous, path)[visit["id"]]
    date = world.slot()
    for changes in ({"notes": "Bring the letter"}, {"date": date}, {"status": "cancelled"}):
        assert world.staff.patch(f"/api/appointments/{visit['id']}", changes).status_code == 200
        after = read(anonymous, path)[visit["id"]]
        assert (after["sequence"] > before["sequence"]) is ("notes" not in changes)
        assert after.decoded("dtstamp") >= before.decoded("dtstamp")
        before = after
    assert str(before["status"]) == "CANCELLED"
    assert str(before["transp"]) == "TRANSPARENT"
    assert before.decoded("dtstart") == datetime.fromisoformat(date)


def test_whoever_keeps_the_calendar_does_not_learn_who_came_and_when(
    world: World, anonymous: Browser
) -> None:
    """contract: "answers 304 to an `If-None-Match` as long as nothing has changed" """
    visit = world.appointment(date=datetime.now(UTC).isoformat())
    path, acts = subscribe(world.doctor), f"/api/appointments/{visit['id']}/visit"
    held = {"if-none-match": anonymous.get(path).headers["etag"]}
    before = read(anonymous, path)[visit["id"]]
    for act in ("arrived", "started", "undo", "undo"):
        assert world.doctor.post(acts, {"act": act, "reason": "A slip"}).status_code == 200
        assert anonymous.get(path, headers=held).status_code == 304, act
    for act in ("noShow", "undo"):
        assert world.doctor.post(acts, {"act": act}).status_code == 200
        after = read(anonymous, path)[visit["id"]]
        assert after["sequence"] == before["sequence"] + 1
        before = after


def test_a_patients_feed_is_of_the_chart_that_is_linked_to_them_now(world: World, anonymous: Browser) -> None:
    person, chart = world.linked_patient()
    visit = world.appointment(patientId=chart["id"])
    path = subscribe(person)
    assert read(anonymous, path).keys() == {visit["id"]}
    assert world.staff.delete(f"/api/patients/{chart['id']}/account").status_code == 200
    assert read(anonymous, path) == {}
    [component] = Calendar.from_ical(anonymous.get(path).content).subcomponents  # RFC 5545, 3.6: at least one
    assert component.name == "VTIMEZONE"


def test_another_doctor_counts_on_in_the_patients_feed(world: World, anonymous: Browser) -> None:
    person, chart = world.linked_patient()
    visit, path = world.appointment(patientId=chart["id"]), subscribe(person)
    before = read(anonymous, path)[visit["id"]]
    until = datetime.fromisoformat(visit["date"]) + timedelta(minutes=1)
    heir = world.other_doctor.me()["id"]
    body = {"doctorId": visit["doctorId"], "from": visit["date"], "to": until.isoformat()}
    moved = world.staff.post("/api/appointments/reassign", {**body, "appointments": {"reassignTo": heir}})
    assert (moved.status_code, moved.json()["total"]) == (200, 1)
    assert read(anonymous, path)[visit["id"]]["sequence"] > before["sequence"]


def test_a_feed_begins_31_days_ago_and_has_the_earliest_of_very_many(
    world: World, backend: Backend, anonymous: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, chart = world.linked_patient()
    path = subscribe(person)
    dates = [datetime.now(UTC) + timedelta(days=days) for days in (-32, -30, 900, 901)]
    ids = [world.appointment(patientId=chart["id"], date=date.isoformat())["id"] for date in dates]
    assert list(read(anonymous, path)) == ids[1:]
    monkeypatch.setattr(calendar_feeds, "MAX_VISITS", 2)
    assert list(read(anonymous, path)) == ids[1:3]


def test_names_and_reasons_are_in_it_where_the_clinic_wants_them(world: World, named: Service) -> None:
    """CALENDAR_NAMES: of a doctor's patients, and of a patient's doctor; never notes or e-mails."""
    person, chart = world.linked_patient()
    about = {"reason": "Follow-up;\u2028of\u0007 a rash", "notes": "Contagious"}
    visit = world.appointment(patientId=chart["id"], **about)
    summaries = []
    for browser in (world.doctor, person):
        path = subscribe(browser)
        event = read(named.browser(), path)[visit["id"]]
        assert str(event["description"]) == "Follow-up;\nof  a rash"
        assert str(event["location"]).startswith("Praxis\nNord; Süd, ")
        summaries.append(str(event["summary"]))
        text = named.browser().get(path).text
        assert "Contagious" not in text
        assert "@" not in text
    assert summaries == [f"Appointment: {chart['name']}", "Appointment: Dora Demir"]


def test_a_new_name_is_shown_without_a_new_sequence(world: World, named: Service) -> None:
    """RFC 5545, 3.8.7.4, wants one of what the organizer revises; a calendar that asks gets the name."""
    chart = world.linked_patient()[1]
    visit, path = world.appointment(patientId=chart["id"]), subscribe(world.doctor)
    anyone = named.browser()
    before, held = read(anyone, path)[visit["id"]], {"if-none-match": anyone.get(path).headers["etag"]}
    assert anyone.get(path, headers=held).status_code == 304
    assert world.staff.patch(f"/api/patients/{chart['id']}", {"name": "Nova Neumann"}).status_code == 200
    assert anyone.get(path, headers=held).status_code == 200
    after = read(anyone, path)[visit["id"]]
    assert str(after["summary"]) == "Appointment: Nova Neumann"
    assert after["sequence"] == before["sequence"]


def test_a_text_is_escaped_and_never_breaks_its_line(world: World, named: Service) -> None:
    """RFC 5545, 3.3.11: of the clinic as of people; without the control characters that it forbids."""
    person, chart = world.linked_patient()
    world.appointment(patientId=chart["id"], reason="a\\Nb;c,d\\ne\nf\x0b\x7f." + 40 * "\\N,;\U0001fa7a")
    answer = named.browser().get(subscribe(person))
    assert answer.status_code == 200
    lines = answer.text.replace("\r\n ", "").split("\r\n")
    assert "X-WR-CALNAME:Praxis\\nNord\\; Süd\\,  \\\\Nord " in lines
    assert "LOCATION:Praxis\\nNord\\; Süd\\,  \\\\Nord " in lines
    assert "DESCRIPTION:a\\\\Nb\\;c\\,d\\\\ne\\nf  ." + 40 * "\\\\N\\,\\;\U0001fa7a" in lines
    assert all(line.isprintable() for line in lines)


def test_a_new_feed_ends_the_old_one_and_delete_ends_it(world: World, anonymous: Browser) -> None:
    """contract: "A new one ends the old one" """
    first = subscribe(world.other_doctor)
    second = subscribe(world.other_doctor)
    assert is_gone(anonymous, first)
    assert not is_gone(anonymous, second)
    ended = world.other_doctor.delete(MINE)
    assert (ended.status_code, ended.json()) == (200, {"message": "Calendar ended"})
    assert is_gone(anonymous, second)
    again = world.other_doctor.delete(MINE)
    assert (again.status_code, again.json()) == (404, {"detail": "Calendar not found"})


def test_a_feed_stops_while_its_account_is_disabled_or_of_another_role(
    world: World, anonymous: Browser
) -> None:
    """contract: "while its account is disabled or of another role" """
    person, me = world.account()
    path = subscribe(person)
    for stop, go_on in (
        ({"status": "disabled"}, {"status": "active"}),
        ({"role": "staff"}, {"role": "patient"}),
        ({"role": "doctor"}, {"role": "patient"}),
    ):
        assert world.admin.patch(f"/api/users/{me['id']}", stop).status_code == 200
        assert is_gone(anonymous, path), stop
        assert world.admin.patch(f"/api/users/{me['id']}", go_on).status_code == 200
        assert not is_gone(anonymous, path), go_on


def test_a_new_password_ends_the_feed(world: World, anonymous: Browser) -> None:
    """contract: "so do `DELETE /api/users/me/calendar` and every new password": whoever knew the old one may
    have made it."""
    person, me = world.account()
    path = subscribe(person)
    body = {"currentPassword": PASSWORD, "newPassword": "another horse"}
    assert person.post("/api/users/me/password", body).status_code == 200
    assert is_gone(anonymous, path)
    path = subscribe(person)
    set_password = f"/api/users/{me['id']}/password"
    assert world.admin.post(set_password, {"newPassword": "a third horse"}).status_code == 200
    assert is_gone(anonymous, path)


def test_a_calendar_that_has_it_all_already_gets_304(world: World, anonymous: Browser) -> None:
    visit, path = world.appointment(), subscribe(world.doctor)
    first = anonymous.get(path)
    held = {"if-none-match": first.headers["etag"]}
    for method in ("GET", "HEAD"):
        assert anonymous.request(method, path, headers=held).status_code == 304
    head = anonymous.request("HEAD", path)
    assert (head.status_code, head.headers["etag"]) == (200, first.headers["etag"])
    assert world.staff.patch(f"/api/appointments/{visit['id']}", {"notes": "Not shown"}).status_code == 200
    assert anonymous.get(path, headers=held).status_code == 304
    assert world.staff.patch(f"/api/appointments/{visit['id']}", {"status": "cancelled"}).status_code == 200
    assert anonymous.get(path, headers=held).status_code == 200
    assert anonymous.get(path, headers={"if-match": '"other"'}).status_code == 412


def test_busy_calendars_are_503_and_hold_up_neither_paper_nor_a_304_nor_head(
    world: World, service: Service, anonymous: Browser
) -> None:
    path = subscribe(world.doctor)
    held = {"if-none-match": anonymous.get(path).headers["etag"]}
    writer: Workbench = service.app.dependencies["calendar_writer"].dependency()  # type: ignore[union-attr]  # a Provide
    with ExitStack() as busy:
        while writer.places.acquire(blocking=False):
            busy.callback(writer.places.release)
        assert anonymous.get(path).status_code == 503
        assert anonymous.get(path, headers=held).status_code == 304
        head = anonymous.request("HEAD", path)  # for which nothing is written
        assert (head.status_code, head.headers["etag"]) == (200, held["if-none-match"])
        assert head.headers["content-type"].startswith("text/calendar")
        assert "content-length" not in head.headers
        assert world.staff.get("/api/appointments/day-sheet?date=2031-02-03").status_code == 200
    assert anonymous.get(path).status_code == 200


def test_the_trail_says_who_made_read_and_ended_a_feed(
    world: World, backend: Backend, anonymous: Browser, named: Service
) -> None:
    person, chart = world.linked_patient()
    me = person.me()["id"]
    visit = world.appointment(patientId=chart["id"])
    since = audit_trail.newest(backend)
    path = subscribe(person)
    for browser in (anonymous, named.browser()):
        assert browser.get(path).status_code == 200
    assert person.delete(MINE).status_code == 200
    assert is_gone(anonymous, path)
    rows = audit_trail.rows(backend, "id > $1", since)
    actions = ["calendar.create", "calendar.read", "calendar.read", "calendar.end"]
    assert [row["action"] for row in rows] == actions
    for row in rows:
        assert (str(row["user_id"]), str(row["target_id"]), row["role"]) == (me, me, "patient")
        assert row["address"] == "127.0.0.1"
    charts = [[str(id) for id in row["patient_ids"]] for row in rows]
    assert charts == [[], [], [chart["id"]], []]
    assert [str(id) for id in rows[2]["target_ids"]] == [visit["id"]]
    accesses = person.get(f"/api/patients/{chart['id']}/accesses").json()["accesses"]
    assert "calendar.read" in {access["action"] for access in accesses}


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_administrators_and_staff_have_no_feed(world: World, method: str) -> None:
    """Requirement of the roles: doctors and patients; others 403."""
    for browser in (world.admin, world.staff):
        refused: httpx.Response = browser.request(method, MINE)
        assert (refused.status_code, refused.json()["detail"]) == (403, "Only doctor and patient may do this")
