"""Background tasks: what the service does periodically, for as long as it runs."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import monotonic

WARNING_INTERVAL_SECONDS = 60.0


async def retry(act: Callable[[], Awaitable[None]], every: float, log: logging.Logger, warning: str) -> None:
    """Call `act` until it succeeds, every `every` seconds; the class of an error is logged by `warning`."""
    while True:
        try:
            return await act()
        except Exception as error:  # whatever it is, the next call may succeed
            log.warning(warning, type(error).__name__)
        await asyncio.sleep(every)


async def repeat(
    act: Callable[[], Awaitable[tuple[bool, str]]], every: float, log: logging.Logger, warning: str
) -> None:
    """Call `act` every `every` seconds, or again at once if it returns that there is more to do. It also
    returns what is wrong, or "". That, or the class of an error that it raised, is logged by `warning`, once
    in WARNING_INTERVAL_SECONDS at most."""
    warned_at = -WARNING_INTERVAL_SECONDS
    while True:
        more, trouble = False, ""
        try:
            more, trouble = await act()
        except Exception as error:  # whatever it is, the next call may succeed
            trouble = type(error).__name__
        if trouble and monotonic() - warned_at >= WARNING_INTERVAL_SECONDS:
            warned_at = monotonic()
            log.warning(warning, trouble)
        if not more:
            await asyncio.sleep(every)
