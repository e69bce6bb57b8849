"""What Redis keeps for us: counters and what is known of sessions, each change one atomic script."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from litestar.stores.redis import RedisStore
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import RedisError

# KEYS: the caller's address; and, with a token, its session and its user.
# ARGV: the window in ms. Returns {what is known of the session, count, ms left of the window}.
ADMIT = """
local known = false
local counter = KEYS[1]
if KEYS[2] then
  known = redis.call('GET', KEYS[2])
  if known ~= 'ended' then counter = KEYS[3] end
end
local count = redis.call('INCR', counter)
local left = redis.call('PTTL', counter)
if left < 0 then
  redis.call('PEXPIRE', counter, ARGV[1])
  left = tonumber(ARGV[1])
end
return {known, count, left}
"""
# KEYS: the attempts of the e-mail, those of the address. ARGV: attempts allowed of each, window in s, now
# in s. Returns {1 if the attempt may be made, attempts of the e-mail, ms left of the window that decides}.
TAKE_ATTEMPT = """
local function taken(key) return tonumber(redis.call('HGET', key, 'count') or '0') end
for i = 1, 2 do
  if taken(KEYS[i]) >= tonumber(ARGV[i]) then
    return {0, taken(KEYS[1]), redis.call('PTTL', KEYS[i])}
  end
end
for i = 1, 2 do
  redis.call('HINCRBY', KEYS[i], 'count', 1)
  if redis.call('HSETNX', KEYS[i], 'first_attempt', ARGV[4]) == 1 then
    redis.call('EXPIRE', KEYS[i], ARGV[3])
  end
end
return {1, taken(KEYS[1]), redis.call('PTTL', KEYS[1])}
"""
# Gives attempts back that did not fail.
RETURN_ATTEMPT = """
for i = 1, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 and redis.call('HINCRBY', KEYS[i], 'count', -1) <= 0 then
    redis.call('DEL', KEYS[i])
  end
end
"""

UNAVAILABLE = (RedisError, OSError, TimeoutError)


class CounterStore(RedisStore):
    """Litestar's store, with what its get and set cannot do in one step."""

    __slots__ = ("admit", "return_attempt", "take_attempt")

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis, namespace=None, handle_client_shutdown=True)
        self.admit: Callable[..., Awaitable[Any]] = redis.register_script(ADMIT)
        self.take_attempt: Callable[..., Awaitable[Any]] = redis.register_script(TAKE_ATTEMPT)
        self.return_attempt: Callable[..., Awaitable[Any]] = redis.register_script(RETURN_ATTEMPT)

    @classmethod
    def connect(cls, url: str) -> "CounterStore":
        """One retry, without delay, where the connection is gone: a restarted server costs nobody an error. A
        stalled one costs half a second, and no script is asked for twice that may have run."""
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=50,
            timeout=1,
            socket_timeout=0.5,
            socket_connect_timeout=0.3,
            retry=Retry(NoBackoff(), 1, supported_errors=(Disconnected,)),
        )
        return cls(Redis.from_pool(pool))

    async def remember_session(self, session_id: UUID, caller: bytes, milliseconds: int) -> None:
        """Note who a living session belongs to. Never replaces a tombstone."""
        await self._redis.set(session_key(session_id), caller, px=milliseconds, nx=True)

    async def bury_session(self, session_id: UUID, seconds: int) -> None:
        await self._redis.set(session_key(session_id), TOMBSTONE, ex=seconds)

    async def ping(self) -> None:
        await self._redis.ping()


TOMBSTONE = b"ended"


def session_key(session_id: UUID) -> str:
    return f"session:{session_id}"
