"""Probes: is the process alive, can it work?"""

import asyncio
from typing import Literal

from litestar import Controller
from litestar.datastructures import State
from sqlalchemy import text

from api.public import get_public
from api.schemas import Output

PROBE = text("SELECT 1")
PATIENCE = 3  # seconds


class Health(Output):
    status: Literal["ok"]


class HealthController(Controller):
    path = "/health"

    @get_public("/live", operation_id="checkLiveness")
    async def check_liveness(self) -> Health:
        return Health("ok")

    @get_public("/ready", operation_id="checkReadiness")
    async def check_readiness(self, state: State) -> Health:
        """503 while PostgreSQL or Redis cannot be asked, or does not answer within seconds."""
        async with asyncio.timeout(PATIENCE):
            await state.database.reader.rows(PROBE)
            await state.admission.store.ping()
        return Health("ok")
