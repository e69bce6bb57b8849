"""`serve` while PostgreSQL and Redis cannot be reached: it answers, is not ready, and makes its checks once
they are there."""

import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from persistence import embedded
from tests.support.command import medisecure, settings_of
from tests.support.factories import PASSWORD, registration
from tests.support.running import is_running, serving, wait_until
from tests.support.service import Backend

pytestmark = pytest.mark.slow


@pytest.fixture
def stopped() -> Iterator[tuple[Path, Backend]]:
    """A data folder with a migrated database, whose servers are stopped, and where they will be when they
    run. Its path is short, so that the sockets are in it."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"), "data")
    with embedded.start(folder) as servers:
        backend = Backend(servers.database_url, servers.redis_url)
        assert medisecure("migrate", DATABASE_URL=backend.database_url).returncode == 0
    yield folder, backend
    embedded.discard(folder)
    shutil.rmtree(folder.parent)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_serve_waits_for_servers_that_cannot_be_reached(
    stopped: tuple[Path, Backend], tmp_path: Path, workers: str
) -> None:
    folder, backend = stopped
    settings = settings_of(backend, CORS_ORIGIN="https://clinic.example")  # misspelt
    with serving(tmp_path, "--workers", workers, **settings) as running:
        running.wait_until_alive()
        assert "CORS_ORIGIN is no setting; perhaps CORS_ORIGINS is meant" in running.printed()
        assert not running.answers("/health/ready")
        time.sleep(2)  # tries pass, and say nothing more
        lines = [line for line in running.printed().splitlines() if "Waiting for it" in line]
        assert len(lines) == 1
        assert "PostgreSQL cannot be reached: " in lines[0]
        assert "Redis cannot be reached: " in lines[0]
        with embedded.start(folder):
            running.wait_until_ready()
            person = registration()
            assert running.browser().post("/api/auth/register", person).status_code == 201
            assert running.browser(person["email"], PASSWORD).me()["email"] == person["email"]
            assert running.stop(signal.SIGTERM) in {0, -signal.SIGTERM}


def test_people_sign_in_at_a_service_that_starts_without_redis(
    stopped: tuple[Path, Backend], tmp_path: Path
) -> None:
    folder, backend = stopped
    with (
        embedded.start(folder, redis=False),
        serving(tmp_path, **settings_of(backend, LOGIN_ATTEMPTS="2", RATE_LIMIT_PER_MINUTE="20")) as running,
    ):
        running.wait_until_ready()
        assert running.browser().get("/health/ready").json()["degraded"] == ["redis_away"]
        assert "Waiting for it; people can sign in and work meanwhile" in running.printed()
        person = registration()
        assert running.browser().post("/api/auth/register", person).status_code == 201
        browser = running.browser(person["email"], PASSWORD)
        assert Counter(browser.get("/api/users/me").status_code for _ in range(25)) == {200: 20, 429: 5}
        guesses = [running.browser().login(person["email"], "not it").status_code for _ in range(3)]
        assert guesses == [401, 401, 429]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_check_that_fails_after_the_wait_ends_the_service(
    stopped: tuple[Path, Backend], tmp_path: Path, workers: str
) -> None:
    folder, backend = stopped
    with embedded.start(folder):
        loaded = medisecure("load-demo", "--yes-known-passwords", DATABASE_URL=backend.database_url)
        assert loaded.returncode == 0, loaded.stderr
    with serving(tmp_path, "--workers", workers, **settings_of(backend)) as running:
        running.wait_until_alive()
        processes = running.children()
        with embedded.start(folder):
            assert running.process.wait(60) == 1
        last = running.printed().splitlines()[-1]
        assert last.startswith("medisecure: everyone knows the password of admin@example.com")
        wait_until(lambda: not any(map(is_running, processes)), "the end of the workers")
