"""The clinic's days: an instant's day is the date that the clocks there showed.

There is one definition, a table of the offsets of a time zone: Python and PostgreSQL read two editions of the
time zone database, and do not agree on a midnight that comes twice. A day need not be in one piece: at 00:01
on 7 November 2010 the clocks of St. John's went back to 23:01 of the 6th, and one minute of the 7th was over.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from typing import NamedTuple, TypedDict
from zoneinfo import ZoneInfo

from sqlalchemy import (
    ColumnElement,
    Date,
    Float,
    Integer,
    bindparam,
    cast,
    func,
    literal_column,
    not_,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP
from sqlalchemy.sql.elements import Grouping

from persistence.postgres.declared import AnyColumn

# The calendar that we keep, and days on both sides of it that hold nothing, whatever the time zone.
EARLIEST, LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
FIRST, LAST = EARLIEST.date() - timedelta(days=7), LATEST.date() + timedelta(days=4)
STEP_SECONDS = 5 * 86400  # no zone has changed its clocks twice within six days since 1900
DAY_SECONDS = 86400

Span = tuple[datetime, datetime]


class Calendar(NamedTuple):
    """`offsets[n]`, in seconds, holds from `changes[n - 1]` to `changes[n]`, in seconds since 1970."""

    changes: tuple[float, ...]
    offsets: tuple[int, ...]

    def day_of(self, instant: datetime) -> date:
        offset = self.offsets[bisect_right(self.changes, instant.timestamp())]
        return (instant.astimezone(UTC) + timedelta(seconds=offset)).date()

    def spans(self, day: date) -> list[Span]:
        """Every instant of `day`, from the first of a piece to the first after it: mostly one piece, two
        where clocks went back across midnight, and an empty one where the calendar skips the day."""
        midnight = datetime.combine(min(max(day, FIRST), LAST), time(), UTC).timestamp()
        pieces: list[list[float]] = []
        for begins, ends, offset in self.around(midnight):
            start, stop = max(begins, midnight - offset), min(ends, midnight + DAY_SECONDS - offset)
            if start >= stop:
                continue
            if pieces and pieces[-1][1] == start:
                pieces[-1][1] = stop
            else:
                pieces.append([start, stop])
        return [(utc(start), utc(stop)) for start, stop in pieces or [[midnight, midnight]]]

    def around(self, midnight: float) -> Iterator[tuple[float, float, int]]:
        """(from, to, offset) of the times that a day of that name may reach into, anywhere on earth."""
        low, high = (bisect_right(self.changes, midnight + days * DAY_SECONDS) for days in (-2, 3))
        for number in range(low, high + 1):
            begins = self.changes[number - 1] if number else float("-inf")
            ends = self.changes[number] if number < len(self.changes) else float("inf")
            yield begins, ends, self.offsets[number]


def utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@cache
def calendar_of(zone: ZoneInfo) -> Calendar:
    """The table of `zone`, from what Python knows of it."""

    def offset(seconds: int) -> int:
        shift = utc(seconds).astimezone(zone).utcoffset()
        return int(shift.total_seconds()) if shift is not None else 0

    at, end = (int(datetime.combine(day, time(), UTC).timestamp()) for day in (FIRST, LAST))
    changes: list[float] = []
    offsets = [offset(at)]
    while at < end:
        if offset(at + STEP_SECONDS) == offsets[-1]:
            at += STEP_SECONDS
            continue
        before, after = at, at + STEP_SECONDS
        while after - before > 1:
            middle = (before + after) // 2
            before, after = (middle, after) if offset(middle) == offsets[-1] else (before, middle)
        at = after
        changes.append(at)
        offsets.append(offset(at))
    return Calendar(tuple(changes), tuple(offsets))


class ClockTable(TypedDict):
    """A Calendar, as a statement with `day_of` takes it."""

    clock_changes: Sequence[float]
    clock_offsets: Sequence[int]


class DayBounds(TypedDict, total=False):
    """A day, as a statement with `within_day` takes it."""

    day_begins: datetime
    day_ends: datetime
    gap_begins: datetime
    gap_ends: datetime


def day_of(instant: AnyColumn) -> ColumnElement[date]:
    """Calendar.day_of for a column, by the same table."""
    place = func.width_bucket(
        func.date_part("epoch", instant), bindparam("clock_changes", type_=ARRAY(Float(53)))
    )
    offsets: AnyColumn = Grouping(bindparam("clock_offsets", type_=ARRAY(Integer)))
    offset = offsets[place + 1]  # PostgreSQL counts from 1
    shown = func.timezone("UTC", instant, type_=TIMESTAMP()) + offset * literal_column("interval '1 second'")
    return cast(shown, Date)


def table_of(calendar: Calendar) -> ClockTable:
    return ClockTable(clock_changes=calendar.changes, clock_offsets=calendar.offsets)


def within_day(instant: AnyColumn) -> tuple[ColumnElement[bool], ...]:
    """Whether a column is of a day, whose bounds `bounds_of` gives. The outer bounds are conditions of their
    own, so that the index is used. All bounds are subqueries: otherwise PostgreSQL would make a plan for each
    day, which takes longer than reading it."""
    begins, ends, gap_begins, gap_ends = (
        select(bindparam(name, type_=TIMESTAMP(timezone=True))).scalar_subquery()
        for name in ("day_begins", "day_ends", "gap_begins", "gap_ends")
    )
    return (instant >= begins, instant < ends, not_((instant >= gap_begins) & (instant < gap_ends)))


def bounds_of(spans: Sequence[Span]) -> DayBounds:
    """`spans`: a day's; of none, no bounds."""
    if not spans:
        return DayBounds()
    begins, ends = spans[0][0], spans[-1][1]
    gap = (spans[0][1], spans[1][0]) if len(spans) > 1 else (begins, begins)
    return DayBounds(day_begins=begins, day_ends=ends, gap_begins=gap[0], gap_ends=gap[1])
