"""Working hours of a week: as rules, as an answer shows them, and as the settings have the clinic's."""

import re
from collections.abc import Iterator, Sequence
from datetime import date
from itertools import combinations
from typing import Annotated

import msgspec
from msgspec import Meta, Struct, field

from api.http.fields import CLOCK, INT32, Clock, Day, Output
from persistence.schedule_tables import StoredHours

DAY_MINUTES = 24 * 60
MAX_HOURS = 200  # of one doctor: a year of weeks, each with some days of its own
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
EXAMPLE = "Mon-Fri 08:00-17:00; Sat 09:00-12:00"
DAYS = re.compile(r"([A-Z][a-z]{2})(?:-([A-Z][a-z]{2}))?")
TIMES = re.compile(r"([0-9]{2}:[0-9]{2})-([0-9]{2}:[0-9]{2})")
Weekday = Annotated[int, Meta(ge=1, le=7, extra_json_schema=INT32)]
VisitMinutes = Annotated[int, Meta(ge=1, le=DAY_MINUTES, extra_json_schema=INT32)]


class Hours(Struct, frozen=True):
    """From when to when people work on one weekday (Monday is 1), in minutes after midnight, `closes` up to
    1440. The dates, each included, are the first and the last day on which it is so; None where there is
    none. `minutes`: how long a visit takes then, where not as long as at the clinic."""

    weekday: int
    opens: int
    closes: int
    valid_from: date | None = None
    valid_until: date | None = None
    minutes: int | None = None

    def covers(self, day: date) -> bool:
        """Whether they hold on `day`, which is one of their weekday."""
        return (self.valid_from is None or self.valid_from <= day) and (
            self.valid_until is None or day <= self.valid_until
        )


class WorkingHours(Output):
    weekday: Weekday
    from_: Clock = field(name="from")
    to: Clock
    valid_from: Day | None
    valid_until: Day | None
    minutes: VisitMinutes | None


HoursList = Annotated[list[WorkingHours], Meta(max_length=MAX_HOURS)]


def shown_hours(hours: Sequence[Hours]) -> list[WorkingHours]:
    return [
        WorkingHours(
            one.weekday,
            clock_of(one.opens),
            clock_of(one.closes),
            one.valid_from,
            one.valid_until,
            one.minutes,
        )
        for one in hours
    ]


def stored_hours(hours: Sequence[Hours]) -> StoredHours:
    """As JSON keeps them."""
    return [msgspec.to_builtins(one) for one in hours]


def hours_of(stored: object) -> tuple[Hours, ...] | None:
    """What `stored_hours` has made; None where nothing is stored."""
    return msgspec.convert(stored, tuple[Hours, ...] | None)


def minutes_of(clock: str) -> int:
    """`08:30` as minutes after midnight. ValueError where it is no time of a day, nor `24:00`."""
    if not re.fullmatch(CLOCK, clock):
        raise ValueError(f"{clock} is no time from 00:00 to 24:00")
    return int(clock[:2]) * 60 + int(clock[3:])


def clock_of(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


def find_overlap(hours: Sequence[Hours]) -> tuple[int, int] | None:
    """The places of two that share a minute of some day."""
    for (first, one), (second, other) in combinations(enumerate(hours), 2):
        share_minutes = one.opens < other.closes and other.opens < one.closes
        if one.weekday == other.weekday and share_minutes and have_common_day(one, other):
            return first, second
    return None


def have_common_day(one: Hours, other: Hours) -> bool:
    """Whether there is a day of their weekday on which both are valid."""
    begins = [day for day in (one.valid_from, other.valid_from) if day]
    ends = [day for day in (one.valid_until, other.valid_until) if day]
    if not begins or not ends:
        return True
    first, last = max(begins), min(ends)
    return (last - first).days >= (one.weekday - first.isoweekday()) % 7


def parse_hours(text: str) -> tuple[Hours, ...]:
    """CLINIC_HOURS, such as `Mon-Fri 08:00-12:00, 13:00-17:00; Sat,Sun 10:00-12:00`. ValueError for what is
    none, in words."""
    hours = tuple(one for part in text.split(";") if part.strip() for one in parse_part(part.strip()))
    if not hours:
        raise ValueError(f"must be days and times, such as {EXAMPLE}")
    if len(hours) > MAX_HOURS:
        raise ValueError(f"must be at most {MAX_HOURS} times of all days together")
    if overlap := find_overlap(hours):
        day = WEEKDAYS[hours[overlap[0]].weekday - 1]
        raise ValueError(f"has two times on {day} that overlap")
    return hours


def parse_part(part: str) -> Iterator[Hours]:
    days, _, times = re.sub(r"\s*([,-])\s*", r"\1", part).partition(" ")
    for weekday in weekdays_of(days):
        for written in times.strip().split(","):
            if not (found := TIMES.fullmatch(written)):
                raise ValueError(f"must be days and times, such as {EXAMPLE}; {part!r} is neither")
            opens, closes = minutes_of(found[1]), minutes_of(found[2])
            if opens >= closes:
                raise ValueError(f"must open before it closes, which {written} does not")
            yield Hours(weekday, opens, closes)


def weekdays_of(days: str) -> Iterator[int]:
    """Of `Mon-Wed,Sat`: 1, 2, 3, 6. A range may pass the end of the week."""
    for written in days.split(","):
        found = DAYS.fullmatch(written)
        if not found or not {found[1], found[2] or found[1]} <= set(WEEKDAYS):
            raise ValueError(f"must name days as {', '.join(WEEKDAYS)}, which {written!r} is not")
        first, last = WEEKDAYS.index(found[1]), WEEKDAYS.index(found[2] or found[1])
        for after in range((last - first) % 7 + 1):
            yield (first + after) % 7 + 1
