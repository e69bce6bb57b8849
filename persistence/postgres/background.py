"""What the service does by itself, for as long as it runs."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import monotonic

SAY = 60.0  # seconds between two warnings


async def keep(
    act: Callable[[], Awaitable[tuple[bool, str]]], every: float, log: logging.Logger, warning: str
) -> None:
    """Do `act` again and again, every so many seconds, or at once where it says that there is more to do. Its
    other word is what is wrong, "" where nothing is; that, or the kind of error that it raised, goes into
    `warning`, at most one in SAY."""
    said = -SAY
    while True:
        more, trouble = False, ""
        try:
            more, trouble = await act()
        except Exception as error:  # whatever it is, it is tried again
            trouble = type(error).__name__
        if trouble and monotonic() - said >= SAY:
            said = monotonic()
            log.warning(warning, trouble)
        if not more:
            await asyncio.sleep(every)
