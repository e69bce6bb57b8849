"""How `medisecure serve` ends: on SIGTERM (DRAIN_SECONDS), and without the parent of its workers."""

import signal
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.command import settings_of
from tests.support.running import Running, is_running, serving, wait_until
from tests.support.service import Backend

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def backend(servers: Backend) -> Backend:
    return servers.copy()


def workers_of(production: Running) -> list[psutil.Process]:
    return [child for child in production.children() if "spawn_main" in " ".join(child.cmdline())]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_serve_says_that_it_is_not_ready_before_it_listens_no_more(
    tmp_path: Path, backend: Backend, workers: str
) -> None:
    """contract: "readiness is 503 with `draining` at once, in every worker"."""
    settings = settings_of(backend, DRAIN_SECONDS="3600")
    with (
        serving(tmp_path, "--workers", workers, **settings) as production,
        httpx.Client(base_url=production.url) as client,
    ):
        production.wait_until_ready()
        processes = production.children()
        production.process.send_signal(signal.SIGTERM)
        wait_until(lambda: client.get("/health/ready").status_code == 503, "draining")
        for _ in range(20):  # on new connections, which fall to either worker
            answer = client.get("/health/ready")
            assert (answer.status_code, answer.json()) == (503, {"detail": "draining"})
            assert answer.headers["connection"] == "close"
        production.stop(signal.SIGINT)
        wait_until(lambda: not any(map(is_running, processes)), "the end of the workers")
        assert "Traceback" not in production.printed()


def test_workers_end_when_their_parent_is_killed(tmp_path: Path, backend: Backend) -> None:
    settings = settings_of(backend, DRAIN_SECONDS="3600")
    with serving(tmp_path, "--workers", "2", **settings) as production:
        production.wait_until_ready()
        children = production.children()
        assert len(workers_of(production)) == 2
        production.process.kill()
        production.process.wait()
        wait_until(lambda: not any(map(is_running, children)), "the end of the workers")
        with pytest.raises(httpx.ConnectError):
            httpx.get(production.url)


def test_a_worker_that_is_still_starting_ends_when_its_parent_is_killed(
    tmp_path: Path, backend: Backend
) -> None:
    with serving(tmp_path, "--workers", "2", **settings_of(backend)) as production:
        wait_until(lambda: len(workers_of(production)) == 2, "two workers")
        children = production.children()
        production.process.kill()
        production.process.wait()
        wait_until(lambda: not any(map(is_running, children)), "the end of the workers")
