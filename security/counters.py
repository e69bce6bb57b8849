"""What Redis keeps: counters, and what is known of sessions. Each change is one atomic script."""

from typing import Any
from uuid import UUID

from litestar.stores.redis import RedisStore
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError

from security.availability import ANSWER_SECONDS, PROBE_AFTER_SECONDS, AvailabilityProbe
from security.fences import Passage
from security.pipeline import Argument, Pipeline, Reply, encode_command
from security.scripts import (
    COUNT_REQUEST,
    KEEP_ATTEMPT,
    LOOK_UP_FENCED,
    LOOK_UP_SESSION,
    REMEMBER_FENCED,
    REMEMBER_SESSION,
    RETURN_ATTEMPT,
    TAKE_ATTEMPT,
    Script,
)

TOMBSTONE = b"ended"  # in the place of a session's caller


class CounterStore(RedisStore):
    """Litestar's store, with what its get and set cannot do in one step, over one connection for all
    requests.

    Every method raises what security.availability.UNAVAILABLE lists if Redis is away, and BusyError if it is
    only slow: a flood of requests must not pass uncounted because it slows Redis down.
    """

    __slots__ = ("pipeline", "probe")

    def __init__(self, redis: Redis, url: str) -> None:
        super().__init__(redis, namespace=None, handle_client_shutdown=True)
        self.probe = AvailabilityProbe(url)
        connection = redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # the library's
        self.pipeline = Pipeline(connection, self.probe)

    @classmethod
    def connect(cls, url: str) -> "CounterStore":
        """One retry, without delay, if a connection cannot be opened. A stalled server costs a second and a
        half, a slow one is waited for, and a script that may have run is not repeated."""
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=2,
            timeout=PROBE_AFTER_SECONDS,
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        )
        return cls(Redis.from_pool(pool), url)

    @property
    def connection(self) -> object:
        """The one that is open, if one is."""
        return self.pipeline.protocol

    async def look_up_session(
        self, keys: list[str], window_ms: int, passage: Passage | None = None
    ) -> tuple[bytes | None, int, int]:
        """What is known of the session, and the count: keys and answer as in security/scripts.py."""
        if passage is not None:
            return await self.pass_fences(LOOK_UP_FENCED, passage, keys, window_ms)
        known, count, left_ms = await self.run_script(LOOK_UP_SESSION, keys, window_ms)
        return known, count, left_ms

    async def remember_session(
        self,
        keys: list[str],
        window_ms: int,
        found: bytes,
        remember_ms: int,
        passage: Passage | None = None,
    ) -> tuple[bytes, int, int]:
        """As look_up_session, once PostgreSQL has answered: remembers `found` for `remember_ms`, unless the
        session has a tombstone."""
        if passage is not None:
            return await self.pass_fences(REMEMBER_FENCED, passage, keys, window_ms, found, remember_ms)
        known, count, left_ms = await self.run_script(REMEMBER_SESSION, keys, window_ms, found, remember_ms)
        return known, count, left_ms

    async def pass_fences(
        self, script: Script, passage: Passage, keys: list[str], *args: Argument
    ) -> tuple[Reply, int, int]:
        keys = [*keys[:2], *passage.keys, *keys[2:]]
        known, count, left_ms, *told = await self.run_script(script, keys, *passage.arguments, *args)
        passage.arrive(*told)
        return known, count, left_ms

    async def count_request(self, key: str, window_ms: int) -> tuple[int, int]:
        """The count in this window, and the milliseconds that are left of it."""
        count, left_ms = await self.run_script(COUNT_REQUEST, [key], window_ms)
        return count, left_ms

    async def take_attempt(self, keys: list[str], *args: int | str) -> tuple[int, int, int]:
        """Does nothing if Redis runs it only after the caller has stopped waiting for the answer."""
        seconds, microseconds = await self.execute("TIME")
        until = int(seconds) + int(microseconds) / 1_000_000 + ANSWER_SECONDS
        allowed, taken, left_ms = await self.run_script(TAKE_ATTEMPT, keys, *args, until)
        return allowed, taken, left_ms

    async def keep_attempt(self, keys: list[str], *args: int | str) -> None:
        await self.run_script(KEEP_ATTEMPT, keys, *args)

    async def return_attempt(self, keys: list[str], attempt: str) -> None:
        await self.run_script(RETURN_ATTEMPT, keys, attempt)

    async def forget(self, key: str) -> None:
        await self.execute("DEL", key)

    async def write_tombstone(self, session_id: UUID, seconds: int) -> None:
        await self.execute("SET", session_key(session_id), TOMBSTONE, "EX", seconds)

    async def info(self) -> dict[str, Any]:
        """What the server says about itself (INFO). `Any`: numbers, texts and tables of them."""
        return dict(await self._redis.info())

    async def run_script(self, script: Script, keys: list[str], *args: Argument) -> Reply:
        try:
            return await self.execute("EVALSHA", script.sha, len(keys), *keys, *args)
        except NoScriptError:  # so it has not run: the server was restarted, or its scripts were flushed
            return await self.execute("EVAL", script.source, len(keys), *keys, *args)

    async def execute(self, *command: Argument) -> Reply:
        return await self.pipeline.execute(encode_command(*command))

    async def _shutdown(self) -> None:
        await self.pipeline.close()
        await super()._shutdown()


def session_key(session_id: UUID | str) -> str:
    return f"session:{session_id}"
