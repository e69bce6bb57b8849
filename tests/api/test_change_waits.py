"""`GET /api/changes?wait=`: an answer as soon as anything has changed; and nobody waits on who may not."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta

import httpx
import pytest

from persistence import change_feed as feeds
from persistence.change_feed import ChangeFeed
from security.roles import Caller, Role
from security.tokens import TokenIssuer
from tests.support.client import Browser
from tests.support.factories import World
from tests.support.listening import CHANGES, MANY, cursor_for, entry_of, told
from tests.support.running import wait_until
from tests.support.service import KEY, Backend, Service

ADMITTED_FOR = 5.0  # seconds, for which nobody waits on who may not


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(40) as pool:
        yield pool


def feed_of(service: Service) -> ChangeFeed:
    feed: ChangeFeed = service.app.dependencies["change_feed"].dependency()  # type: ignore[union-attr]  # a Provide
    return feed


@pytest.fixture
def waiting(service: Service, pool: ThreadPoolExecutor) -> Callable[..., "Future[httpx.Response]"]:
    """A request that waits, once it does so and was looked up by a poll."""

    def wait(
        browser: Browser, cursor: str, seconds: int = 25, at: Service = service
    ) -> "Future[httpx.Response]":
        feed = feed_of(at)
        before = len(feed.listeners)
        answer = pool.submit(browser.get, f"{CHANGES}?since={cursor}&wait={seconds}")
        wait_until(lambda: len(feed.listeners) > before, "the listener")
        return answer

    return wait


Wait = Callable[..., "Future[httpx.Response]"]


def test_whoever_waits_is_told_within_three_seconds(world: World, waiting: Wait) -> None:
    """contract: "An entry comes\nwithin three seconds"."""
    cursor = cursor_for(world.staff)
    heard = [waiting(person, cursor) for person in (world.staff, world.admin, world.doctor)]
    silent = waiting(world.patient, cursor, 4)
    began = time.monotonic()
    chart = world.chart()
    for answer in heard:
        body = answer.result(timeout=10).json()
        assert [entry_of(change) for change in body["changes"]] == [("patient", chart["id"], "create")]
        assert told(world.staff, body["cursor"]) == []
    assert time.monotonic() - began < 10  # three, on a machine that does nothing else
    assert silent.result().json()["changes"] == []


def test_whoever_waits_for_nothing_gets_an_empty_answer(world: World) -> None:
    cursor = cursor_for(world.patient)
    began = time.monotonic()
    assert told(world.patient, cursor, wait=1) == []
    assert time.monotonic() - began >= 1


def test_what_had_changed_before_is_told_at_once(world: World) -> None:
    """Out of what the process keeps, too: the second waits no more than the first."""
    cursor = cursor_for(world.staff)
    chart = world.chart()
    with_news = [("patient", chart["id"], "create")]
    assert told(world.staff, cursor, wait=25) == with_news
    assert told(world.admin, cursor, wait=25) == with_news


def test_twenty_who_wait_share_the_statements_of_one(world: World, backend: Backend, waiting: Wait) -> None:
    """contract: "Each connection\n      counts as one request"."""
    cursor = cursor_for(world.staff)
    answers = [waiting(world.people["staff" if number % 2 else "admin"], cursor) for number in range(20)]
    busy = backend.sql("SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database()")
    assert busy[0]["n"] < 20
    chart = world.chart()
    for answer in answers:
        assert [change["id"] for change in answer.result(timeout=10).json()["changes"]] == [chart["id"]]


def test_a_listener_hears_each_change_once_while_many_write(world: World, pool: ThreadPoolExecutor) -> None:
    """contract: "each exactly once"."""
    cursor = cursor_for(world.admin)
    heard: list[str] = []
    done = threading.Event()

    def listen() -> None:
        nonlocal cursor
        while True:
            is_last = done.is_set()
            answer = world.admin.get(f"{CHANGES}?since={cursor}&wait=2").json()
            cursor = answer["cursor"]
            heard.extend(change["id"] for change in answer["changes"])
            if is_last and not answer["changes"]:
                return

    listener = pool.submit(listen)
    made = [chart["id"] for chart in pool.map(lambda _: world.chart(), range(60))]
    done.set()
    listener.result(timeout=60)
    assert sorted(heard) == sorted(made)


def ends_within(answer: "Future[httpx.Response]") -> httpx.Response:
    began = time.monotonic()
    response = answer.result(timeout=30)
    assert time.monotonic() - began < ADMITTED_FOR + 5  # five, on a machine that does nothing else
    return response


def test_a_wait_ends_with_the_session(world: World, waiting: Wait) -> None:
    """contract: "when the session ends or the role changes"."""
    browser, _ = world.account()
    answer = waiting(browser, cursor_for(browser))
    assert world.service.browser(browser.cookies).post("/api/auth/logout").status_code == 200
    assert ends_within(answer).status_code == 401


def test_a_wait_ends_with_the_role(world: World, waiting: Wait) -> None:
    browser, me = world.account(Role.STAFF)
    answer = waiting(browser, cursor_for(browser))
    assert world.admin.patch(f"/api/users/{me['id']}", {"role": "patient"}).status_code == 200
    assert ends_within(answer).status_code == 401


def short_lived(browser: Browser, seconds: int) -> Browser:
    """The same session, with an access token that expires soon."""
    session = browser.get("/api/users/me/sessions").json()["sessions"][0]["id"]
    me = browser.me()
    holder = Caller(id=me["id"], email=me["email"], role=Role(me["role"]), session_id=session)
    token = TokenIssuer(KEY, "HS256", timedelta(seconds=seconds)).issue_access(holder)
    return Browser(browser.base_url, {"access_token": token})


def test_a_wait_ends_when_the_token_expires(world: World, waiting: Wait) -> None:
    """contract: "when the access token expires"."""
    browser, _ = world.account()
    cursor = cursor_for(browser)
    answer = waiting(short_lived(browser, 3), cursor)
    assert (
        ends_within(answer).json() == {"changes": [], "cursor": cursor} or answer.result().status_code == 200
    )
    assert short_lived(browser, -1).get(CHANGES).status_code == 401


def test_a_wait_ends_when_the_service_stops(backend: Backend, world: World, waiting: Wait) -> None:
    """contract: "A stream ends when the service stops"."""
    with Service(backend, backend.settings(drain_seconds=30)) as draining:
        browser = draining.browser(world.staff.cookies)
        answer = waiting(browser, cursor_for(browser), at=draining)
        draining.server.drain()
        assert ends_within(answer).json()["changes"] == []


def test_a_wait_ends_where_nobody_can_say_who_is_signed_in(
    world: World, waiting: Wait, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Polls that fail for long are as good as an end: the next request asks."""
    monkeypatch.setattr(feeds, "UNCHECKED_SECONDS", 1.5)
    answer = waiting(world.staff, cursor_for(world.staff))
    backend.sql("ALTER TABLE changes RENAME TO hidden")
    try:
        assert ends_within(answer).status_code in {200, 500, 503}
    finally:
        backend.sql("ALTER TABLE hidden RENAME TO changes")
    monkeypatch.undo()
    assert told(world.staff, cursor_for(world.staff), wait=1) == []  # it goes on


