"""Health probes: whether the process is alive, and whether it can do its work."""

import asyncio
import logging
from http import HTTPStatus
from typing import Literal

from litestar import Controller
from litestar.di import NamedDependency

from api.http.errors import DETAIL_BY_STATUS, ServiceUnavailable
from api.http.fields import Output
from api.http.operation import get_public
from api.http.requests import StrictRequest
from persistence.fitness import tables_problem
from persistence.postgres.database import Reader
from security.counters import CounterStore
from security.redis_check import require_working_redis

log = logging.getLogger("medisecure.health")
READINESS_TIMEOUT_SECONDS = 3


class Health(Output):
    status: Literal["ok"]


class HealthController(Controller):
    path = "/health"

    @get_public("/live", operation_id="checkLiveness")
    async def check_liveness(self) -> Health:
        return Health("ok")

    @get_public("/ready", operation_id="checkReadiness")
    async def check_readiness(self, request: StrictRequest, reader: NamedDependency[Reader]) -> Health:
        """503 while PostgreSQL or Redis does not answer in time or is set up so that nobody could sign in."""
        async with asyncio.timeout(READINESS_TIMEOUT_SECONDS):
            problem = await tables_problem(reader)
            await require_working_redis(request.service(CounterStore))
        if problem:
            log.warning("Not ready: %s", problem)
            raise ServiceUnavailable(DETAIL_BY_STATUS[HTTPStatus.SERVICE_UNAVAILABLE], retry_after=2)
        return Health("ok")
