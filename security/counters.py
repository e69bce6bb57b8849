"""What Redis keeps for us: counters and what is known of sessions, each change one atomic script."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from litestar.stores.redis import RedisStore
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
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
# KEYS: the e-mail's attempts. ARGV: attempts allowed, window in s, now in s.
# Returns {1 if the attempt may be made, attempts taken, ms left of the window}.
TAKE_ATTEMPT = """
local taken = tonumber(redis.call('HGET', KEYS[1], 'count') or '0')
local allowed = 0
if taken < tonumber(ARGV[1]) then
  allowed = 1
  taken = redis.call('HINCRBY', KEYS[1], 'count', 1)
  if redis.call('HSETNX', KEYS[1], 'first_attempt', ARGV[3]) == 1 then
    redis.call('EXPIRE', KEYS[1], ARGV[2])
  end
end
return {allowed, taken, redis.call('PTTL', KEYS[1])}
"""
# Gives an attempt back that was never judged.
RETURN_ATTEMPT = """
if redis.call('EXISTS', KEYS[1]) == 1 and redis.call('HINCRBY', KEYS[1], 'count', -1) <= 0 then
  redis.call('DEL', KEYS[1])
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
        """One retry, without delay: a restarted server costs nobody an error, a stalled one half a second."""
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=50,
            timeout=1,
            socket_timeout=0.5,
            socket_connect_timeout=0.3,
            retry=Retry(NoBackoff(), 1),
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
