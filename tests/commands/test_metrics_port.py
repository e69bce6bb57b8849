"""METRICS_PORT of `serve` with two workers, and what the dashboard and the alerts ask of it."""

import re
import socket
from collections import defaultdict
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.command import Refusal, medisecure, settings_of
from tests.support.documents import ROOT
from tests.support.running import Running, free_port, serving, wait_until
from tests.support.service import Backend

pytestmark = pytest.mark.slow

TOKEN = "a-token-for-metrics-only-0123456789"
ASKED = re.compile(r"\bmedisecure_\w+")


def totals(text: str) -> dict[str, float]:
    """The sums of all samples of a name; an age is infinite where nothing has happened yet."""
    found: dict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] += sample.value
    return found


def use(running: Running, times: int) -> None:
    for _ in range(times):
        assert httpx.get(f"{running.url}/api/no-such-path").status_code == 404


def test_two_workers_are_added_up_on_a_port_of_its_own(tmp_path: Path, servers: Backend) -> None:
    port = free_port()
    settings = settings_of(servers.copy(), METRICS_PORT=str(port), METRICS_TOKEN=TOKEN)
    with serving(tmp_path, "--workers", "2", **settings) as running:
        running.wait_until_ready()
        use(running, 40)
        on_port = f"http://127.0.0.1:{port}/metrics"
        wanted = 'medisecure_requests_total{operation="unknown_path",status="4xx"} 40.0'
        assert wanted in httpx.get(on_port).text
        beside = httpx.get(f"{running.url}/metrics", headers={"authorization": f"Bearer {TOKEN}"})
        assert wanted in beside.text
        wait_until(lambda: totals(httpx.get(on_port).text)["medisecure_pool_size"] == 2 * 22, "both workers")
        wait_until(lambda: totals(httpx.get(on_port).text)["medisecure_database_up"] == 1, "an answer")
        told = set(totals(httpx.get(on_port).text))
        files = [ROOT / "deploy/alerts.yml", *(ROOT / "deploy/grafana").glob("*.json")]
        asked = {name for file in files for name in ASKED.findall(file.read_text())}
        assert asked - told == set()


def test_one_worker_tells_of_itself(tmp_path: Path, servers: Backend) -> None:
    port = free_port()
    with serving(tmp_path, **settings_of(servers.copy(), METRICS_PORT=str(port))) as running:
        running.wait_until_ready()
        use(running, 3)
        text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        assert 'medisecure_requests_total{operation="unknown_path",status="4xx"} 3.0' in text
        assert httpx.get(f"{running.url}/metrics").status_code == 404


def test_a_metrics_port_that_is_taken_is_told(servers: Backend) -> None:
    """As JSON, for whoever collects the log of `serve`."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = settings_of(servers, METRICS_PORT=str(port), LOG_FORMAT="json")
        refused = medisecure("serve", "--port", "0", **settings)
    assert refused.returncode == 1
    said = f"cannot listen on 127.0.0.1 at port {port} (Address already in use); try --host or METRICS_PORT"
    assert f'"level":"error","logger":"medisecure.start","message":"{said}"' in refused.stderr


def test_a_host_that_is_no_name_is_told(refusal: Refusal, servers: Backend) -> None:
    said = refusal("serve", "--host", "x" * 64, **settings_of(servers, METRICS_PORT=str(free_port())))
    assert said.endswith("(it is no name of a host); try --host or METRICS_PORT")