def test_what_is_too_much_to_be_kept_is_read_from_the_table(
    world: World, waiting: Wait, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "MAX_KEPT", 3)
    cursor = cursor_for(world.staff)
    answer = waiting(world.staff, cursor)
    made = {str(row["id"]) for row in backend.sql(MANY, 9)}
    assert {change["id"] for change in answer.result(timeout=10).json()["changes"]} == made
    for _ in range(3):  # and what is kept is not more than that
        cursor = cursor_for(world.staff)
        answer = waiting(world.staff, cursor)
        made = {world.chart()["id"]}
        assert {change["id"] for change in answer.result(timeout=10).json()["changes"]} == made
    assert sum(batch.size for batch in feed_of(world.service).batches) <= 3


def test_a_patient_who_waits_is_told_of_a_chart_that_they_get_meanwhile(world: World, waiting: Wait) -> None:
    browser, _ = world.account()
    answer = waiting(browser, cursor_for(browser))
    chart = world.chart()
    world.link(chart["id"], browser)
    body = answer.result(timeout=10).json()
    heard = [entry_of(change) for change in body["changes"]]
    created = [("patient", chart["id"], "create")]  # told as well, where it is told with the link
    assert heard in ([("patient", chart["id"], "update")], [*created, ("patient", chart["id"], "update")])
    answer = waiting(browser, body["cursor"])
    record = world.record(chart["id"])
    [change] = answer.result(timeout=10).json()["changes"]
    assert entry_of(change) == ("record", record["id"], "create")


def test_a_long_answer_out_of_what_is_kept_is_cut_too(
    world: World, waiting: Wait, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.changes.MAX_CHANGES", 2)
    first, last = cursor_for(world.staff), waiting(world.staff, cursor_for(world.staff))
    made = [str(row["id"]) for row in backend.sql(MANY, 5)]
    last.result(timeout=10)
    cursor, sizes, heard = first, [], []
    for _ in range(4):
        body = world.staff.get(f"{CHANGES}?since={cursor}&wait=1").json()
        cursor = body["cursor"]
        sizes.append(len(body["changes"]))
        heard += [change["id"] for change in body["changes"]]
    assert sizes == [2, 2, 1, 0]
    assert sorted(heard) == sorted(made)
