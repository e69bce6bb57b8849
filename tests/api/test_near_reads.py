"""Reads on a replica, which here is a real one that can be held up: whoever has written sees it at once, and
nobody sees what they may not see any more (contract: "A replica answers once it has replayed the caller's
last write and the last change of a link, a role or a status; else the primary does")."""

import time
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import msgspec
import pytest

from persistence.embedded.folders import postgres_home
from persistence.embedded.processes import ServerGroup
from persistence.postgres.replica import MAX_LAG_SECONDS
from security.roles import Role
from tests.reliability.servers import Standby
from tests.support.client import Browser
from tests.support.factories import World, chart, registration
from tests.support.listening import CHANGES, cursor_for
from tests.support.running import wait_until
from tests.support.service import Backend, Service
from tests.support.standby import Past, answered, url_of
from tests.support.tap import Cost, Tap

pytestmark = pytest.mark.slow

Written = tuple[
    str, Callable[[Any], object], object
]  # a path, what is looked at in its answer, and what it is


@pytest.fixture(scope="module")
def standby(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standby]:
    with ExitStack() as cleanup:
        group = cleanup.enter_context(ServerGroup())
        server = Standby(postgres_home(tmp_path_factory.mktemp("standby"), cleanup), group)
        server.copy(backend.database_url)
        server.start()
        cleanup.callback(server.stop)
        yield server


@pytest.fixture(scope="module")
def service(backend: Backend, standby: Standby) -> Iterator[Service]:
    with Service(backend, backend.settings(database_read_url=url_of(standby, backend))) as running:
        yield running


@pytest.fixture(scope="module")
def second(service: Service) -> Iterator[Service]:
    """Another instance on the same servers."""
    with Service(service.backend, service.settings) as running:
        yield running


@pytest.fixture(scope="module")
def past(service: Service, second: Service, standby: Standby, world: World) -> Past:
    doctor = world.account(Role.DOCTOR)[1]["id"]
    return Past(standby, service.backend, [service, second], doctor, world.other_patient)


@pytest.fixture(scope="module")
def booked(world: World) -> dict[str, Any]:
    return world.appointment()


def at(service: Service, browser: Browser) -> Browser:
    return Browser(service.url, dict(browser.cookies))


def ids(name: str) -> Callable[[Any], object]:
    return lambda page: page[name][0]["id"]


def create_chart(world: World, booked: Any) -> tuple[Browser, list[Written]]:
    before = world.staff.stats()["managedPatients"]
    made = world.staff.post("/api/patients", chart(name="Aaron Aab")).json()
    return world.staff, [
        (f"/api/patients/{made['id']}", lambda it: it["name"], "Aaron Aab"),
        ("/api/patients", lambda page: page["total"], before + 1),
        (
            "/api/patients?search=aaron",
            lambda page: made["id"] in [it["id"] for it in page["patients"]],
            True,
        ),
        ("/api/dashboard/stats", lambda stats: stats["managedPatients"], before + 1),
    ]


def change_chart(world: World, booked: Any) -> tuple[Browser, list[Written]]:
    path = f"/api/patients/{booked['patientId']}"
    assert world.doctor.patch(path, {"allergies": "Latex"}).status_code == 200
    return world.doctor, [(path, lambda it: it["allergies"], "Latex")]


def book(world: World, booked: Any) -> tuple[Browser, list[Written]]:
    before = world.staff.get("/api/appointments").json()["total"]
    date = world.slot()
    body = {"patientId": booked["patientId"], "doctorId": booked["doctorId"], "date": date, "reason": "Flu"}
    made = world.staff.post("/api/appointments", body).json()
    return world.staff, [
        (f"/api/appointments/{made['id']}", lambda it: it["reason"], "Flu"),
        ("/api/appointments", lambda page: page["total"], before + 1),
        (f"/api/appointments?date={date[:10]}&limit=100",
         lambda page: made["id"] in [it["id"] for it in page["appointments"]], True),
    ]  # fmt: skip


def change_appointment(world: World, booked: Any) -> tuple[Browser, list[Written]]:
    path = f"/api/appointments/{booked['id']}"
    assert world.doctor.patch(path, {"notes": "Bring the letter."}).status_code == 200
    return world.doctor, [(path, lambda it: it["notes"], "Bring the letter.")]


def create_record(world: World, booked: Any) -> tuple[Browser, list[Written]]:
    made = world.record(booked["patientId"])
    return world.doctor, [
        (f"/api/records/{made['id']}", lambda it: it["diagnosis"], "Well"),
        (f"/api/records?patientId={booked['patientId']}", ids("records"), made["id"]),
    ]


