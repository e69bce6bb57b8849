"""PostgreSQL takes connections and does not answer, is slow, or cannot be reached and nobody says so."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.reliability.conftest import Clinic
from tests.reliability.load import HEALING_SECONDS, MAX_ANSWER_SECONDS, SLACK, Load, require_kept
from tests.support.relay import line_to
from tests.support.running import wait_until


@contextmanager
def hung(load: Load) -> Iterator[None]:
    """A hang that ends once each client has got an answer during it: a 503."""
    began = time.monotonic()
    yield
    clients = len(load.threads)

    def refused() -> set[str]:
        return {each.kind for each in load.since(began) if each.status == 503}

    wait_until(lambda: len(refused()) == clients, "answers")
    assert time.monotonic() - began < SLACK * MAX_ANSWER_SECONDS


def test_a_postgresql_that_hangs_costs_nobody_more_than_ten_seconds(clinic: Clinic) -> None:
    with clinic.serving() as service, clinic.load(service) as load:
        with hung(load):
            clinic.postgres.pause()
        assert not service.answers("/health/ready")
        clinic.postgres.resume()
        assert load.until_served() < SLACK * HEALING_SECONDS
    require_kept(load, clinic.postgres)


def test_a_dead_line_to_postgresql_is_noticed_and_a_new_one_is_used(clinic: Clinic) -> None:
    with line_to(clinic.postgres.place) as line:
        far = {"DATABASE_URL": clinic.postgres.url_at(line.relay.port)}
        with clinic.serving(**far) as service, clinic.load(service) as load:
            with hung(load):
                line.relay.is_dead = True
            line.relay.is_dead = False
            assert load.until_served() < SLACK * HEALING_SECONDS
            line.do(lambda relay: relay.hold())  # the connections that are there stay silent for ever
            assert load.until_served() < SLACK * HEALING_SECONDS
            line.do(lambda relay: relay.cut(after=7))  # in the middle of an answer
            assert load.until_served() < SLACK * HEALING_SECONDS
            line.relay.delay = 0.3  # for each answer, of which a booking needs some
            assert load.until_served() < SLACK * HEALING_SECONDS
    require_kept(load, clinic.postgres)
