"""The secret in the path of a feed: that nobody learns it or anything by guessing at it."""

import time
from hashlib import sha256

import pytest

from tests.support.client import Browser
from tests.support.factories import World
from tests.support.feeds import MINE, is_gone, subscribe
from tests.support.service import Backend, Service
from tests.support.tap import Tap


def test_an_unknown_an_ended_and_a_disabled_feed_are_answered_alike(world: World, backend: Backend) -> None:
    person, me = world.account()
    disabled = subscribe(person)
    assert world.admin.patch(f"/api/users/{me['id']}", {"status": "disabled"}).status_code == 200
    ended = subscribe(world.other_doctor)
    world.other_doctor.delete(MINE)
    unknown = ("x" * 43 + ".ics", "short.ics", "y" * 300 + ".ics", ended[-47:-4], f"{'z' * 43}.ical")
    stranger = world.service.browser()
    answers = [
        stranger.get(path) for path in (disabled, ended, *(f"/api/calendars/{one}" for one in unknown))
    ]
    assert {answer.text for answer in answers} == {'{"detail":"Calendar not found"}'}
    changing = {"x-request-id", "ratelimit-remaining", "ratelimit-reset", "date"}
    kept = [{k: v for k, v in answer.headers.items() if k not in changing} for answer in answers]
    assert all(headers == kept[0] for headers in kept)
    assert stranger.get("/api/calendars/" + "%41" * 43 + ".ics").json() == {"detail": "Not found"}


def test_it_takes_one_statement_to_find_that_there_is_no_feed(world: World, backend: Backend) -> None:
    """Unknown, ended and disabled: nobody learns by the time that it takes which of these it is."""
    person, me = world.account()
    disabled, ended = subscribe(person), subscribe(world.other_doctor)
    assert world.admin.patch(f"/api/users/{me['id']}", {"status": "disabled"}).status_code == 200
    world.other_doctor.delete(MINE)
    with Tap(backend) as tap, Service(tap.backend, tap.backend.settings()) as watched:
        stranger = watched.browser()
        for path in (disabled, ended, "/api/calendars/" + "x" * 43 + ".ics"):
            costs = []
            for _ in range(3):  # the first prepares the statement
                time.sleep(0.01)  # for what the service still does after the answer before
                place, redis = len(tap.counts.asked), tap.counts.redis
                assert is_gone(stranger, path)
                costs.append(tap.counts.since(place, redis)[0])
            assert min(costs) == (1, 1, 1), path


def test_only_a_digest_of_the_secret_is_stored(world: World, backend: Backend, anonymous: Browser) -> None:
    path = subscribe(world.doctor)
    assert not is_gone(anonymous, path)
    file = path.rpartition("/")[2]
    assert [row["digest"] for row in backend.sql("SELECT digest FROM calendar_feeds")].count(
        sha256(file.encode()).digest()
    ) == 1
    secret = file.removesuffix(".ics")
    for table in ("calendar_feeds", "audit_events", "sessions", "login_counters", "idempotency_keys"):
        stored = backend.sql(f"SELECT {table}::text AS row FROM {table}")
        assert all(secret not in row["row"] for row in stored), table
    with backend.redis as connection:
        assert all(secret not in key for key in connection.scan_iter())


def test_an_error_tells_nobody_the_secret(
    world: World, backend: Backend, anonymous: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    path = subscribe(world.doctor)
    backend.sql("ALTER TABLE calendar_feeds RENAME TO elsewhere")
    try:
        failed = anonymous.get(path, headers={"accept": "application/problem+json"})
    finally:
        backend.sql("ALTER TABLE elsewhere RENAME TO calendar_feeds")
    assert failed.status_code == 500
    logged = "\n".join(record.getMessage() for record in caplog.records if record.name != "httpx")
    assert "/api/calendars/{secret}" in logged
    for told in (failed.text, logged):
        assert path.rpartition("/")[2].removesuffix(".ics") not in told


def test_feeds_are_counted_by_address_and_apart(backend: Backend, world: World) -> None:
    """contract: "Feeds (`x-limit: feed`) are counted by address, apart from all others" """
    path = subscribe(world.doctor)
    with backend.redis as connection:
        connection.delete("requests:feed:127.0.0.1")  # what others have asked for in this minute
    with Service(backend, backend.settings(rate_limit_per_minute=3)) as strict:
        calendar = strict.browser()
        statuses = [
            calendar.get(path).status_code,
            calendar.request("HEAD", path).status_code,
            calendar.get("/api/calendars/" + "x" * 43 + ".ics").status_code,
            calendar.get(path).status_code,
        ]
        assert statuses == [200, 200, 404, 429]
        assert calendar.get(path).headers["ratelimit-limit"] == "3"
        assert calendar.post("/api/auth/register", {}).status_code == 400
        # Whoever is signed in is counted by address, too: calendars have no cookies.
        assert strict.browser(dict(world.doctor.cookies)).get(path).status_code == 429
