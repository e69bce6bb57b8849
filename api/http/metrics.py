"""What Prometheus is told. Each worker process counts for itself; one answer adds all of them up.

With several workers (PROMETHEUS_MULTIPROC_DIR is set then, by api/commands/serving.py) the client library
keeps each process's values in a file of its own in that folder.
"""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # the client library's own variable
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # a folder of our own is made in it
BUCKETS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
SIGN_INS = {
    HTTPStatus.OK: "success",
    HTTPStatus.UNAUTHORIZED: "wrong",
    HTTPStatus.FORBIDDEN: "refused",  # the password was right, and the account is pending or disabled
    HTTPStatus.TOO_MANY_REQUESTS: "locked",
}
Worst = Literal["livemin", "livemax"]  # of the values of all workers
PROCESS_REGISTRY = CollectorRegistry()  # of a process that runs one application


class RequestMetrics:
    """Rate, errors and latency by operation. Costs two to three microseconds a request."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "medisecure_requests",
            "Answered requests, by operationId and class of status; a client that is gone is a 4xx.",
            ["operation", "status"],
            registry=registry,
        )
        self.durations = Histogram(
            "medisecure_request_duration_seconds",
            "From the head of a request to the end of its answer.",
            ["operation"],
            registry=registry,
            buckets=BUCKETS,
        )
        self.sign_ins = Counter(
            "medisecure_sign_ins",
            "Attempts to sign in: success, wrong (e-mail or password), refused (account not active), locked.",
            ["outcome"],
            registry=registry,
        )
        for outcome in SIGN_INS.values():
            self.sign_ins.labels(outcome)
        self.by_kind: dict[tuple[str, int], tuple[Counter, Histogram]] = {}  # labels() costs more than both

    def count(self, operation: str, status: int, seconds: float) -> None:
        kind = operation, status // 100
        counters = self.by_kind.get(kind)
        if counters is None:
            counters = self.requests.labels(operation, f"{status // 100}xx"), self.durations.labels(operation)
            self.by_kind[kind] = counters
        counters[0].inc()
        counters[1].observe(seconds)
        if operation == "login" and status in SIGN_INS:
            self.sign_ins.labels(SIGN_INS[HTTPStatus(status)]).inc()


class StateMetrics:
    """What there is at the moment, as far as one process knows; told every second by api/http/gauges.py."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def summed(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"medisecure_{name}", text, labels, registry=registry, multiprocess_mode="livesum")

        def worst(name: str, text: str, mode: Worst, *labels: str) -> Gauge:
            return Gauge(f"medisecure_{name}", text, labels, registry=registry, multiprocess_mode=mode)

        self.in_flight = summed("requests_in_flight", "Requests that are being answered.")
        self.pool_size = summed("pool_size", "Connections to PostgreSQL at most.", "pool")
        self.pool_open = summed("pool_open", "Connections to PostgreSQL.", "pool")
        self.pool_in_use = summed("pool_in_use", "Connections to PostgreSQL that do something.", "pool")
        self.pool_waiting = summed("pool_waiting", "Requests that wait for a connection.", "pool")
        self.hashing = summed("hashing_queue", "Password hashes that run or wait.")
        self.hashing_size = summed("hashing_queue_size", "Password hashes that may run or wait.")
        self.fallbacks = Counter(
            "medisecure_limiter_fallbacks",
            "Requests that a process counted by itself, while Redis was away.",
            registry=registry,
        )
        self.dropped = Counter(
            "medisecure_log_lines_dropped", "Lines of the log that nobody took in time.", registry=registry
        )
        self.redis_up = worst("redis_up", "1 if Redis answers, 0 if it is away.", "livemin")
        self.database_up = worst("database_up", "1 if PostgreSQL answers, 0 if it is away.", "livemin")
        self.unsealed_events = worst("unsealed_events", "Events of the trail that have no seal.", "livemax")
        self.unsealed_seconds = worst("unsealed_seconds", "Age of the oldest of them.", "livemax")
        self.backup_age = worst(
            "backup_age_seconds",
            "Age of the newest data that a restored backup was proven to hold; +Inf where none was.",
            "livemax",
        )
        self.build = worst("build_info", "1; the release is a label.", "livemax", "version")
        self.build.labels(version("medisecure")).set(1)


def exposed(own: CollectorRegistry) -> CollectorRegistry:
    """What an answer is made of: all workers' values, where there are several."""
    folder = os.environ.get(FOLDER)
    return shared(Path(folder)) if folder else own


def shared(folder: Path) -> CollectorRegistry:
    registry = CollectorRegistry()
    LivingProcesses(registry, folder)
    return registry


class LivingProcesses(MultiProcessCollector):
    """A worker that has died is in no queue, and holds no connection, any more."""

    def __init__(self, registry: CollectorRegistry, folder: Path) -> None:
        super().__init__(registry, str(folder))  # type: ignore[no-untyped-call]  # the library's
        self.folder = folder

    def collect(self) -> Iterable[Metric]:
        for pid in {int(file.stem.rpartition("_")[2]) for file in self.folder.glob("gauge_live*.db")}:
            if is_alive(pid):
                continue
            with suppress(FileNotFoundError):  # another scrape has done it
                mark_process_dead(pid, str(self.folder))  # type: ignore[no-untyped-call]  # as above
        found: Iterable[Metric] = super().collect()  # type: ignore[no-untyped-call]  # as above
        return found


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:  # there is none, or it is somebody else's, which has the number now
        return False
    return True


@contextmanager
def shared_folder() -> Iterator[Path]:
    """Where worker processes that are started within this block keep what they count. Raises OSError."""
    in_memory = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="medisecure-metrics-", dir=in_memory))
    os.environ[FOLDER] = str(folder)
    try:
        yield folder
    finally:
        del os.environ[FOLDER]
        with suppress(OSError):
            shutil.rmtree(folder)
