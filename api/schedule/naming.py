"""The first free time, which a patient is told who has asked for another one."""

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from uuid import UUID

from api.clinic import Clinic
from api.http.errors import BadRequest
from api.http.problems import ErrorCode
from api.schedule.free_times import free_starts, spans_of
from api.schedule.hours import hours_for, intervals_around
from api.schedule.judging import Wish, has_too_many
from api.schedule.weekly import Hours, hours_of
from persistence import free_times
from persistence.free_times import DoctorTimes
from persistence.history import text_of
from persistence.postgres.calendar import LATEST
from persistence.postgres.database import Source
from security import clock

NONE = "there is no free time from then on that you may book within a year"
# How far it is looked for, from then on or from when the hours begin to hold: mostly it is near, and what is
# booked in a year is much to read.
NEAR, FAR = timedelta(days=31), timedelta(days=372)
# Where no time is offered that is so early.
EARLY = {ErrorCode.IN_THE_PAST, ErrorCode.TOO_SOON}


async def name_free_time(
    source: Source, refusal: BadRequest, wish: Wish, doctor: UUID, clinic: Clinic, itself: UUID | None = None
) -> BadRequest:
    """The refusal of a patient's wish, with the first free time at or after the one that was asked for. As it
    is, where that is only too early, and there are no hours or they may book no other. `itself`: the
    appointment that is moved, which makes room for itself."""
    asked = max(wish.begins, datetime.fromtimestamp(clock.now(), UTC))
    row = await free_times.one(source, wish.caller, asked, asked + NEAR, doctor, itself)
    if row is None:
        return refusal  # there is no such doctor
    hours = hours_for(hours_of(row.hours), clinic)
    may_book = itself is not None or not has_too_many(row.open_visits, clinic)
    if refusal.code in EARLY and (hours is None or not may_book):
        return refusal
    found = await find_free_time(source, wish, asked, row, hours, clinic, itself)
    said = f"the first free time from then on is {text_of(found)}" if found else NONE
    return BadRequest(f"{refusal.detail}; {said}", refusal.code)


async def find_free_time(
    source: Source,
    wish: Wish,
    asked: datetime,
    row: DoctorTimes,
    hours: Sequence[Hours] | None,
    clinic: Clinic,
    itself: UUID | None,
) -> datetime | None:
    """`row`: of the time from `asked` on that is near; `hours`: those that count for the doctor."""
    first, latest = clinic.span_for_patients(row.now)
    later = min(max(asked + NEAR, begin_of(hours, asked)), LATEST)
    for since, until in ((asked, asked + NEAR), (later, later + FAR)):
        until = min(until, latest)
        intervals = intervals_around(hours, since, until, clinic)
        if not intervals:
            continue
        if since > asked:
            row = await free_times.one(source, wish.caller, since, until, row.id, itself) or row
        visits = free_starts(intervals, spans_of(row.closed), spans_of(row.taken), max(since, first))
        visit = next(visits, None)
        if visit and visit.begins < until:
            return visit.begins
    return None


def begin_of(hours: Sequence[Hours] | None, asked: datetime) -> datetime:
    """When some of the hours begin to hold, or up to three days before; `asked` where they do by then."""
    to_come = [one for one in hours or () if one.valid_until is None or one.valid_until >= asked.date()]
    first = min((max(one.valid_from or asked.date(), asked.date()) for one in to_come), default=asked.date())
    return max(asked, datetime.combine(first, time(), UTC) - timedelta(days=2))
