"""Who listens for changes hears of each once, whatever is killed amid the writes and amid the answers."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from random import Random, sample

import pytest

from tests.reliability.chaos_faults import Instance
from tests.reliability.conftest import Clinic
from tests.reliability.listeners import (
    MADE,
    Audience,
    Entry,
    Listener,
    Place,
    Poller,
    Stream,
    following,
)
from tests.reliability.load import HEALING_SECONDS, SLACK, Load, require_kept
from tests.support.client import Browser
from tests.support.command import settings_of
from tests.support.factories import chart
from tests.support.listening import CHANGES, cursor_for, entry_of
from tests.support.running import wait_until

INSTANCE_KILLS = 4
POSTGRESQL_AWAY_SECONDS = (0.0, 5.0, 0.0)  # each time that it is killed; after four, who waits is sent away
ASKED_AGAIN = 40  # of the cursors that a listener got
# Transactions that write nothing.
TAKE_NUMBERS = "DO $$ BEGIN FOR n IN 1..4 LOOP PERFORM pg_current_xact_id(); ROLLBACK; END LOOP; END $$"
HEARD_BY = {"staff": ("add_chart", "book"), "doctor": ("add_chart", "book", "add_record")}
chance = Random()  # noqa: S311  # moments


@pytest.fixture
def instances(clinic: Clinic) -> Iterator[Sequence[Instance]]:
    """At addresses that stay."""
    settings = settings_of(clinic.backend, RATE_LIMIT_PER_MINUTE="1000000")
    made = [Instance(clinic.folder, settings, workers=1) for _ in range(2)]
    with ExitStack() as cleanup:
        for instance in made:
            cleanup.callback(instance.kill)
            instance.start()
        yield made


@contextmanager
def audience(clinic: Clinic, *urls: str) -> Iterator[Audience]:
    """A stream for the staff, and a doctor who asks."""
    cookies = clinic.filled.cookies
    stream, poller = Stream(urls, cookies["staff"]), Poller(urls, cookies["doctor"])
    with following(clinic.postgres.sql, stream, poller) as following_all:
        yield following_all


def require_told(audience: Audience, load: Load) -> None:
    """Each row of `changes` once, and with it whatever was acknowledged."""
    for name, figures in audience.figures():
        print(f"{name}: {figures}")
    assert list(audience.problems()) == []
    served = [each for each in load.attempts if each.is_served]
    for listener in audience.listeners:
        heard = [each.entry for each in listener.heard]
        kinds = HEARD_BY[listener.me["role"]]
        assert {(MADE[each.kind], each.made, "create") for each in served if each.kind in kinds} <= set(heard)
        changed = sum(each.kind == "change_chart" for each in served)
        unknown = sum(each.kind == "change_chart" and not each.is_served for each in load.attempts)
        assert changed <= heard.count(("patient", load.patient_id, "update")) <= changed + unknown


def test_listeners_hear_of_each_change_once_where_instances_are_killed(
    clinic: Clinic, instances: Sequence[Instance]
) -> None:
    """contract: "each exactly once, in whatever order they were committed"."""
    urls = [instance.url for instance in instances]
    with audience(clinic, *urls) as listening:
        with clinic.load(*urls) as load:
            for number in range(INSTANCE_KILLS):
                time.sleep(chance.uniform(0.2, 1.5))
                instances[number % 2].kill()
                instances[number % 2].start()
            load.until_served()
        listening.settle()
        require_told(listening, load)
        assert all(listener.ends for listener in listening.listeners)
    require_kept(load, clinic.postgres)


def test_listeners_hear_of_each_change_once_where_postgresql_is_killed(clinic: Clinic) -> None:
    """And whoever asks again with a cursor from before hears all that came after it."""
    last_before: list[list[Place]] = []
    with clinic.serving() as service, audience(clinic, service.url) as listening:
        with clinic.load(service) as load:
            for away in POSTGRESQL_AWAY_SECONDS:
                time.sleep(chance.uniform(0.2, 1.5))
                clinic.postgres.kill()
                last_before.append([listener.places[-1] for listener in listening.listeners])
                time.sleep(away)
                clinic.postgres.start()
                assert load.until_served() < SLACK * HEALING_SECONDS
        listening.settle()
        require_told(listening, load)
        for listener, *before in zip(listening.listeners, *last_before, strict=True):
            others = sample(listener.places, min(ASKED_AGAIN, len(listener.places)))
            require_whole(service.url, listener, [*before, *others])
    require_kept(load, clinic.postgres)


def require_whole(url: str, listener: Listener, places: Sequence[Place]) -> None:
    """Whoever asks again at one of these places hears what the listener did."""
    for place in places:
        told = told_since(Browser(url, dict(listener.cookies)), place.cursor)
        assert sorted(told) == sorted(each.entry for each in listener.heard[place.heard :])


def told_since(browser: Browser, cursor: str) -> list[Entry]:
    """All of it, however many answers that takes."""
    all_told: list[Entry] = []
    while True:
        answer = browser.get(CHANGES, params={"since": cursor})
        assert answer.status_code == 200, answer.text
        if not answer.json()["changes"]:
            return all_told
        all_told += [entry_of(change) for change in answer.json()["changes"]]
        cursor = answer.json()["cursor"]


def test_numbers_of_transactions_that_come_again_after_a_crash_are_told(clinic: Clinic) -> None:
    """contract: "PostgreSQL gives the numbers of transactions again that had begun and left nothing"."""
    clinic.postgres.set("wal_writer_delay", "'10s'")
    with clinic.serving() as service, audience(clinic, service.url) as listening:
        staff = Browser(service.url, dict(clinic.filled.cookies["staff"]))
        clinic.postgres.sql(TAKE_NUMBERS)
        before, cursor = newest_number(clinic), cursor_for(staff)
        time.sleep(1.5)  # for a poll
        clinic.postgres.kill()
        clinic.postgres.start()
        wait_until(lambda: service.answers("/health/ready"), "readiness")
        print(f"{before - newest_number(clinic)} numbers come again")
        made = [("patient", staff.post("/api/patients", chart()).json()["id"], "create") for _ in range(8)]
        listening.settle()
        assert told_since(staff, cursor) == made
        assert list(listening.problems()) == []


def newest_number(clinic: Clinic) -> int:
    sql = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS xmax"
    return int(clinic.postgres.sql(sql)[0]["xmax"])
