"""Tells api/http/metrics.py how the service is: every second, what this process knows; every few seconds,
what PostgreSQL and Redis must be asked for, whoever scrapes and how often."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from math import inf
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter

from api.http.logs import LogHandler
from api.http.metrics import StateMetrics
from api.http.observation import Observer
from persistence.audit_chain import unsealed_tail
from persistence.backup.proofs import ProvenBackup
from persistence.postgres.background import repeat
from persistence.postgres.database import Database
from security.admission import Admission
from security.counters import CounterStore
from security.passwords import Passwords

PUBLISH_SECONDS = 1.0
ASK_SECONDS = 10.0  # between two questions to PostgreSQL and Redis
ANSWER_SECONDS = 5.0  # that they may take; then they count as away
NOT_TOLD = "The metrics could not be brought up to date: %s"
log = logging.getLogger("medisecure.metrics")


class Sources(NamedTuple):
    """Where the figures are kept."""

    database: Database
    store: CounterStore
    admission: Admission
    passwords: Passwords
    observer: Observer
    log: LogHandler | None
    proven_backup: ProvenBackup


class Gauges:
    def __init__(self, registry: CollectorRegistry, sources: Sources) -> None:
        self.metrics = StateMetrics(registry)
        self.sources = sources
        self.told: dict[Counter, int] = {}

    async def keep_up_to_date(self) -> None:
        """For as long as the service runs. A server that is slow to answer holds up no other figure."""

        async def publish() -> tuple[bool, str]:
            self.publish()
            return False, ""

        async def ask() -> tuple[bool, str]:
            await self.ask()
            return False, ""

        await asyncio.gather(
            repeat(publish, PUBLISH_SECONDS, log, NOT_TOLD), repeat(ask, ASK_SECONDS, log, NOT_TOLD)
        )

    def publish(self) -> None:
        metrics, sources = self.metrics, self.sources
        database, passwords = sources.database, sources.passwords
        metrics.in_flight.set(sources.observer.in_flight)
        pools = {"reads": database.reads, "writes": database.writes, "journal": database.journal}
        for name, pool in pools.items():
            metrics.pool_size.labels(name).set(pool.size)
            metrics.pool_open.labels(name).set(pool.opened)
            metrics.pool_in_use.labels(name).set(pool.opened - len(pool.idle))
            metrics.pool_waiting.labels(name).set(len(pool.waiting))
        metrics.hashing.set(passwords.places - passwords.free_places)
        metrics.hashing_size.set(passwords.places)
        age = sources.proven_backup.age_seconds
        metrics.backup_age.set(inf if age is None else age)
        self.count_up(metrics.fallbacks, sources.admission.counters.counted)
        self.count_up(metrics.dropped, sources.log.dropped if sources.log else 0)

    def count_up(self, counter: Counter, total: int) -> None:
        """Bring the counter to what its module has counted itself."""
        counter.inc(total - self.told.get(counter, 0))
        self.told[counter] = total

    async def ask(self) -> None:
        answers = await asyncio.gather(is_answered(self.ask_redis), is_answered(self.ask_database))
        self.metrics.redis_up.set(answers[0])
        self.metrics.database_up.set(answers[1])

    async def ask_redis(self) -> None:
        await self.sources.store.execute("PING")

    async def ask_database(self) -> None:
        events, seconds = await unsealed_tail(self.sources.database.reader)
        self.metrics.unsealed_events.set(events)
        self.metrics.unsealed_seconds.set(seconds)


async def is_answered(ask: Callable[[], Awaitable[None]]) -> bool:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await ask()
    except Exception:  # whatever keeps it from answering
        return False
    return True
