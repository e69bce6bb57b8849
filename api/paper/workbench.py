"""Work that would hold up the event loop, and so everybody."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from time import monotonic
from typing import TypeVar

from persistence.postgres.deadline import stop_clock
from security.passwords import TooBusyError, lower_priority

Made = TypeVar("Made")


class Workbench:
    """Does one piece of work at a time, in a thread and at a lower priority than the requests; `places` may
    be there at once, the one at work among them."""

    def __init__(self, places: int = 16) -> None:
        self.places = BoundedSemaphore(places)
        self.pool = ThreadPoolExecutor(1, "workbench", initializer=lower_priority)

    async def do(self, work: Callable[[], Made]) -> Made:
        """What `work` returns. Raises TooBusyError, which is a 503, at once where no place is free."""
        if not self.places.acquire(blocking=False):
            raise TooBusyError
        began, future = monotonic(), self.pool.submit(work)
        # The place is free when the thread is, which may be long after a client that disconnected.
        future.add_done_callback(lambda _: self.places.release())
        made = await asyncio.wrap_future(future)
        stop_clock(monotonic() - began)
        return made

    def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)
