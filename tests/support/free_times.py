"""Free times by another way than the service's, which looks at each time there is; and days, hours, leave and
bookings at random."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from itertools import count
from random import Random
from typing import NamedTuple
from zoneinfo import ZoneInfo

from api.clinic import Clinic
from api.schedule.weekly import Hours
from persistence.postgres.calendar import EARLIEST, LATEST, Span, calendar_of

ZONES = ("Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Pacific/Apia", "Atlantic/Azores")
LENGTHS = (10, 15, 20, 25, 30, 45, 60, 90, 480)  # minutes
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)


class Case(NamedTuple):
    """`hours`: those of the doctor; None: always."""

    clinic: Clinic
    day: date
    hours: tuple[Hours, ...] | None
    closed: list[Span]
    busy: list[Span]
    after: datetime

    @property
    def days(self) -> list[date]:
        return [self.day - DAY, self.day, self.day + DAY]


@cache
def changes_of(name: str) -> list[datetime]:
    """When the clocks of a zone change."""
    changes = (datetime.fromtimestamp(change, UTC) for change in calendar_of(ZoneInfo(name)).changes)
    return [change for change in changes if EARLIEST + 3 * DAY < change < LATEST - 3 * DAY]


def random_case(random: Random, name: str = "", since: datetime = EARLIEST) -> Case:
    """`name`: of the zone. `since`: before all of it."""
    name = name or random.choice(ZONES)
    zone = ZoneInfo(name)
    around = max(since, datetime(2000, 1, 1, tzinfo=UTC)) + random.randrange(10, 36500) * DAY
    changes = [change for change in changes_of(name) if change > since + 3 * DAY]
    near = None
    if changes and random.random() < 0.6:
        around = random.choice(changes)
        shown = around.astimezone(zone)
        near = shown.hour * 60 + shown.minute
    day = (around.astimezone(zone) + random.choice((-1, 0, 0, 0, 1)) * DAY).date()
    clinic = Clinic("Clinic", zone, random.choice(LENGTHS) * MINUTE, "EUR", 0)
    hours = None if random.random() < 0.05 else random_hours(random, day, near)
    noon = datetime.combine(day, time(12), UTC)
    closed = [random_span(random, noon, 60) for _ in range(random.randrange(3))]
    busy = [random_span(random, noon, 5) for _ in range(random.randrange(12))]
    after = noon + random.randrange(-3000, 1000) * MINUTE + random.randrange(2) * timedelta(seconds=17)
    return Case(clinic, day, hours, closed, busy, after)


def random_hours(random: Random, day: date, near: int | None) -> tuple[Hours, ...]:
    """Of that day and the ones beside it, none of which overlap. `near`: minutes after midnight around which
    most of them are, as clocks change then."""
    hours = []
    for weekday in {(day + number * DAY).isoweekday() for number in (-1, 0, 0, 1)}:
        minutes_of_day = range(0, 1441, random.choice((1, 5, 15, 30)))
        if near is not None and random.random() < 0.7:
            minutes_of_day = range(max(near - 150, 0), min(near + 150, 1440) + 1, random.choice((5, 15, 20)))
        edges = sorted(random.sample(minutes_of_day, 2 * random.randrange(4)))
        for opens, closes in zip(edges[::2], edges[1::2], strict=True):
            minutes = random.choice((None, *LENGTHS))
            valid_from, valid_until = (
                random.choice((None, None, None, day + random.randrange(-3, 4) * DAY)) for _ in range(2)
            )
            hours.append(Hours(weekday, opens, closes, valid_from, valid_until, minutes))
    return tuple(hours)


def random_span(random: Random, noon: datetime, step: int) -> Span:
    """`step`: minutes; what bookings begin and end at is mostly a round time."""
    begins = noon + random.randrange(-2000 // step, 2000 // step) * step * MINUTE
    return begins, begins + random.randrange(1, 20) * step * MINUTE


def model_of(case: Case) -> list[Span]:
    """The visits that are free, by their begin."""
    hours = case.hours
    if hours is None:
        hours = tuple(Hours(weekday, 0, 1440) for weekday in range(1, 8))
    worked = sorted(
        (begins, ends, timedelta(minutes=one.minutes) if one.minutes else case.clinic.appointment_length)
        for day in case.days
        if is_day(day, case.clinic.timezone)
        for one in hours
        if one.weekday == day.isoweekday()
        if (one.valid_from or day) <= day <= (one.valid_until or day)
        for begins, ends in [[shown_at(day, at, case.clinic.timezone) for at in (one.opens, one.closes)]]
        if begins < ends
    )
    return sorted(
        (begins, begins + length)
        for at, (opens, closes, length) in enumerate(worked)
        for begins in steps(opens, closes, length)
        if begins >= case.after
        if not any(one[0] <= begins < one[1] for one in worked[:at])
        if not any(begins < end and start < begins + length for start, end in case.closed + case.busy)
    )


def steps(opens: datetime, closes: datetime, length: timedelta) -> Iterator[datetime]:
    for number in count():
        begins = opens + number * length
        if begins + length > closes:
            return
        yield begins


def is_day(day: date, zone: ZoneInfo) -> bool:
    """Whether the clocks show that date at any time."""
    start = datetime.combine(day, time(), UTC)
    return any((start + n * MINUTE).astimezone(zone).date() == day for n in range(-1500, 3000, 120))


def shown_at(day: date, minutes: int, zone: ZoneInfo) -> datetime:
    """When the clocks show so many minutes after midnight (RFC 5545, 3.3.5): at first, if they do so twice;
    as they would without the change, if they leave it out."""
    wall = datetime.combine(day, time(), UTC) + minutes * MINUTE
    offsets = {offset_at(wall + n * timedelta(hours=30), zone) for n in (-1, 1)}  # changes are days apart
    shown = [wall - offset for offset in offsets if offset_at(wall - offset, zone) == offset]
    if shown:
        return min(shown)
    before = wall - 2 * DAY
    while before + MINUTE + offset_at(before + MINUTE, zone) < wall:
        before += MINUTE
    return wall - offset_at(before, zone)


def offset_at(instant: datetime, zone: ZoneInfo) -> timedelta:
    return instant.astimezone(zone).utcoffset() or timedelta()
