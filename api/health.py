"""Health probes: whether the process is alive, and whether it can do its work."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from enum import StrEnum
from http import HTTPStatus
from typing import Annotated, Literal

from litestar import Controller
from litestar.di import NamedDependency
from msgspec import Meta

from api.http.errors import DETAIL_BY_STATUS, ServiceUnavailable
from api.http.fields import Count, Output
from api.http.operation import get_public
from api.http.requests import DRAINING, StrictRequest
from persistence.backup.proofs import ProvenBackup
from persistence.fitness import is_read_only, tables_problem
from persistence.postgres.database import Database, Reader
from persistence.postgres.replica import Replica
from security.availability import UNAVAILABLE, BusyError
from security.counters import CounterStore
from security.redis_check import require_working_redis

log = logging.getLogger("medisecure.health")
READINESS_TIMEOUT_SECONDS = 3
REDIS_TIMEOUT_SECONDS = 1  # then Redis is away, as far as readiness goes
MAX_DEGRADATIONS = 8


class Health(Output):
    status: Literal["ok"]


class Degradation(StrEnum):
    """What may be amiss while people can work."""

    REDIS_AWAY = "redis_away"
    DATABASE_READ_ONLY = "database_read_only"
    DATABASE_FULL = "database_full"


class Readiness(Output):
    status: Literal["ok"]
    detail: Literal["degraded"] | None
    degraded: Annotated[list[Degradation], Meta(max_length=MAX_DEGRADATIONS)]
    backup_age_seconds: Count | None


async def find_redis_away(request: StrictRequest) -> Degradation | None:
    try:
        async with asyncio.timeout(REDIS_TIMEOUT_SECONDS):
            await require_working_redis(request.service(CounterStore), fenced=request.has_service(Replica))
    except (*UNAVAILABLE, BusyError):
        return Degradation.REDIS_AWAY
    return None


async def find_unwritable_database(request: StrictRequest) -> Degradation | None:
    database = request.service(Database)
    if await is_read_only(database.reader):
        return Degradation.DATABASE_READ_ONLY
    return Degradation.DATABASE_FULL if database.is_full else None


# Each tells one thing that is amiss, or None; all at the same time, within READINESS_TIMEOUT_SECONDS.
DEGRADATION_CHECKS: tuple[Callable[[StrictRequest], Awaitable[Degradation | None]], ...] = (
    find_redis_away,
    find_unwritable_database,
)


async def require_ready(reader: Reader) -> None:
    """Raise 503 where no request can be served."""
    problem = await tables_problem(reader)
    if problem:
        log.warning("Not ready: %s", problem)
        raise ServiceUnavailable(DETAIL_BY_STATUS[HTTPStatus.SERVICE_UNAVAILABLE], retry_after=2)


class HealthController(Controller):
    path = "/health"

    @get_public("/live", operation_id="checkLiveness")
    async def check_liveness(self) -> Health:
        return Health("ok")

    @get_public("/ready", operation_id="checkReadiness")
    async def check_readiness(self, request: StrictRequest, reader: NamedDependency[Reader]) -> Readiness:
        """503 while PostgreSQL does not answer in time or is set up so that nobody could sign in, and as soon
        as the service drains."""
        if DRAINING in request.scope["state"]:
            raise ServiceUnavailable(DRAINING, retry_after=2)
        async with asyncio.timeout(READINESS_TIMEOUT_SECONDS):
            await require_ready(reader)
            found = await asyncio.gather(*(check(request) for check in DEGRADATION_CHECKS))
        degraded: list[Degradation] = [one for one in found if one is not None]
        age = request.service(ProvenBackup).age_seconds
        return Readiness("ok", "degraded" if degraded else None, degraded, age)
