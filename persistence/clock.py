"""PostgreSQL's clock, which all instances share."""

import logging
from collections.abc import Callable
from time import time
from typing import NamedTuple

from sqlalchemy import text

from persistence.postgres.background import repeat
from persistence.postgres.database import Reader
from persistence.postgres.statements import NOTHING, Nothing, Query

TOLERATED_SECONDS = 5.0  # that this machine's clock may differ and still be taken as it is
MAX_ANSWER_SECONDS = 2.0  # an answer that took longer tells too little
INTERVAL_SECONDS = 10.0
log = logging.getLogger("medisecure.clock")


class Clock(NamedTuple):
    epoch: float


CLOCK = Query(
    Clock, Nothing, text("SELECT CAST(extract(epoch FROM clock_timestamp()) AS double precision) AS epoch")
)


async def find_difference(reader: Reader) -> float | None:
    """Seconds that PostgreSQL's clock is ahead of this machine's: 0 for a few; None where it took too long to
    tell."""
    began = time()
    [row] = await reader.rows(CLOCK, NOTHING)
    ended = time()
    if ended - began > MAX_ANSWER_SECONDS:
        return None
    ahead = row.epoch - (began + ended) / 2
    return ahead if abs(ahead) > TOLERATED_SECONDS else 0.0


async def follow_clock(reader: Reader, set_right: Callable[[float], None]) -> None:
    """Without an end."""

    async def follow() -> tuple[bool, str]:
        ahead = await find_difference(reader)
        if ahead is None:
            return False, "it took too long to tell"
        set_right(ahead)
        return False, f"it differs by {ahead:+.0f} s, which is made up for" if ahead else ""

    await repeat(follow, INTERVAL_SECONDS, log, "This machine's clock and PostgreSQL's: %s")
