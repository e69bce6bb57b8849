from collections.abc import Iterator

import pytest
import redis

from tests.support.client import Browser
from tests.support.factories import World
from tests.support.service import Backend, Service


@pytest.fixture
def valkey(own_valkey: str) -> str:
    """The URL of an empty Valkey that no other module uses."""
    with redis.Redis.from_url(own_valkey) as connection:
        connection.flushall()
    return own_valkey


@pytest.fixture(scope="module")
def five_attempts(backend: Backend) -> Iterator[Service]:
    """An instance with the limit of the requirement: "5 attempts per 15 minutes per email"."""
    with Service(backend, backend.settings(login_attempts=5)) as running:
        yield running


@pytest.fixture
def door(five_attempts: Service) -> Browser:
    """A browser in which nobody has signed in yet."""
    return five_attempts.browser()


@pytest.fixture(scope="module")
def address(world: World) -> str:
    """The e-mail of an active account without failed attempts."""
    return str(world.account()[1]["email"])


@pytest.fixture(scope="module")
def two_a_minute(backend: Backend) -> Iterator[Service]:
    """An instance whose limit of requests is soon reached, and which trusts a proxy on this machine."""
    settings = backend.settings(rate_limit_per_minute=2, trusted_proxies=("127.0.0.1", "::1"))
    with Service(backend, settings) as running:
        yield running


@pytest.fixture
def new_minute(backend: Backend) -> None:
    """Nothing is counted yet."""
    with backend.redis as connection:
        for key in connection.scan_iter("requests:*"):
            connection.delete(key)
