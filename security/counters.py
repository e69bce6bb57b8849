"""What Redis keeps for us: counters and what is known of sessions, each change one atomic script."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import redis
from litestar.stores.redis import RedisStore
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as Late
from redis.retry import Retry as RetryApart

from security.scripts import ADMIT, COUNT, KEEP_ATTEMPT, RETURN_ATTEMPT, SETTLE, TAKE_ATTEMPT

PATIENCE = 0.5  # seconds for a free connection; and for an answer, before it is asked whether one will come
SLOW = 2.0  # seconds for an answer of one that is there
UNAVAILABLE = (RedisError, OSError, TimeoutError)
TOMBSTONE = b"ended"
Script = Callable[..., Awaitable[Any]]


class BusyError(Exception):
    """Redis is there, but did not answer in time. Seconds after which to try again: `retry_after`."""

    retry_after = 1


class CounterStore(RedisStore):
    """Litestar's store, with what its get and set cannot do in one step.

    Every method raises what UNAVAILABLE lists where Redis is away, and BusyError where it only has no time or
    no connection for us: a flood must not pass uncounted for being a flood.
    """

    __slots__ = (
        "_admit",
        "_count",
        "_keep_attempt",
        "_opinion",
        "_return_attempt",
        "_settle",
        "_take_attempt",
        "url",
    )

    def __init__(self, redis: Redis, url: str) -> None:
        super().__init__(redis, namespace=None, handle_client_shutdown=True)
        self.url = url
        self._opinion: asyncio.Task[bool] | None = None
        self._admit: Script = redis.register_script(ADMIT)
        self._count: Script = redis.register_script(COUNT)
        self._settle: Script = redis.register_script(SETTLE)
        self._take_attempt: Script = redis.register_script(TAKE_ATTEMPT)
        self._keep_attempt: Script = redis.register_script(KEEP_ATTEMPT)
        self._return_attempt: Script = redis.register_script(RETURN_ATTEMPT)

    @classmethod
    def connect(cls, url: str) -> "CounterStore":
        """One retry, without delay, where the connection is gone: a restarted server costs nobody an error. A
        stalled one costs a second and a half, a slow one is waited for, and no script is asked for twice that
        may have run."""
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=50,
            timeout=PATIENCE,
            socket_timeout=SLOW,
            socket_connect_timeout=SLOW,
            retry=Retry(NoBackoff(), 1, supported_errors=(Disconnected,)),
        )
        return cls(Redis.from_pool(pool), url)

    async def admit(self, keys: list[str], window: int) -> tuple[bytes | None, int, int]:
        """What is known of the session, and what was counted: `keys` and answer as in security/scripts.py."""
        known, count, left = await self.run(self._admit(keys=keys, args=[window]))
        return known, count, left

    async def settle(
        self, keys: list[str], window: int, known: bytes, milliseconds: int
    ) -> tuple[bytes, int, int]:
        """As `admit`, once PostgreSQL has answered: `known`, which is remembered for so long."""
        settled, count, left = await self.run(self._settle(keys=keys, args=[window, known, milliseconds]))
        return settled, count, left

    async def count(self, key: str, window: int) -> tuple[int, int]:
        count, left = await self.run(self._count(keys=[key], args=[window]))
        return count, left

    async def take_attempt(self, keys: list[str], *args: int | str) -> tuple[int, int, int]:
        """Does nothing where Redis comes to it later than anybody waits for the answer."""
        seconds, microseconds = await self.run(self._redis.time())
        until = seconds + microseconds / 1_000_000 + SLOW
        allowed, taken, left = await self.run(self._take_attempt(keys=keys, args=[*args, until]))
        return allowed, taken, left

    async def keep_attempt(self, keys: list[str], *args: int | str) -> None:
        await self.run(self._keep_attempt(keys=keys, args=args))

    async def return_attempt(self, keys: list[str], attempt: str) -> None:
        await self.run(self._return_attempt(keys=keys, args=[attempt]))

    async def forget(self, key: str) -> None:
        await self.run(self._redis.delete(key))

    async def bury_session(self, session_id: UUID, seconds: int) -> None:
        await self.run(self._redis.set(session_key(session_id), TOMBSTONE, ex=seconds))

    async def info(self) -> dict[str, Any]:
        """What the server says about itself."""
        return dict(await self._redis.info())

    async def ping(self) -> None:
        if not await self.is_there():
            raise Disconnected

    async def run(self, command: Awaitable[Any]) -> Any:
        asking = asyncio.ensure_future(command)
        try:
            await asyncio.wait({asking}, timeout=PATIENCE)
            if asking.done() or await self.is_there():
                return await asking
        except (Disconnected, Late, OSError, TimeoutError) as error:
            if await self.is_there():
                raise BusyError from error
            raise
        finally:
            asking.cancel()
        raise TimeoutError

    async def is_there(self) -> bool:
        """A second opinion, one for all who ask meanwhile, on a connection of its own and in a thread:
        neither a full pool nor a full event loop is taken for an outage."""
        if self._opinion is None or self._opinion.done():
            self._opinion = asyncio.create_task(asyncio.to_thread(answers, self.url))
        return await asyncio.shield(self._opinion)


def answers(url: str) -> bool:
    """Whether Redis answers a PING within a second."""
    try:
        with redis.Redis.from_url(
            url, socket_timeout=1, socket_connect_timeout=1, retry=RetryApart(NoBackoff(), 0)
        ) as connection:
            return bool(connection.ping())
    except UNAVAILABLE as error:
        return "max number of clients" in str(error)  # full is not away


def session_key(session_id: UUID) -> str:
    return f"session:{session_id}"
