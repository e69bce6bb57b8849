"""A Valkey that a test may stop, start and cut off; and sessions of people at a service beside it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from persistence import embedded
from tests.support.client import Browser
from tests.support.factories import PASSWORD
from tests.support.service import Service
from tests.support.tokens import claims


@dataclass
class Valkey:
    """A Valkey that a test may stop and start."""

    folder: Path
    running: embedded.EmbeddedServers

    def stop(self) -> None:
        self.running.stop()

    def start(self) -> None:
        """At the same address; it has forgotten everything."""
        address = self.running.redis_url
        self.running = embedded.start(self.folder, postgres=False)
        assert self.running.redis_url == address

    @contextmanager
    def out_of_reach(self) -> Iterator[None]:
        """It runs on and keeps its data, but every connection is closed, and none can be opened."""
        address = Path(self.running.redis_url.removeprefix("unix://"))
        aside = address.with_suffix(".aside")
        with redis.Redis.from_url(self.running.redis_url) as connection:
            connection.ping()
            address.rename(aside)
            connection.client_kill_filter(_type="normal", skipme=True)
            yield
            aside.rename(address)


def signed_in(service: Service, name: str = "patient") -> Browser:
    browser = service.browser()
    assert browser.login(f"{name}@test.example", PASSWORD).status_code == 200
    return browser


def session_of(browser: Browser) -> str:
    return str(claims(browser.cookies["access_token"])["sid"])
