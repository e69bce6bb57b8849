"""What Prometheus reads (contract, "Metrics: counted": "Labels are of closed sets")."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from api.app import cancel, gauges_of
from api.http import gauges, metrics
from api.http.observation import Outlets
from api.parts import Parts
from tests.support.factories import World
from tests.support.running import wait_until
from tests.support.service import Backend, Service

TOKEN = "a-token-for-metrics-only-0123456789"
BEARER = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def service(backend: Backend) -> Iterator[Service]:
    with Service(backend, backend.settings(metrics_token=TOKEN)) as running:
        yield running


def samples(service: Service) -> list[Sample]:
    answer = httpx.get(f"{service.url}/metrics", headers=BEARER)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]


def value(service: Service, name: str, **labels: str) -> float | None:
    found = [each.value for each in samples(service) if each.name == name and each.labels == labels]
    return found[0] if found else None


def test_requests_are_counted_by_operation_and_class_of_status(world: World, service: Service) -> None:
    name, wanted = "medisecure_requests_total", {"operation": "listPatients", "status": "2xx"}
    before = value(service, name, **wanted) or 0
    for _ in range(3):
        world.staff.get("/api/patients")
    world.staff.get("/api/patients?page=0")
    assert value(service, name, **wanted) == before + 3
    assert value(service, name, operation="listPatients", status="4xx") == 1
    seconds = "medisecure_request_duration_seconds"
    assert value(service, f"{seconds}_count", operation="listPatients") == before + 4
    assert (value(service, f"{seconds}_sum", operation="listPatients") or 0) > 0


def test_sign_ins_are_counted_by_their_outcome(world: World, service: Service) -> None:
    def count() -> list[float | None]:
        return [value(service, "medisecure_sign_ins_total", outcome=each) for each in ("wrong", "success")]

    before = count()
    assert service.browser().login("nobody@example.com", "wrong").status_code == 401
    assert count() == [(before[0] or 0) + 1, before[1]]


def test_labels_are_of_closed_sets(service: Service) -> None:
    """Whatever somebody asks for, it makes no new series."""
    httpx.get(f"{service.url}/api/no-such-path")
    httpx.request("BREW", f"{service.url}/api/patients")
    before = {(each.name, *each.labels.items()) for each in samples(service)}
    for number in range(5):
        httpx.get(f"{service.url}/api/no-such-path-{number}")
        httpx.request(f"BREW{number}", f"{service.url}/api/patients")
    assert {(each.name, *each.labels.items()) for each in samples(service)} == before


def test_the_state_of_the_service_is_told(service: Service) -> None:
    wait_until(lambda: value(service, "medisecure_database_up") == 1, "an answer of PostgreSQL")
    assert value(service, "medisecure_redis_up") == 1
    assert value(service, "medisecure_pool_size", pool="reads") == 10
    assert value(service, "medisecure_requests_in_flight") is not None
    assert value(service, "medisecure_hashing_queue") == 0
    assert (value(service, "medisecure_hashing_queue_size") or 0) > 60
    assert value(service, "medisecure_limiter_fallbacks_total") == 0
    assert value(service, "medisecure_unsealed_events") is not None


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": TOKEN}])
def test_metrics_need_the_token(service: Service, headers: dict[str, str]) -> None:
    answer = httpx.get(f"{service.url}/metrics", headers=headers)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="metrics"')
    assert answer.json() == {"detail": "METRICS_TOKEN is needed, as a bearer token"}
    twice = [("authorization", f"Bearer {TOKEN}")] * 2
    assert httpx.get(f"{service.url}/metrics", headers=twice).status_code == 401


def test_metrics_are_only_read(service: Service) -> None:
    answer = httpx.post(f"{service.url}/metrics", headers=BEARER)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")


def test_without_a_token_there_is_no_such_path(backend: Backend) -> None:
    with Service(backend, backend.settings()) as service:
        assert httpx.get(f"{service.url}/metrics", headers=BEARER).status_code == 404


def test_servers_that_are_away_are_told() -> None:
    settings = Backend("postgresql://nobody@127.0.0.1:1/x", "redis://127.0.0.1:1").settings()
    parts = Parts.of(settings, Outlets(CollectorRegistry()))
    asyncio.run(gauges_of(parts).ask())
    value = parts.outlets.registry.get_sample_value
    assert (value("medisecure_redis_up"), value("medisecure_database_up")) == (0, 0)


def test_servers_that_hang_hold_up_no_other_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "ANSWER_SECONDS", 3600)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        settings = Backend(f"postgresql://nobody@{place}/x", f"redis://{place}").settings()
        parts = Parts.of(settings, Outlets(CollectorRegistry()))

        async def count() -> None:
            task = asyncio.create_task(gauges_of(parts).keep_up_to_date())
            await asyncio.sleep(0.2)  # both are being asked
            parts.observer.in_flight = 3
            value = parts.outlets.registry.get_sample_value
            async with asyncio.timeout(60):
                while value("medisecure_requests_in_flight") != 3:  # noqa: ASYNC110  # of a library
                    await asyncio.sleep(0.05)
            await cancel({task})

        asyncio.run(count())


def test_what_is_counted_elsewhere_is_told_once() -> None:
    settings = Backend("postgresql://nobody@127.0.0.1:1/x", "redis://127.0.0.1:1").settings()
    parts = Parts.of(settings, Outlets(CollectorRegistry()))
    state = gauges_of(parts)
    for total in (2, 2, 5):
        parts.admission.counters.counted = total
        state.publish()
    assert parts.outlets.registry.get_sample_value("medisecure_limiter_fallbacks_total") == 5


WORKER = """
import sys
from prometheus_client import CollectorRegistry
from api.http.metrics import RequestMetrics, StateMetrics
registry = CollectorRegistry()
requests, state = RequestMetrics(registry), StateMetrics(registry)
for _ in range(3):
    requests.count("listPatients", 200, 0.02)
state.in_flight.set(4)
state.unsealed_seconds.set(5)
print("counted", flush=True)
sys.stdin.readline()
"""


def test_a_process_of_somebody_else_is_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of a worker that has died may be another user's process by now, which may not be asked."""
    monkeypatch.setattr(os, "kill", refuse)
    assert not metrics.is_alive(os.getpid())


def refuse(*_: int) -> None:
    raise PermissionError


def run_worker() -> "subprocess.Popen[str]":
    """Returns once it has counted; it lives until it is told something."""
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout
    assert worker.stdout.readline() == "counted\n"
    return worker


def test_all_workers_are_added_up_and_the_dead_ones_hold_nothing() -> None:
    with metrics.shared_folder() as folder:
        workers = [run_worker() for _ in range(2)]
        value = metrics.exposed(CollectorRegistry()).get_sample_value
        wanted = {"operation": "listPatients", "status": "2xx"}
        assert value("medisecure_requests_total", wanted) == 6
        assert value("medisecure_request_duration_seconds_count", {"operation": "listPatients"}) == 6
        assert (value("medisecure_requests_in_flight"), value("medisecure_unsealed_seconds")) == (8, 5)
        workers[0].communicate("\n")
        assert value("medisecure_requests_in_flight") == 4
        assert value("medisecure_requests_total", wanted) == 6
        workers[1].communicate("\n")
    assert not folder.exists()
    assert metrics.FOLDER not in os.environ
