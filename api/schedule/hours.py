"""Working hours in the clinic's calendar: when exactly somebody works on given days.

Wall times become instants as in RFC 5545, 3.3.5: one that the clocks leave out is read by the offset before
that, and of one that they show twice the first is meant."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple
from zoneinfo import ZoneInfo

from api.clinic import Clinic
from api.schedule.weekly import DAY_MINUTES, Hours
from persistence.postgres.calendar import FIRST, LAST, Span, calendar_of

ALWAYS = tuple(Hours(weekday, 0, DAY_MINUTES) for weekday in range(1, 8))
ONE_DAY = timedelta(days=1)


class Interval(NamedTuple):
    """A time in which somebody works, in UTC, and how long a visit takes that begins in it."""

    begins: datetime
    ends: datetime
    length: timedelta


def hours_for(own: Sequence[Hours] | None, clinic: Clinic) -> Sequence[Hours] | None:
    """A doctor's own hours, or the clinic's where they have none of their own; None: always."""
    return clinic.hours if own is None else own


def intervals_of(hours: Sequence[Hours] | None, days: Iterable[date], clinic: Clinic) -> list[Interval]:
    """When somebody with these hours works on these days, by its begin. None: all day. A day that the zone
    skips has none, nor one that the calendar does not cover. Only where clocks go forward two may overlap."""
    week: dict[int, list[Hours]] = defaultdict(list)
    for one in ALWAYS if hours is None else hours:
        week[one.weekday].append(one)
    return sorted(one for day in days for one in intervals_on(day, week[day.isoweekday()], clinic))


def intervals_on(day: date, hours: Sequence[Hours], clinic: Clinic) -> Iterator[Interval]:
    """`hours`: those of its weekday."""
    zone = clinic.timezone
    if not is_day(day, zone):
        return
    for one in hours:
        if one.covers(day):
            begins, ends = instant_of(day, one.opens, zone), instant_of(day, one.closes, zone)
            length = timedelta(minutes=one.minutes) if one.minutes else clinic.appointment_length
            if begins < ends:  # else the clocks leave it out
                yield Interval(begins, ends, length)


def days_around(begins: datetime, ends: datetime, clinic: Clinic) -> list[date]:
    """Whose intervals may have a moment from `begins` to `ends`: where clocks change at midnight, one may
    reach into another day."""
    first = clinic.day_of(begins) - ONE_DAY
    return [first + n * ONE_DAY for n in range((clinic.day_of(ends) - first).days + 2)]


def intervals_around(
    hours: Sequence[Hours] | None, begins: datetime, ends: datetime, clinic: Clinic
) -> list[Interval]:
    """Those that have a moment from `begins` to `ends`."""
    intervals = intervals_of(hours, days_around(begins, ends, clinic), clinic)
    return [interval for interval in intervals if interval.begins < ends and begins < interval.ends]


def length_at(intervals: Iterable[Interval], instant: datetime, clinic: Clinic) -> timedelta:
    """How long a visit takes that begins then: outside of the intervals, as long as at the clinic."""
    lengths = (interval.length for interval in intervals if interval.begins <= instant < interval.ends)
    return next(lengths, clinic.appointment_length)


def joined(intervals: Iterable[Interval]) -> list[Span]:
    """Without a seam where one begins when another ends. `intervals`: by their begin."""
    spans: list[Span] = []
    for begins, ends, _ in intervals:
        if spans and begins <= spans[-1][1]:
            spans[-1] = spans[-1][0], max(ends, spans[-1][1])
        else:
            spans.append((begins, ends))
    return spans


def open_around(hours: Sequence[Hours], visits: Iterable[Span], clinic: Clinic) -> list[Span]:
    """When somebody with these hours works near any of the visits, without seams."""
    days = {day for begins, ends in visits for day in days_around(begins, ends, clinic)}
    return joined(intervals_of(hours, days, clinic))


def is_inside(intervals: Iterable[Interval], begins: datetime, ends: datetime) -> bool:
    """Whether somebody works all the time from `begins` to `ends`: in one interval, or in several of which
    one begins where another ends. `intervals`: by their begin."""
    return is_within(joined(intervals), begins, ends)


def is_within(spans: Sequence[Span], begins: datetime, ends: datetime) -> bool:
    """Whether one of the spans, which are apart and in order, has all the time from `begins` to `ends`."""
    place = bisect_right(spans, begins, key=itemgetter(0))
    return place > 0 and ends <= spans[place - 1][1]


def instant_of(day: date, minutes: int, zone: ZoneInfo) -> datetime:
    """The moment at which the clocks show so many minutes after midnight."""
    shown = datetime.combine(day, time()) + timedelta(minutes=minutes)
    return shown.replace(tzinfo=zone).astimezone(UTC)


@lru_cache(4096)
def is_day(day: date, zone: ZoneInfo) -> bool:
    """Whether there is such a day in the calendar of the zone."""
    return FIRST <= day <= LAST and any(begins < ends for begins, ends in calendar_of(zone).spans(day))
