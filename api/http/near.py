"""Which reads go to the replica, and what a write must wait for where there is one (decision 0046)."""

import asyncio
import logging
from typing import cast

from litestar.types import ASGIApp, Message, Receive, Send

from api.http.headers import HttpScope
from api.http.requests import StrictRequest
from persistence.postgres.background import repeat
from persistence.postgres.database import Reader
from persistence.postgres.replica import WATCH_SECONDS, NearReader, Replica
from security.admission import Admitted
from security.fences import Fences

BATCH_SECONDS = 0.02  # in which writes gather that are settled together
log = logging.getLogger("medisecure.replica")


class Near:
    """The replica, and what Redis knows of writes."""

    def __init__(self, replica: Replica, fences: Fences) -> None:
        self.replica = replica
        self.fences = fences

    def reader(self, request: StrictRequest) -> Reader:
        """For reads that a replica may answer."""
        passage = request.auth.passage if request.auth else None
        nearest = self.replica.nearest(self.fences.met_at)
        if passage is None or passage.position is None or nearest is None:
            self.replica.passed_on += 1
            return self.replica.primary
        return NearReader(self.replica, max(passage.position, nearest))

    async def watch(self) -> tuple[bool, str]:
        """Look at both servers, and settle the writes that had ended before."""
        await self.fences.wait_for_writes(WATCH_SECONDS)
        await asyncio.sleep(BATCH_SECONDS)
        ended = self.fences.take_ended()
        try:
            position, trouble = await self.replica.look()
        except BaseException:
            self.fences.ended += ended
            raise
        await self.fences.settle(ended, position)
        return True, trouble

    async def watch_always(self) -> None:
        await repeat(self.watch, WATCH_SECONDS, log, "The replica is not used: %s")


class FenceMiddleware:
    """Settle each write when it is over. One that Redis could not be told of is answered once the replica has
    replayed it: no instance would know that it must not be asked."""

    def __init__(self, app: ASGIApp, near: Near) -> None:
        self.app = app
        self.near = near

    async def __call__(self, scope: HttpScope, receive: Receive, send: Send) -> None:
        admitted = cast("Admitted | None", scope.get("auth"))
        passage = admitted.passage if admitted else None
        if passage is None or not passage.note:
            await self.app(scope, receive, send)
            return

        async def send_once_known(message: Message) -> None:
            is_done = message["type"] == "http.response.start" and message["status"] < 400
            if is_done and not passage.is_noted:
                await self.near.replica.wait_until_replayed()
            await send(message)

        try:
            await self.app(scope, receive, send_once_known)
        finally:
            self.near.fences.end(passage)
