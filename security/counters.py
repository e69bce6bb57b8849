"""What Redis keeps for us: counters and what is known of sessions, each change one atomic script."""

from typing import Any
from uuid import UUID

from litestar.stores.redis import RedisStore
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import NoScriptError

from security.availability import PATIENCE, SLOW, SecondOpinion
from security.pipeline import Pipeline, Word, packed
from security.scripts import ADMIT, COUNT, KEEP_ATTEMPT, RETURN_ATTEMPT, SETTLE, TAKE_ATTEMPT, Script

TOMBSTONE = b"ended"


class CounterStore(RedisStore):
    """Litestar's store, with what its get and set cannot do in one step, over one connection for all.

    Every method raises what security.availability.UNAVAILABLE lists where Redis is away, and BusyError where
    it only has no time for us: a flood must not pass uncounted for being a flood.
    """

    __slots__ = ("opinion", "pipeline")

    def __init__(self, redis: Redis, url: str) -> None:
        super().__init__(redis, namespace=None, handle_client_shutdown=True)
        self.opinion = SecondOpinion(url)
        connection = redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # the library's
        self.pipeline = Pipeline(connection, self.opinion)

    @classmethod
    def connect(cls, url: str) -> "CounterStore":
        """One retry, without delay, where no connection is to be had. A stalled server costs a second and a
        half, a slow one is waited for, and no script is asked for twice that may have run."""
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=2,
            timeout=PATIENCE,
            socket_timeout=SLOW,
            socket_connect_timeout=SLOW,
            retry=Retry(NoBackoff(), 1, supported_errors=(Disconnected,)),
        )
        return cls(Redis.from_pool(pool), url)

    async def admit(self, keys: list[str], window: int) -> tuple[bytes | None, int, int]:
        """What is known of the session, and what was counted: `keys` and answer as in security/scripts.py."""
        known, count, left = await self.run(ADMIT, keys, window)
        return known, count, left

    async def settle(
        self, keys: list[str], window: int, known: bytes, milliseconds: int
    ) -> tuple[bytes, int, int]:
        """As `admit`, once PostgreSQL has answered: `known`, which is remembered for so long."""
        settled, count, left = await self.run(SETTLE, keys, window, known, milliseconds)
        return settled, count, left

    async def count(self, key: str, window: int) -> tuple[int, int]:
        count, left = await self.run(COUNT, [key], window)
        return count, left

    async def take_attempt(self, keys: list[str], *args: int | str) -> tuple[int, int, int]:
        """Does nothing where Redis comes to it later than anybody waits for the answer."""
        seconds, microseconds = await self.ask("TIME")
        until = int(seconds) + int(microseconds) / 1_000_000 + SLOW
        allowed, taken, left = await self.run(TAKE_ATTEMPT, keys, *args, until)
        return allowed, taken, left

    async def keep_attempt(self, keys: list[str], *args: int | str) -> None:
        await self.run(KEEP_ATTEMPT, keys, *args)

    async def return_attempt(self, keys: list[str], attempt: str) -> None:
        await self.run(RETURN_ATTEMPT, keys, attempt)

    async def forget(self, key: str) -> None:
        await self.ask("DEL", key)

    async def bury_session(self, session_id: UUID, seconds: int) -> None:
        await self.ask("SET", session_key(session_id), TOMBSTONE, "EX", seconds)

    async def info(self) -> dict[str, Any]:
        """What the server says about itself."""
        return dict(await self._redis.info())

    async def ping(self) -> None:
        if not await self.opinion.is_there():
            raise Disconnected

    async def run(self, script: Script, keys: list[str], *args: Word) -> Any:
        try:
            return await self.ask("EVALSHA", script.sha, len(keys), *keys, *args)
        except NoScriptError:  # so it has not run: the server was restarted, or its scripts were flushed
            return await self.ask("EVAL", script.source, len(keys), *keys, *args)

    async def ask(self, *command: Word) -> Any:
        return await self.pipeline.ask(packed(*command))

    async def _shutdown(self) -> None:
        if self.handle_client_shutdown:
            await self.pipeline.close()
        await super()._shutdown()


def session_key(session_id: UUID | str) -> str:
    return f"session:{session_id}"
