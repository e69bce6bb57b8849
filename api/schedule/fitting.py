"""How a visit lies in somebody's hours."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from api.clinic import Clinic
from api.schedule.hours import ONE_DAY, Interval, hours_for, intervals_of, is_inside, length_at
from api.schedule.weekly import Hours


class Fit(NamedTuple):
    """Of a visit from `begins` to `ends`. `intervals`: near it; None where there are no hours at all."""

    begins: datetime
    ends: datetime
    intervals: Sequence[Interval] | None

    @property
    def is_inside(self) -> bool:
        """Whether the whole visit is within the hours."""
        return self.intervals is None or is_inside(self.intervals, self.begins, self.ends)

    @property
    def is_offered(self) -> bool:
        """Whether it is one of the times that patients are offered, as long as nothing else takes it."""
        if self.intervals is None:
            return True
        around = (one for one in self.intervals if one.begins <= self.begins < one.ends)
        return any(
            (self.begins - one.begins) % one.length == timedelta() and self.ends <= one.ends
            for one in islice(around, 1)
        )


@lru_cache(4096)
def intervals_near(hours: tuple[Hours, ...], day: date, clinic: Clinic) -> tuple[Interval, ...]:
    """Those that a visit may touch which begins on that day; none takes longer than a day."""
    return tuple(intervals_of(hours, (day + number * ONE_DAY for number in (-1, 0, 1, 2)), clinic))


def fit(
    own: Sequence[Hours] | None, begins: datetime, clinic: Clinic, length: timedelta | None = None
) -> Fit:
    """A visit with a doctor whose own hours are `own`, as long as the hours say. `length`: how long it takes
    where there are no hours at all; by default as long as at the clinic."""
    hours = hours_for(own, clinic)
    if hours is None:
        return Fit(begins, begins + (length or clinic.appointment_length), None)
    intervals = intervals_near(tuple(hours), clinic.day_of(begins), clinic)
    return Fit(begins, begins + length_at(intervals, begins, clinic), intervals)
