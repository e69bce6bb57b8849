"""What Redis keeps: counters, and what is known of sessions. Each change is one atomic script."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from litestar.stores.redis import RedisStore
from msgspec import Struct
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, NoScriptError

from security.availability import (
    ANSWER_SECONDS,
    PROBE_AFTER_SECONDS,
    UNAVAILABLE,
    AvailabilityProbe,
    BusyError,
    Outage,
)
from security.fences import Passage
from security.pipeline import Argument, Pipeline, Reply, encode_command
from security.scripts import (
    COPY_ATTEMPTS,
    COUNT_REQUEST,
    LOOK_UP_FENCED,
    LOOK_UP_SESSION,
    REMEMBER_FENCED,
    REMEMBER_SESSION,
    Script,
)

TOMBSTONE = b"ended"  # in the place of a session's caller
NOBODY = "requests:address:nobody"  # the counter of no caller, to try on it whether Redis works
MIN_VERSION_MS = 60_000  # for which a version outlives its counter, and a copy may be late


class AttemptCount(Struct, frozen=True):
    """Failed sign-ins that PostgreSQL has counted. `key`: of the counter; `first_attempt`: seconds since the
    epoch; `left_ms`: of its window."""

    key: str
    failures: int
    first_attempt: int
    left_ms: int
    version: int


class CounterStore(RedisStore):
    """Litestar's store, with what its get and set cannot do in one step, over one connection for all
    requests.

    Every method raises what security.availability.UNAVAILABLE lists if Redis is away, and BusyError if it is
    only slow: a flood of requests must not pass uncounted because it slows Redis down.
    """

    __slots__ = ("outage", "pipeline", "probe")

    def __init__(self, redis: Redis, url: str) -> None:
        super().__init__(redis, namespace=None, handle_client_shutdown=True)
        self.probe = AvailabilityProbe(url)
        connection = redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # the library's
        self.pipeline = Pipeline(connection, self.probe)
        self.outage = Outage(self.is_working)

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
        return self.session_reply(await self.run_script(LOOK_UP_SESSION, keys, window_ms))

    async def remember_session(
        self,
        keys: list[str],
        window_ms: int,
        found: bytes,
        remember_ms: int,
        passage: Passage | None = None,
    ) -> tuple[bytes | None, int, int]:
        """As look_up_session, once PostgreSQL has answered: remembers `found` for `remember_ms`, unless the
        session has a tombstone."""
        if passage is not None:
            return await self.pass_fences(REMEMBER_FENCED, passage, keys, window_ms, found, remember_ms)
        return self.session_reply(
            await self.run_script(REMEMBER_SESSION, keys, window_ms, found, remember_ms)
        )

    async def pass_fences(
        self, script: Script, passage: Passage, keys: list[str], *args: Argument
    ) -> tuple[bytes | None, int, int]:
        keys = [*keys[:2], *passage.keys, *keys[2:]]
        reply = await self.run_script(script, keys, *passage.arguments, *args)
        try:
            known, count, left_ms, *told = reply
            passage.arrive(*told)
        except (TypeError, ValueError):
            raise self.distrust() from None
        return self.session_reply((known, count, left_ms))

    async def count_request(self, key: str, window_ms: int) -> tuple[int, int]:
        """The count in this window, and the milliseconds that are left of it."""
        reply = await self.run_script(COUNT_REQUEST, [key], window_ms)
        _, count, left_ms = self.session_reply([None, *reply] if isinstance(reply, list) else reply)
        return count, left_ms

    async def copy_attempts(self, counts: Sequence[AttemptCount]) -> bool:
        """Always True: that they were copied, or overtaken."""
        keys = [key for one in counts for key in (one.key, versions_of(one.key))]
        values = [
            value
            for one in counts
            for value in (
                one.version,
                one.failures,
                one.first_attempt,
                one.left_ms,
                max(one.left_ms, MIN_VERSION_MS),
            )
        ]
        await self.run_script(COPY_ATTEMPTS, keys, *values)
        return True

    async def write_tombstone(self, session_id: UUID, seconds: int) -> None:
        await self.execute("SET", session_key(session_id), TOMBSTONE, "EX", seconds)

    async def is_working(self) -> bool:
        """Whether it takes what requests send, even if it is slow."""
        try:
            await self.count_request(NOBODY, 1000)
        except BusyError:
            return True
        except UNAVAILABLE:
            return False
        return True

    async def info(self) -> dict[str, Any]:
        """What the server says about itself (INFO). `Any`: numbers, texts and tables of them."""
        return dict(await self._redis.info())

    def session_reply(self, reply: Reply) -> tuple[bytes | None, int, int]:
        """What a script of security/scripts.py has answered. Raises InvalidResponse where none would have."""
        try:
            known, count, left_ms = reply
        except (TypeError, ValueError):
            raise self.distrust() from None
        if type(count) is int and type(left_ms) is int and (known is None or type(known) is bytes):
            return known, count, left_ms
        raise self.distrust()

    def distrust(self) -> InvalidResponse:
        """Give the connection up, for an answer that is no answer to its command."""
        self.pipeline.abandon()
        return InvalidResponse("Not what the script answers")

    async def run_script(self, script: Script, keys: list[str], *args: Argument) -> Reply:
        try:
            return await self.execute("EVALSHA", script.sha, len(keys), *keys, *args)
        except NoScriptError:  # so it has not run: the server was restarted, or its scripts were flushed
            return await self.execute("EVAL", script.source, len(keys), *keys, *args)

    async def execute(self, *command: Argument) -> Reply:
        return await self.pipeline.execute(encode_command(*command))

    async def _shutdown(self) -> None:
        await self.outage.close()
        await self.pipeline.close()
        await super()._shutdown()


def versions_of(key: str) -> str:
    """Where the version of a copied counter is."""
    return f"login:versions:{key}"


def session_key(session_id: UUID | str) -> str:
    return f"session:{session_id}"
