"""Counters of requests in this process alone, for while Redis is away."""

from time import monotonic
from typing import NamedTuple

MAX_COUNTERS = 50_000  # some 15 MB


class Window(NamedTuple):
    """`ends`: of the monotonic clock."""

    requests: int
    ends: float


class ProcessCounters:
    """Fixed windows of `window_ms`, each from the first request of its key. So the older a window, the sooner
    it ends; beyond MAX_COUNTERS the oldest are forgotten, whose callers gain the rest of a window."""

    def __init__(self, window_ms: int) -> None:
        self.window_ms = window_ms
        self.windows: dict[str, Window] = {}  # in the order in which they began
        self.counted = 0  # requests, since the process began

    def count_request(self, key: str) -> tuple[int, int]:
        """The count in this window, and the milliseconds that are left of it, as CounterStore has them."""
        now = monotonic()
        self.counted += 1
        self.forget_ended(now)
        before = self.windows.get(key) or Window(0, now + self.window_ms / 1000)
        self.windows[key] = Window(before.requests + 1, before.ends)
        return before.requests + 1, int((before.ends - now) * 1000)

    def forget_ended(self, now: float) -> None:
        while self.windows:
            oldest = next(iter(self.windows))
            if self.windows[oldest].ends > now and len(self.windows) < MAX_COUNTERS:
                return
            del self.windows[oldest]