def change_own_name(world: World, booked: Any) -> tuple[Browser, list[Written]]:
    assert world.doctor.patch("/api/users/me", {"name": "Dora Dunn"}).status_code == 200
    return world.doctor, [
        (f"/api/doctors/{booked['doctorId']}", lambda it: it["name"], "Dora Dunn"),
        ("/api/users/me", lambda it: it["name"], "Dora Dunn"),
    ]


def create_account(world: World, booked: Any) -> tuple[Browser, list[Written]]:
    body = registration(Role.STAFF, name="Zoe Zimt")
    assert world.admin.post("/api/auth/register", body).status_code == 201
    return world.admin, [("/api/users?search=zimt", lambda page: page["total"], 1)]


WRITES = [
    create_chart,
    change_chart,
    book,
    change_appointment,
    create_record,
    change_own_name,
    create_account,
]


@pytest.mark.parametrize("write", WRITES)
def test_whoever_has_written_sees_it_at_once_on_every_instance(
    write: Callable[[World, Any], tuple[Browser, list[Written]]],
    past: Past,
    world: World,
    booked: dict[str, Any],
) -> None:
    with past():
        assert [past.is_shown(each) for each in past.services] == [False, False]
        writer, written = write(world, booked)
        for service in past.services:
            for path, look, expected in written:
                assert look(at(service, writer).get(path).json()) == expected, path
        assert [past.is_shown(each) for each in past.services] == [False, False]


def test_a_patient_whose_chart_is_unlinked_sees_nothing_at_once(past: Past, world: World) -> None:
    """Nor do they wait for a chart that is linked."""
    patient, linked = world.linked_patient()
    record = world.record(linked["id"])
    appointment = world.appointment(patientId=linked["id"])
    path = f"/api/patients/{linked['id']}"
    with past():
        assert not past.is_shown(past.services[0])
        assert world.staff.delete(f"{path}/account").status_code == 200
        for browser in (at(each, patient) for each in past.services):
            for gone in (path, f"/api/records/{record['id']}", f"/api/appointments/{appointment['id']}"):
                assert browser.get(gone).status_code == 404
            for listing in ("/api/patients", "/api/records", "/api/appointments"):
                assert browser.get(listing).json()["total"] == 0
            assert set(browser.stats().values()) == {0}
    with past():
        assert world.admin.put(f"{path}/account", {"userId": patient.me()["id"]}).status_code == 200
        for browser in (at(each, patient) for each in past.services):
            assert browser.get("/api/records").json()["total"] == 1


def test_a_disabled_doctor_and_a_changed_role_are_seen_by_everybody_at_once(past: Past, world: World) -> None:
    _, doctor = world.account(Role.DOCTOR)
    _, patient = world.account(Role.PATIENT, name="Quentin Quill")
    assert world.admin.get("/api/users?search=quill").json()["total"] == 1  # who has made the account
    with past():
        assert not past.is_shown(past.services[1])
        assert world.admin.patch(f"/api/users/{doctor['id']}", {"status": "disabled"}).status_code == 200
        for browser in (at(each, world.other_patient) for each in past.services):
            assert browser.get(f"/api/doctors/{doctor['id']}").status_code == 404
            shown = [it["id"] for it in browser.get("/api/doctors?limit=100").json()["doctors"]]
            assert doctor["id"] not in shown
    with past():
        assert world.admin.patch(f"/api/users/{patient['id']}", {"role": "staff"}).status_code == 200
        for browser in (at(each, world.staff) for each in past.services):
            assert browser.get("/api/users?search=quill").json()["total"] == 0


@pytest.mark.parametrize("wait", ["", "&wait=20", None])
def test_whoever_is_told_of_a_change_reads_it(
    past: Past, world: World, booked: dict[str, Any], wait: str | None
) -> None:
    """And what a first cursor is behind, of which nobody is told."""
    path, notes = f"/api/appointments/{booked['id']}", f"With{wait}"
    readers = [at(each, world.staff) for each in past.services]
    cursor = cursor_for(readers[0])

    def read_when_told() -> list[str]:
        if wait is None:
            cursor_for(readers[0])
        else:
            answer = readers[0].get(f"{CHANGES}?since={cursor}{wait}").json()
            assert booked["id"] in [change["id"] for change in answer["changes"]]
        return [reader.get(path).json()["notes"] for reader in readers]

    with past(), ThreadPoolExecutor(1) as pool:
        assert [past.is_shown(each) for each in past.services] == [False, False]
        assert world.doctor.patch(path, {"notes": notes}).status_code == 200
        shown = pool.submit(read_when_told)
        futures.wait([shown], timeout=2)  # in which nobody is told
        past.standby.go_on()
        assert shown.result() == [notes, notes]


