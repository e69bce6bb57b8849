"""Free times: when a visit may begin that nobody has to make room for."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from api.schedule.hours import Interval
from persistence.postgres.calendar import Span


class Visit(NamedTuple):
    begins: datetime
    ends: datetime


def free_starts(
    intervals: Sequence[Interval], closed: Iterable[Span], busy: Iterable[Span], after: datetime
) -> Iterator[Visit]:
    """Each visit that could be booked, not beginning before `after`, in the order of time.

    They begin one visit's length after the other, from each interval's begin and within it as a whole, and
    touch nothing of `closed` and of `busy`. `intervals`: by their begin. Where one has begun before another
    has ended, which only a change of the clocks can bring about, the time until then is the other's.
    """
    taken = join(closed, busy)
    ends = [end for _, end in taken]
    for interval in intervals:
        begins = step_from(interval, after)
        while begins + interval.length <= interval.ends:
            visit = Visit(begins, begins + interval.length)
            at = bisect_right(ends, visit.begins)
            if at == len(taken) or visit.ends <= taken[at][0]:
                yield visit
                begins = visit.ends
            else:
                begins = step_from(interval, ends[at])
        after = max(after, interval.ends)


def step_from(interval: Interval, instant: datetime) -> datetime:
    """The first begin of a visit in `interval`, or after it, that is not before `instant`."""
    steps = -((interval.begins - instant) // interval.length)  # rounded up
    return interval.begins + max(steps, 0) * interval.length


def join(*spans: Iterable[Span]) -> list[Span]:
    """The same times, in order, none of which touches another."""
    joined: list[Span] = []
    for begins, ends in sorted(span for some in spans for span in some):
        if joined and begins <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(ends, joined[-1][1]))
        else:
            joined.append((begins, ends))
    return joined


def spans_of(edges: Sequence[datetime]) -> Iterator[Span]:
    """Of begin, end, begin, end …"""
    return zip(edges[::2], edges[1::2], strict=True)
