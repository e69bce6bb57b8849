"""Whether the service gives back what it takes: measured in the second third of a run and in the last."""

import statistics
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import asyncpg
import psutil
import redis

from tests.reliability.chaos_faults import Instance
from tests.support.service import Backend

EVERY_SECONDS = 2.0
SESSION_KEYS = "session:"  # what is alive for 5 s, and tombstones for as long as an access token
MIB = 1024 * 1024


class Bound(NamedTuple):
    """How much the last third may be above the one before: by a factor and so many more, which caches and the
    moments of the samples explain."""

    factor: float
    more: float


BOUNDS = {
    "memory of the instances (MiB)": Bound(1.25, 40),
    "open files and sockets of the instances": Bound(1.25, 30),
    "connections at PostgreSQL": Bound(1.25, 15),
    "keys in Redis, but for sessions": Bound(1.5, 40),
}


class Growth(NamedTuple):
    what: str
    before: float
    last: float
    is_leak: bool


@dataclass
class Gauge:
    """Measures from `with` until its end, in a thread. What cannot be measured in a moment, as in a fault, is
    left out."""

    instances: Sequence[Instance]
    backend: Backend
    samples: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in BOUNDS})
    over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Gauge":
        self.thread = threading.Thread(target=self.measure)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def measure(self) -> None:
        ways: Mapping[str, Callable[[], float]] = dict(
            zip(BOUNDS, (self.memory, self.files, self.connections, self.keys), strict=True)
        )
        while not self.over.wait(EVERY_SECONDS):
            for name, way in ways.items():
                with suppress(psutil.Error, asyncpg.PostgresError, OSError, redis.RedisError, LookupError):
                    self.samples[name].append(way())

    def of_processes(self, measure: Callable[[psutil.Process], float]) -> float:
        found = [process for instance in self.instances for process in instance.processes()]
        expected = sum(instance.workers + 1 for instance in self.instances)
        if len(found) < expected - len(self.instances):  # an instance is down, or not up yet
            raise LookupError
        return sum(measure(process) for process in found)

    def memory(self) -> float:
        return self.of_processes(lambda process: process.memory_info().rss / MIB)

    def files(self) -> float:
        return self.of_processes(lambda process: process.num_fds())

    def connections(self) -> float:
        sql = "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = 'medisecure'"
        return float(self.backend.sql(sql)[0]["n"])

    def keys(self) -> float:
        with self.backend.redis as connection:
            return sum(not key.startswith(SESSION_KEYS) for key in connection.scan_iter(count=1000))

    def eternal_keys(self) -> list[str]:
        """Keys that never expire."""
        with self.backend.redis as connection:
            return [key for key in connection.scan_iter(count=1000) if connection.ttl(key) == -1]

    def growth(self) -> list[Growth]:
        return [grown(name, self.samples[name]) for name in BOUNDS]


def grown(name: str, samples: Sequence[float]) -> Growth:
    third = max(1, len(samples) // 3)
    before = statistics.median(samples[-2 * third : -third] or samples)
    last = statistics.median(samples[-third:])
    bound = BOUNDS[name]
    return Growth(name, before, last, last > bound.factor * before + bound.more)
