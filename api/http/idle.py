"""A time-out that starts anew again and again."""

import asyncio
from asyncio import TimerHandle
from collections.abc import Callable


class IdleTimer:
    """Calls `act` where `seconds` pass between `begin` and `end`. One timer waits for that all the time: to
    make and cancel one at each `begin` costs more than the rest of a short request's protocol."""

    timer: TimerHandle | None = None
    since: float | None = None  # in the loop's time; None while nothing is idle

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, act: Callable[[], None]) -> None:
        self.loop, self.seconds, self.act = loop, seconds, act

    def begin(self) -> None:
        self.since = self.loop.time()
        if self.timer is None:
            self.timer = self.loop.call_later(self.seconds, self.look)

    def end(self) -> None:
        self.since = None

    def close(self) -> None:
        if self.timer:
            self.timer.cancel()

    def look(self) -> None:
        self.timer = None
        if self.since is None:
            return
        left = self.since + self.seconds - self.loop.time()
        if left > 0:
            self.timer = self.loop.call_later(left, self.look)
        else:
            self.act()
