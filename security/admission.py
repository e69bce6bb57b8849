"""The one seam between a token and a request: is its session alive, and is its user under the limit?"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from math import ceil
from time import monotonic
from typing import TypeVar
from uuid import UUID

import msgspec
from msgspec import Struct

from security.availability import UNAVAILABLE, BusyError
from security.counters import TOMBSTONE, CounterStore, session_key
from security.policy import Counter
from security.roles import Caller
from security.tokens import SessionToken

REMEMBERED = 5.0  # seconds for which "alive" may be believed without asking PostgreSQL
PAUSE = 1.0  # seconds without Redis after it failed, so that a stalled one does not slow every request

CALLER = msgspec.json.Decoder(Caller)
Answer = TypeVar("Answer")
log = logging.getLogger("medisecure.admission")


class Count(Struct, frozen=True):
    """How much of the limit is used: `count` of `limit` requests in a window of `window` seconds, of which
    `reset` are left."""

    count: int
    limit: int
    reset: int
    window: int

    @property
    def exceeded(self) -> bool:
        return self.count > self.limit

    @property
    def remaining(self) -> int:
        return max(0, self.limit - self.count)


class Admitted(Struct, frozen=True):
    """The answer. `caller`: None for an anonymous one. `count`: None where the request is not counted, or
    Redis could not say. `checked_at`: when that was so, in seconds of the monotonic clock."""

    caller: Caller | None
    token: SessionToken | None
    count: Count | None
    checked_at: float


class Admission:
    def __init__(
        self,
        store: CounterStore,
        find_session: Callable[[UUID], Awaitable[Caller | None]],
        *,
        limit: int,
        window: int = 60,
        tombstone: int,
    ) -> None:
        """`limit` requests per `window` seconds; a tombstone stands `tombstone` seconds, the life of an
        access token."""
        self.store = store
        self.find_session = find_session
        self.limit = limit
        self.window = window
        self.tombstone = tombstone
        self.away_until = 0.0

    async def admit(
        self,
        token: SessionToken | None,
        address: str,
        *,
        counter: Counter = Counter.USER,
        anonymous: bool = False,
    ) -> Admitted:
        """Count the request on its user's `counter`, and tell who the caller is. Where `anonymous` callers
        are served, who has no living session is counted on their address; elsewhere the answer is 401, and
        not counted: nobody must lose their refresh to the lapsed cookies of neighbours behind one address.

        One Redis round trip; PostgreSQL answers what Redis does not know or cannot say. Raises BusyError
        where Redis is there and has no time: nobody passes uncounted for that.
        """
        checked_at = monotonic()
        by_address = [f"requests:address:{network_of(address)}"] if anonymous else []
        if token is None:
            return Admitted(None, None, await self.count(*by_address) if anonymous else None, checked_at)
        keys = [session_key(token.sid), f"requests:{counter}:{token.sub}", *by_address]
        known, count = await self.known(keys, token.session_id)
        caller = None if known is None else CALLER.decode(known)
        if caller is None or caller.id != token.user_id:
            return Admitted(None, None, count if anonymous else None, checked_at)
        return Admitted(caller, token, count, checked_at)

    async def count(self, key: str) -> Count | None:
        answer = await self.ask_redis(lambda: self.store.count(key, self.window * 1000))
        return self.counted(*answer) if answer else None

    async def known(self, keys: list[str], session_id: UUID) -> tuple[bytes | None, Count | None]:
        """Who the session belongs to, as JSON, or None where it is dead; and the request's count."""
        window = self.window * 1000
        answer = await self.ask_redis(lambda: self.store.admit(keys, window))
        if answer is not None and answer[0] is not None:
            return alive(answer[0]), self.counted(*answer[1:])
        begun = monotonic()
        caller = await self.find_session(session_id)
        found = msgspec.json.encode(caller) if caller else TOMBSTONE
        if answer is None:  # Redis is away
            return alive(found), None
        # Counted from before the question: an answer that was slow to arrive is believed for less long.
        believed = int(max(0, REMEMBERED - (monotonic() - begun)) * 1000)
        remembered = believed if caller else self.tombstone * 1000
        settled = await self.ask_redis(lambda: self.store.settle(keys, window, found, remembered))
        if settled is None:
            return alive(found), None
        return alive(settled[0]), self.counted(*settled[1:])

    async def ask_redis(self, question: Callable[[], Awaitable[Answer]]) -> Answer | None:
        """What Redis answers; None where it is away."""
        if monotonic() < self.away_until:
            return None
        try:
            return await question()
        except UNAVAILABLE as error:
            if monotonic() > self.away_until:  # who asked at the same time has nothing to add
                log.warning("Redis cannot be asked, PostgreSQL answers alone: %s", type(error).__name__)
            self.away_until = monotonic() + PAUSE
            return None

    def counted(self, count: int, left: int) -> Count | None:
        return Count(count, self.limit, max(1, ceil(left / 1000)), self.window) if count else None

    async def end(self, session_ids: Iterable[UUID]) -> None:
        """Make sure that no instance believes in these sessions any more, which PostgreSQL has ended.

        Returns once that is so: at once where Redis takes the tombstones, and where it is away after the
        time for which an instance that can reach it may still believe what it remembers.
        """
        until = monotonic() + REMEMBERED
        for session_id in session_ids:
            while monotonic() < until:
                try:
                    await self.store.bury_session(session_id, self.tombstone)
                    break
                except (*UNAVAILABLE, BusyError):
                    await asyncio.sleep(0.25)


def alive(known: bytes) -> bytes | None:
    return None if known == TOMBSTONE else known


@lru_cache(1024)
def network_of(address: str) -> str:
    """The address, and of an IPv6 one the /64 that its owner chooses from at will."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ip_network((parsed, 64), strict=False))
    return str(parsed)
