"""`GET /api/changes` as Server-Sent Events: what a browser's EventSource reads, and goes on from."""

import logging
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import NoReturn
from urllib.parse import urlsplit

import asyncpg
import psutil
import pytest

import api.changes
from persistence import change_feed as feeds
from security.roles import Role
from tests.api.test_change_waits import feed_of, short_lived
from tests.support.factories import World
from tests.support.listening import CHANGES, EVENT_STREAM, MANY, Stream, cursor_for, entry_of
from tests.support.running import wait_until
from tests.support.service import Backend, Service


def test_a_stream_tells_each_change_as_it_comes(world: World) -> None:
    """contract: "`data` is one entry, `id` the cursor after it"."""
    with Stream(world.staff) as stream:
        assert stream.ids.get(timeout=10)  # to go on from, should the stream break at once
        for _ in range(2):
            chart = world.chart()
            event = stream.next()
            assert entry_of(event.data) == ("patient", chart["id"], "create")
            assert world.staff.get(CHANGES, params={"since": event.id}).json()["changes"] == []
        assert stream.response.headers["x-accel-buffering"] == "no"
        assert stream.response.headers["cache-control"] == "no-store"
        assert stream.response.headers["ratelimit-limit"]


def test_a_stream_is_resumed_behind_any_of_its_events(world: World, backend: Backend) -> None:
    """contract: "browsers keep it, and go on from there by themselves"."""
    old = cursor_for(world.staff)
    with Stream(world.staff, old) as stream:
        made = {str(row["id"]) for row in backend.sql(MANY, 5)}  # in one transaction
        chart = world.chart()
        events = [stream.next() for _ in range(6)]
    ids = [event.data["id"] for event in events]
    assert set(ids) == {*made, chart["id"]}
    for at in range(5):
        with Stream(world.staff, old, last=events[at].id) as stream:
            assert [stream.next().data["id"] for _ in ids[at + 1 :]] == ids[at + 1 :]
            assert at or stream.is_silent()


def test_a_stream_begins_with_what_changed_since(world: World) -> None:
    cursor = cursor_for(world.staff)
    chart = world.chart()
    with Stream(world.staff, cursor) as stream:
        assert stream.entries(1) == [("patient", chart["id"], "create")]


@pytest.mark.parametrize(
    ("accept", "is_stream"),
    [
        (EVENT_STREAM, True),
        (f"{EVENT_STREAM}, */*;q=0.1", True),
        (f"application/json, {EVENT_STREAM};q=0.5", False),
        ("*/*", False),
        ("text/*", False),
        ("application/json", False),
    ],
)
def test_only_who_asks_for_events_gets_a_stream(world: World, accept: str, is_stream: bool) -> None:
    with Stream(world.staff) as stream:
        pass
    stream.headers["accept"] = accept
    stream.connection.request("GET", CHANGES, headers=stream.headers)
    found = stream.connection.getresponse().headers["content-type"]
    stream.connection.close()
    assert found == (EVENT_STREAM if is_stream else "application/json")


@pytest.mark.parametrize("last", ["x", "0123456789ab-14-1.2"])
def test_a_malformed_last_event_id_is_refused(world: World, last: str) -> None:
    for accept in (EVENT_STREAM, "application/json"):
        refused = world.staff.get(CHANGES, headers={"accept": accept, "last-event-id": last})
        assert refused.status_code == 400
        assert refused.json() == {"detail": "Last-Event-ID: must be a cursor of this service"}


