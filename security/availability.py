"""Whether Redis is away, or only slow: the first is worked around, the second is 503."""

import asyncio

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

ANSWER_SECONDS = 2.0  # that a Redis that is there may take for an answer
PROBE_AFTER_SECONDS = 0.5  # without an answer, until another connection asks whether Redis is there
UNAVAILABLE = (RedisError, OSError, TimeoutError)


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


def is_answering(url: str) -> bool:
    """Whether Redis answers a PING within a second."""
    try:
        with Redis.from_url(
            url, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0)
        ) as connection:
            return bool(connection.ping())
    except UNAVAILABLE as error:
        return "max number of clients" in str(error)  # it is there, and full
