"""Until when a request may wait for PostgreSQL, with all that it asks of it: a server that hangs, a lock that
is never free and a pool that stays busy cost a client less than ten seconds, however they add up.

What no request waits for, such as commands and background work, has no deadline.
"""

import asyncio
from contextvars import ContextVar
from time import monotonic
from typing import TypeVar

from persistence.postgres.failures import PoolTimeoutError

REQUEST_SECONDS = 8.0  # leaves two for all that is not PostgreSQL
Answer = TypeVar("Answer")
DEADLINE: ContextVar[float | None] = ContextVar("deadline", default=None)  # of the monotonic clock


def start_clock() -> None:
    """From now on, this task and those that it starts have REQUEST_SECONDS for PostgreSQL."""
    DEADLINE.set(monotonic() + REQUEST_SECONDS)


def stop_clock(seconds: float) -> None:
    """Give the seconds back that passed while somebody else was waited for."""
    deadline = DEADLINE.get()
    if deadline is not None:
        DEADLINE.set(deadline + seconds)


def seconds_left() -> float | None:
    """None where there is no deadline; zero or less where it has passed."""
    deadline = DEADLINE.get()
    return None if deadline is None else deadline - monotonic()


def seconds_for(at_most: float) -> float:
    """So many seconds, or what is left if that is less."""
    left = seconds_left()
    return at_most if left is None else min(at_most, left)


async def in_time(future: "asyncio.Future[Answer]", at_most: float) -> Answer:
    """What somebody else sets as its result. Raises PoolTimeoutError after `at_most` seconds, or at the
    deadline."""
    late = asyncio.get_running_loop().call_later(seconds_for(at_most), fail_waiting, future)
    try:
        return await future
    finally:
        late.cancel()


def fail_waiting(future: "asyncio.Future[Answer]") -> None:
    if not future.done():
        future.set_exception(PoolTimeoutError())
