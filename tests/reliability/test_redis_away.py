"""Redis dies, hangs or forgets, under sign-ins and requests of two instances: people come, work on and go,
and whoever does that to Redis gains no guess."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.reliability.conftest import Clinic
from tests.reliability.load import SLACK, require_kept
from tests.reliability.servers import Server
from tests.reliability.sign_ins import (
    ATTEMPTS,
    require_agreement,
    require_no_guess_gained,
    require_people_come_and_go,
)
from tests.support.client import Browser

NOTICING_SECONDS = 2  # that Redis is away
LIMITS = {"LOGIN_ATTEMPTS": str(ATTEMPTS)}


@contextmanager
def killed(valkey: Server) -> Iterator[None]:
    valkey.kill()
    yield
    valkey.start()


@contextmanager
def hung(valkey: Server) -> Iterator[None]:
    valkey.pause()
    yield
    valkey.resume()


@pytest.mark.parametrize("lost", [killed, hung])
def test_people_work_on_and_no_guess_is_gained_while_redis_is_away(
    clinic: Clinic, lost: Callable[[Server], AbstractContextManager[None]]
) -> None:
    with (
        clinic.serving(**LIMITS) as one,
        clinic.serving(**LIMITS) as two,
        clinic.load(one, two) as load,
    ):
        instances = (one, two)
        with lost(clinic.valkey):
            assert load.until_served() < SLACK * NOTICING_SECONDS
            noticed = time.monotonic()
            locked = require_no_guess_gained(clinic, instances)
            require_people_come_and_go(instances)
            for each in instances:
                assert Browser(each.url).get("/health/ready").json()["degraded"] == ["redis_away"]
            unserved = [each for each in load.since(noticed) if not each.is_served]
        assert load.until_served() < SLACK * NOTICING_SECONDS
        require_agreement(clinic, instances, locked)
        require_people_come_and_go(instances)
    require_kept(load, clinic.postgres)
    assert not unserved, "who had noticed waits for no Redis"


def test_no_guess_is_gained_and_no_session_comes_back_where_redis_forgets(clinic: Clinic) -> None:
    over = threading.Event()

    def forget() -> None:
        with clinic.backend.redis as connection:
            while not over.wait(0.01):
                connection.flushall()

    with clinic.serving(**LIMITS) as one, clinic.serving(**LIMITS) as two, clinic.load(one, two) as load:
        forgetting = threading.Thread(target=forget)
        forgetting.start()
        try:
            locked = require_no_guess_gained(clinic, (one, two))
            require_people_come_and_go((one, two))
        finally:
            over.set()
            forgetting.join()
        require_agreement(clinic, (one, two), locked)
    require_kept(load, clinic.postgres)
    assert not [each for each in load.attempts if not each.is_served]
