"""A time-out that is often started and rarely reached."""

import asyncio
from asyncio import TimerHandle
from collections.abc import Callable


class IdleTimer:
    """Calls `on_timeout` when `seconds` have passed since `start` without a `stop`. It keeps one timer of the
    event loop, because a new one at each `start` costs more than the rest of HTTP for a short request."""

    timer: TimerHandle | None = None
    started_at: float | None = None  # in the event loop's time; None while stopped

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float, on_timeout: Callable[[], None]
    ) -> None:
        self.loop, self.seconds, self.on_timeout = loop, seconds, on_timeout

    def start(self) -> None:
        self.started_at = self.loop.time()
        if self.timer is None:
            self.timer = self.loop.call_later(self.seconds, self.check)

    def stop(self) -> None:
        self.started_at = None

    def close(self) -> None:
        if self.timer:
            self.timer.cancel()

    def check(self) -> None:
        self.timer = None
        if self.started_at is None:
            return
        left = self.started_at + self.seconds - self.loop.time()
        if left > 0:
            self.timer = self.loop.call_later(left, self.check)
        else:
            self.on_timeout()