def test_two_last_event_ids_are_refused(world: World) -> None:
    cursor = cursor_for(world.staff)
    lines = (
        f"Cookie: access_token={world.staff.cookies['access_token']}\r\n" + 2 * f"Last-Event-ID: {cursor}\r\n"
    )
    answer = world.service.raw(f"GET {CHANGES} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode())
    assert b"Last-Event-ID: may be given only once" in answer


def test_a_stale_last_event_id_is_refused_before_the_stream(world: World) -> None:
    """contract: "with a lapsed cookie that is 401"."""
    _, xmax, _ = cursor_for(world.staff).split("-")
    with Stream(world.staff, last=f"0123456789ab-{xmax}-") as stream:
        assert stream.response.status == 400
        assert b"Last-Event-ID: is of another database" in stream.response.read()


def listening(service: Service) -> Callable[[], int]:
    return lambda: len(feed_of(service).listeners)


def test_a_stream_ends_with_the_session_the_role_and_the_token(world: World) -> None:
    """contract: "when the session ends or the role changes (5 seconds at most)"."""
    leaver, _ = world.account()
    promoted, promoted_me = world.account(Role.STAFF)
    short, _ = world.account()
    with Stream(leaver) as first, Stream(promoted) as second, Stream(short_lived(short, 3)) as third:
        for stream in (first, second, third):
            assert stream.ids.get(timeout=10)
        assert leaver.post("/api/auth/logout").status_code == 200
        changed = world.admin.patch(f"/api/users/{promoted_me['id']}", {"role": "patient"})
        assert changed.status_code == 200
        for stream in (first, second, third):
            assert stream.ended.wait(10)


def test_streams_end_when_the_service_stops(backend: Backend, world: World) -> None:
    """contract: "A stream ends when the service stops"."""
    settings = backend.settings(drain_seconds=30)
    with Service(backend, settings) as at, Stream(at.browser(world.staff.cookies)) as stream:
        assert stream.ids.get(timeout=10)
        at.server.drain()
        assert stream.ended.wait(5)


def test_whoever_is_gone_is_forgotten(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.changes, "HEARTBEAT_SECONDS", 0.2)
    before = listening(world.service)()
    with Stream(world.staff) as stream:
        ids = [stream.ids.get(timeout=10) for _ in range(3)]  # without any change
        assert len({cursor.split("-")[0] for cursor in ids}) == 1
        assert listening(world.service)() > before
    wait_until(lambda: listening(world.service)() <= before, "the end of the listener")


@pytest.mark.slow
def test_a_thousand_who_listen_cost_no_connection_and_little_memory(world: World, backend: Backend) -> None:
    """contract: "Waiting costs nobody a statement"."""
    process = psutil.Process()  # which both sides of each connection are in
    before, listeners = process.memory_info().rss, listening(world.service)
    host = urlsplit(world.service.url)
    with ExitStack() as stack:
        for number in range(1000):
            token = world.people[("admin", "doctor", "staff", "patient")[number % 4]].cookies["access_token"]
            client = stack.enter_context(socket.create_connection((host.hostname, host.port)))
            head = f"GET {CHANGES} HTTP/1.1\r\nHost: localhost\r\nAccept: {EVENT_STREAM}\r\n"
            client.sendall(f"{head}Cookie: access_token={token}\r\n\r\n".encode())
        wait_until(lambda: listeners() >= 1000, "the listeners")
        busy = backend.sql("SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database()")
        assert busy[0]["n"] < 30  # as many as without them
        assert process.memory_info().rss - before < 100_000_000
    wait_until(lambda: listeners() < 1000, "their end")


def test_a_stream_ends_where_it_cannot_go_on(
    world: World, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it lacks is kept nowhere any more: the client is told when it connects again."""
    monkeypatch.setattr(feeds, "MAX_KEPT", 3)
    with Stream(world.staff) as stream:
        cursor = stream.ids.get(timeout=10)
        purged = "UPDATE change_horizon SET from_xid = pg_current_xact_id()::text::bigint + 1"
        backend.sql(f"WITH gone AS ({purged}) {MANY}", 5)
        assert stream.ended.wait(10)
    refused = world.staff.get(CHANGES, params={"since": cursor})
    backend.sql("UPDATE change_horizon SET from_xid = 0")
    assert refused.status_code == 400


def test_a_stream_ends_where_its_connection_has_died(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In order: a browser connects again at once, and nothing of ours has failed."""

    async def fail(*_: object) -> NoReturn:
        raise asyncpg.InterfaceError("cannot call Connection.fetch(): connection is gone")

    with Stream(world.staff) as stream:
        assert stream.ids.get(timeout=10)
        monkeypatch.setattr(feed_of(world.service), "news", fail)
        world.chart()
        assert stream.ended.wait(10)
    assert not [entry for entry in caplog.records if entry.levelno >= logging.ERROR]
