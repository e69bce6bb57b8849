"""Whether Redis is away, or only slow: the first is worked around, the second is 503."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

ANSWER_SECONDS = 2.0  # that a Redis that is there may take for an answer
PROBE_AFTER_SECONDS = 0.5  # without an answer, until another connection asks whether Redis is there
RETRY_SECONDS = 1.0  # between two questions whether Redis is back
UNAVAILABLE = (RedisError, OSError, TimeoutError)

Answer = TypeVar("Answer")
log = logging.getLogger("medisecure.redis")


class BusyError(Exception):
    """Redis is there, but did not answer in time. `retry_after`: seconds until the client may try again."""

    retry_after = 1


class AvailabilityProbe:
    """Asks the Redis at `url` whether it is there, on a connection of its own and in a thread. So neither
    many commands in flight nor a full event loop is taken for an outage."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asking: asyncio.Task[bool] | None = None

    async def is_available(self) -> bool:
        """Those who ask at the same time share one answer."""
        if self.asking is None or self.asking.done():
            self.asking = asyncio.create_task(asyncio.to_thread(is_answering, self.url))
        return await asyncio.shield(self.asking)


class Outage:
    """Asks Redis until it is away, and from then on only now and then whether it is back, in the background:
    so no request waits for a Redis that hangs, but those that find out."""

    def __init__(self, is_working: Callable[[], Awaitable[bool]]) -> None:
        self.is_working = is_working
        self.is_on = False
        self.watching: asyncio.Task[None] | None = None

    async def ask(self, question: Callable[[], Awaitable[Answer]]) -> Answer | None:
        """What Redis answers; None if it is away. Raises BusyError where it is there, and too slow."""
        if self.is_on:
            return None
        try:
            return await question()
        except UNAVAILABLE as error:
            self.begin(error)
            return None

    def begin(self, error: Exception) -> None:
        if not self.is_on:  # others may have found out at the same time
            self.is_on = True
            log.warning("Redis cannot be asked, PostgreSQL answers alone: %s", type(error).__name__)
            self.watching = asyncio.create_task(self.watch())

    async def watch(self) -> None:
        while self.is_on:
            await asyncio.sleep(RETRY_SECONDS)
            with suppress(Exception):  # whatever it is, Redis does not work
                self.is_on = not await self.is_working()
        log.warning("Redis answers again")

    async def close(self) -> None:
        if self.watching:
            self.watching.cancel()
            await asyncio.gather(self.watching, return_exceptions=True)


def is_answering(url: str) -> bool:
    """Whether Redis answers a PING within a second."""
    try:
        with Redis.from_url(
            url, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0)
        ) as connection:
            return bool(connection.ping())
    except UNAVAILABLE as error:
        return "max number of clients" in str(error)  # it is there, and full
    except (AttributeError, LookupError, TypeError, ValueError):  # redis-py's, for answers of another kind
        return False
