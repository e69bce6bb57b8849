"""Whether Redis is away, or there and only has no time for us."""

import asyncio

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

PATIENCE = 0.5  # seconds for an answer, before Redis is asked elsewhere whether one will come
SLOW = 2.0  # seconds for an answer of one that is there
UNAVAILABLE = (RedisError, OSError, TimeoutError)


class BusyError(Exception):
    """Redis is there, but did not answer in time. Seconds after which to try again: `retry_after`."""

    retry_after = 1


class SecondOpinion:
    """Of the Redis at `url`, on a connection of its own and in a thread: neither many commands in flight nor
    a full event loop is taken for an outage."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asking: asyncio.Task[bool] | None = None

    async def is_there(self) -> bool:
        """One answer for all who ask meanwhile."""
        if self.asking is None or self.asking.done():
            self.asking = asyncio.create_task(asyncio.to_thread(answers, self.url))
        return await asyncio.shield(self.asking)


def answers(url: str) -> bool:
    """Whether Redis answers a PING within a second."""
    try:
        with Redis.from_url(
            url, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0)
        ) as connection:
            return bool(connection.ping())
    except UNAVAILABLE as error:
        return "max number of clients" in str(error)  # full is not away