def test_the_trail_is_read_on_the_primary(past: Past, world: World, booked: dict[str, Any]) -> None:
    """Each look leaves a row in it, so that it would always be behind."""
    with past():
        path = f"/api/patients/{booked['patientId']}"
        looked = world.doctor.get(path).headers["x-request-id"]
        before = answered(past.services[0])
        events = world.admin.get(f"/api/audit?patientId={booked['patientId']}").json()["events"]
        assert looked in [event["requestId"] for event in events]
        assert world.admin.get(f"{path}/accesses").json()["accesses"][0]["action"] == "audit.list"
        assert answered(past.services[0]) == before


def test_what_the_replica_does_not_find_is_looked_for_on_the_primary(past: Past, world: World) -> None:
    """Somebody else's chart of a moment ago is no 404, and no refusal in the trail."""
    with past():
        made = world.chart()
        assert not past.is_shown(past.services[0])
        assert world.doctor.get(f"/api/patients/{made['id']}").status_code == 200


def test_a_replica_that_is_late_is_not_asked(past: Past, world: World) -> None:
    past.wait_until_asked()
    past.standby.hold_replay()
    try:
        past.name = "Unseen and late"
        past.backend.sql("UPDATE users SET name = $1 WHERE id = $2", past.name, past.doctor)
        wait_until(lambda: all(map(past.is_shown, past.services)), "an answer of the primary")
    finally:
        past.standby.go_on()
    past.wait_until_asked()


def test_a_redis_that_has_forgotten_a_write_shows_it_all_the_same(
    past: Past, world: World, booked: dict[str, Any]
) -> None:
    with past():
        _, written = change_appointment(world, booked)
        with past.backend.redis as connection:
            connection.flushall()
        for service in past.services:
            for path, look, expected in written:
                assert look(at(service, world.doctor).get(path).json()) == expected


def test_without_redis_a_write_is_answered_once_the_replica_shows_it(past: Past, world: World) -> None:
    """No other instance could know of it."""
    settings = past.services[0].settings
    away = Backend(settings.database_url, "unix:///nowhere")
    with Service(away, msgspec.structs.replace(settings, redis_url=away.redis_url)) as alone:
        browser = at(alone, world.doctor)
        began_at = time.monotonic()
        assert browser.patch("/api/users/me", {"phone": "+1 555 0123"}).status_code == 200
        assert time.monotonic() - began_at < MAX_LAG_SECONDS
        past.standby.hold_replay()
        try:
            began_at = time.monotonic()
            assert browser.patch("/api/users/me", {"phone": "+1 555 0124"}).status_code == 200
            assert time.monotonic() - began_at >= MAX_LAG_SECONDS
        finally:
            past.standby.go_on()
        assert browser.get("/api/doctors").status_code == 200
        assert answered(alone) == 0


def test_a_replica_costs_no_round_trip_of_the_primary_nor_of_redis(
    past: Past, booked: dict[str, Any], world: World
) -> None:
    """A read has one command of Redis, as without; its event of the trail is the one statement on the
    primary. The position of a write is left in Redis after its answer."""
    with Tap(past.backend) as tap:
        settings = tap.backend.settings(database_read_url=past.services[0].settings.database_read_url)
        with Service(tap.backend, settings) as tapped:
            Past(past.standby, past.backend, [tapped], past.doctor, past.reader).wait_until_asked()
            doctor = at(tapped, world.doctor)

            def cost(ask: Callable[[], httpx.Response]) -> Cost:
                def once() -> Cost:
                    place, redis = len(tap.counts.asked), tap.counts.redis
                    assert ask().is_success
                    return tap.counts.since(place, redis)[0]

                return Cost(*map(min, *(once() for _ in range(3))))

            assert cost(lambda: doctor.get("/api/doctors")) == Cost(0, 0, 1)
            assert cost(lambda: doctor.get(f"/api/patients/{booked['patientId']}")) == Cost(1, 1, 1)
            assert cost(lambda: doctor.get("/api/appointments")) == Cost(1, 1, 1)
            body = {"patientId": booked["patientId"], "diagnosis": "Well", "prescription": "", "notes": ""}
            assert cost(lambda: doctor.post("/api/records", body)) == Cost(1, 1, 1)
