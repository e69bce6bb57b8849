"""The one seam between a token and a request: is its session alive, and is its user under the limit?"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import IPv6Address, ip_address, ip_network
from math import ceil
from time import monotonic
from uuid import UUID

import msgspec
from msgspec import Struct

from security.counters import TOMBSTONE, UNAVAILABLE, CounterStore, session_key
from security.roles import Caller
from security.tokens import SessionToken

REMEMBERED = 5.0  # seconds for which "alive" may be believed without asking PostgreSQL
PAUSE = 1.0  # seconds without Redis after it failed, so that a stalled one does not slow every request

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
    """The answer. `caller`: None for an anonymous one. `count`: None when Redis could not say. `asked`: when,
    in seconds of the monotonic clock."""

    caller: Caller | None
    token: SessionToken | None
    count: Count | None
    asked: float


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

    async def admit(self, token: SessionToken | None, address: str) -> Admitted:
        """Count the request on its user, or on its address where it has no living session, and tell who
        the caller is. One Redis round trip; PostgreSQL answers what Redis does not know or cannot say."""
        asked = monotonic()
        by_address = f"requests:address:{network_of(address)}"
        if token is None:
            return Admitted(None, None, (await self.counted([by_address]))[1], asked)
        session_id = token.session_id
        keys = [by_address, session_key(session_id), f"requests:user:{token.sub}"]
        known, count = await self.counted(keys)
        if known == TOMBSTONE:
            return Admitted(None, None, count, asked)
        caller = msgspec.json.decode(known, type=Caller) if known else await self.look_up(session_id, count)
        if caller is None or caller.id != token.user_id:
            return Admitted(None, None, count, asked)
        return Admitted(caller, token, count, asked)

    async def counted(self, keys: list[str]) -> tuple[bytes | None, Count | None]:
        if monotonic() < self.away_until:
            return None, None
        try:
            known, count, left = await self.store.admit(keys=keys, args=[self.window * 1000])
        except UNAVAILABLE as error:
            self.away_until = monotonic() + PAUSE
            log.warning("Redis cannot be asked, PostgreSQL answers alone: %s", type(error).__name__)
            return None, None
        return known, Count(count, self.limit, max(1, ceil(left / 1000)), self.window)

    async def look_up(self, session_id: UUID, count: Count | None) -> Caller | None:
        asked = monotonic()
        caller = await self.find_session(session_id)
        # Counted from before the question: an answer that was slow to arrive is believed for less long.
        believed = REMEMBERED - (monotonic() - asked)
        if count is None:
            return caller
        try:
            if caller is None:  # so that the next request with its tokens counts on its address
                await self.store.bury_session(session_id, self.tombstone)
            elif believed > 0:
                await self.store.remember_session(
                    session_id, msgspec.json.encode(caller), max(1, int(believed * 1000))
                )
        except UNAVAILABLE:
            self.away_until = monotonic() + PAUSE
        return caller

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
                except UNAVAILABLE:
                    await asyncio.sleep(0.25)


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
