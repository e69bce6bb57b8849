"""A clinic that has a replica, on which what is shown is as old as a test wants."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

from persistence.postgres.replica import MAX_LAG_SECONDS, Replica
from tests.reliability.servers import Standby
from tests.support.client import Browser
from tests.support.running import wait_until
from tests.support.service import Backend, Service

names = count()
PATIENCE_SECONDS = 60.0  # that the tests take at most while the replica is held up


def url_of(standby: Standby, backend: Backend) -> str:
    """The backend's database on the replica."""
    return standby.url.replace("/medisecure", "/" + backend.database_url.partition("?")[0].rpartition("/")[2])


def replica_of(service: Service) -> Replica:
    replica: Replica = service.app.state.services[Replica]
    return replica


def answered(service: Service) -> int:
    """How many reads the replica has answered since the instance started."""
    return replica_of(service).answered


@dataclass
class Past:
    """The replica shows the past from `with` until its end, and may be so late. `doctor`: an account whose
    name is changed in the primary by hand, of which no instance knows."""

    standby: Standby
    backend: Backend
    services: list[Service]
    doctor: str
    reader: Browser  # of somebody who has not written

    @contextmanager
    def __call__(self) -> Iterator[None]:
        for service in self.services:
            replica_of(service).max_lag = PATIENCE_SECONDS
        self.wait_until_asked()
        self.standby.hold_replay()
        self.name = f"Unseen {next(names)}"
        self.backend.sql("UPDATE users SET name = $1 WHERE id = $2", self.name, self.doctor)
        try:
            yield
        finally:
            self.standby.go_on()
            for service in self.services:
                replica_of(service).max_lag = MAX_LAG_SECONDS

    def is_shown(self, service: Service) -> bool:
        """Whether this instance shows what the replica has not replayed."""
        browser = Browser(service.url, dict(self.reader.cookies))
        return bool(browser.get(f"/api/doctors/{self.doctor}").json()["name"] == self.name)

    def wait_until_asked(self) -> None:
        for service in self.services:
            browser = Browser(service.url, dict(self.reader.cookies))

            def is_asked(service: Service = service, browser: Browser = browser) -> bool:
                before = answered(service)
                assert browser.get("/api/doctors").status_code == 200
                return answered(service) > before

            wait_until(is_asked, "an answer of the replica")
