"""Between a token and its request: is the session alive, and is its user under the limit?"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from math import ceil
from time import monotonic
from uuid import UUID

import msgspec
from msgspec import Struct

from security.availability import UNAVAILABLE, BusyError
from security.counters import TOMBSTONE, CounterStore, session_key
from security.fences import Passage
from security.policy import Counter
from security.process_counters import ProcessCounters
from security.roles import Caller
from security.tokens import SessionToken

ALIVE_CACHE_SECONDS = 5.0  # for which a session counts as alive before PostgreSQL is asked again
TOMBSTONE_RETRY_SECONDS = 0.25  # between two attempts to write a tombstone

CALLER_DECODER = msgspec.json.Decoder(Caller)


class Count(Struct, frozen=True):
    """How much of the limit is used: `count` of `limit` requests in a window of `window` seconds, of which
    `reset` are left."""

    count: int
    limit: int
    reset: int
    window: int

    @property
    def is_exceeded(self) -> bool:
        return self.count > self.limit

    @property
    def remaining(self) -> int:
        return max(0, self.limit - self.count)


class Admitted(Struct, frozen=True):
    """Who calls. `caller`: None for an anonymous one. `count`: None if the request is not counted.
    `checked_at`: when that was found out, in seconds of the monotonic clock. `passage`: what decides whether
    a replica may answer, where there is one."""

    caller: Caller | None
    token: SessionToken | None
    count: Count | None
    checked_at: float
    passage: Passage | None = None


class Admission:
    def __init__(
        self,
        store: CounterStore,
        find_session: Callable[[UUID], Awaitable[Caller | None]],
        *,
        limit: int,
        window: int = 60,
        tombstone_seconds: int,
    ) -> None:
        """`limit` requests per `window` seconds. A tombstone lasts as long as an access token lives.
        `find_session` asks PostgreSQL."""
        self.store = store
        self.find_session = find_session
        self.limit = limit
        self.window = window
        self.tombstone_seconds = tombstone_seconds
        self.outage = store.outage
        self.counters = ProcessCounters(window * 1000)

    async def admit(
        self,
        token: SessionToken | None,
        address: str,
        *,
        counter: Counter = Counter.USER,
        anonymous: bool = False,
        passage: Passage | None = None,
    ) -> Admitted:
        """Count the request on its user's `counter`, and tell who the caller is.

        `anonymous`: the operation serves callers without a living session, and counts them on their address.
        Other operations answer them with 401, uncounted: otherwise the expired cookies of one person would
        use up the limit of all who share the address.

        One Redis round trip; PostgreSQL answers what Redis does not know. While Redis is away, each process
        counts for itself. Raises BusyError if Redis is there and does not answer in time: it may have counted
        the request, and whoever can slow it down must not get a second limit for that.
        """
        checked_at = monotonic()
        kind = counter if counter is Counter.FEED else "address"
        by_address = [f"requests:{kind}:{network_of(address)}"] if anonymous else []
        if token is None:
            return Admitted(
                None, None, await self.count_request(*by_address) if anonymous else None, checked_at
            )
        keys = [session_key(token.sid), f"requests:{counter}:{token.sub}", *by_address]
        caller, count = await self.look_up(keys, token.session_id, passage)
        if caller is None or caller.id != token.user_id:
            return Admitted(None, None, count if anonymous else None, checked_at, passage)
        return Admitted(caller, token, count, checked_at, passage)

    async def count_request(self, key: str) -> Count | None:
        answer = await self.outage.ask(lambda: self.store.count_request(key, self.window * 1000))
        return self.count_of(*(answer or self.counters.count_request(key)))

    async def look_up(
        self, keys: list[str], session_id: UUID, passage: Passage | None = None
    ) -> tuple[Caller | None, Count | None]:
        """The caller to whom the session belongs, or None if it has ended; and the request's count."""
        window_ms = self.window * 1000
        answer = await self.outage.ask(lambda: self.store.look_up_session(keys, window_ms, passage))
        if answer is not None and answer[0] is not None:
            try:
                return caller_of(answer[0]), self.count_of(*answer[1:])
            except msgspec.MsgspecError:  # no service has written that
                self.outage.begin(self.store.distrust())
                answer = None
        asked_at = monotonic()
        caller = await self.find_session(session_id)
        if answer is None:  # Redis is away
            return caller, self.count_alone(keys, caller)
        # From before the question: an answer that took long is remembered for less long.
        alive_ms = int(max(0, ALIVE_CACHE_SECONDS - (monotonic() - asked_at)) * 1000)
        remember_ms = alive_ms if caller else self.tombstone_seconds * 1000
        return await self.remember(keys, caller, remember_ms, passage)

    async def remember(
        self, keys: list[str], caller: Caller | None, remember_ms: int, passage: Passage | None
    ) -> tuple[Caller | None, Count | None]:
        """What PostgreSQL has found, unless there is a tombstone by now; and the request's count."""
        found = msgspec.json.encode(caller) if caller else TOMBSTONE
        answer = await self.outage.ask(
            lambda: self.store.remember_session(keys, self.window * 1000, found, remember_ms, passage)
        )
        if answer is None:
            return caller, self.count_alone(keys, caller)
        return None if answer[0] == TOMBSTONE else caller, self.count_of(*answer[1:])

    def count_alone(self, keys: list[str], caller: Caller | None) -> Count | None:
        """As the scripts of security/scripts.py do."""
        of_caller = keys[1:2] if caller else keys[2:]
        return self.count_of(*self.counters.count_request(of_caller[0])) if of_caller else None

    def count_of(self, count: int, left_ms: int) -> Count | None:
        """None for 0, which means that nothing was counted."""
        return Count(count, self.limit, max(1, ceil(left_ms / 1000)), self.window) if count else None

    async def end_sessions(self, session_ids: Iterable[UUID]) -> None:
        """Make every instance forget these sessions, which PostgreSQL has ended.

        Returns when that is done: at once if Redis takes the tombstones. If it is away, after
        ALIVE_CACHE_SECONDS, because an instance that can reach Redis may remember a session for that long.
        """
        until = monotonic() + ALIVE_CACHE_SECONDS
        for session_id in session_ids:
            while monotonic() < until:
                try:
                    await self.store.write_tombstone(session_id, self.tombstone_seconds)
                    break
                except (*UNAVAILABLE, BusyError):
                    await asyncio.sleep(TOMBSTONE_RETRY_SECONDS)


def caller_of(known: bytes) -> Caller | None:
    """None for a tombstone. Raises MsgspecError for what is neither."""
    return None if known == TOMBSTONE else CALLER_DECODER.decode(known)


@lru_cache(1024)
def network_of(address: str) -> str:
    """Whom to count: an IPv4 address; of an IPv6 address its /64, in which one client may use any address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ip_network((parsed, 64), strict=False))
    return str(parsed)
