"""The time by which tokens are issued and expire: this machine's, set right by a clock that all instances
share (persistence/clock.py). So instances accept each other's tokens although their machines differ."""

from time import time

ahead = 0.0  # seconds that the shared clock is ahead of this machine's


def now() -> float:
    """Seconds since the epoch."""
    return time() + ahead


def set_right(by: float) -> None:
    global ahead
    ahead = by
