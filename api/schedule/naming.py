"""The first free time, which a patient is told who has asked for another one."""

from datetime import datetime, timedelta
from uuid import UUID

from api.clinic import Clinic
from api.http.errors import BadRequest
from api.schedule.free_times import free_starts, spans_of
from api.schedule.hours import hours_for, intervals_around
from api.schedule.judging import Wish
from api.schedule.weekly import hours_of
from persistence import free_times
from persistence.history import text_of
from persistence.postgres.database import Source

NONE = "there is no free time from then on that you may book within a year"
# How far it is looked for: mostly it is near, and what is booked in a year is much to read.
NEAR, FAR = timedelta(days=31), timedelta(days=372)


async def name_free_time(
    source: Source, refusal: BadRequest, wish: Wish, doctor: UUID, clinic: Clinic, itself: UUID | None = None
) -> BadRequest:
    """The refusal of a patient's wish, with the first free time at or after the one that was asked for."""
    found = await find_free_time(source, wish, doctor, clinic, itself)
    said = f"the first free time from then on is {text_of(found)}" if found else NONE
    return BadRequest(f"{refusal.detail}; {said}", refusal.code)


async def find_free_time(
    source: Source, wish: Wish, doctor: UUID, clinic: Clinic, itself: UUID | None
) -> datetime | None:
    """`itself`: the appointment that is moved, which makes room for itself."""
    asked = wish.begins
    row = await free_times.one(source, wish.caller, asked, asked + NEAR, doctor, itself)
    if row is None:  # pragma: no cover - the doctor has gone since the refusal
        return None
    hours = hours_for(hours_of(row.hours), clinic)
    first, latest = clinic.span_for_patients(row.now)
    for since, until in ((asked, asked + NEAR), (asked + NEAR, asked + FAR)):
        until = min(until, latest)
        intervals = intervals_around(hours, since, until, clinic)
        if not intervals:
            continue
        if since > asked:
            row = await free_times.one(source, wish.caller, since, until, doctor, itself) or row
        visits = free_starts(intervals, spans_of(row.closed), spans_of(row.taken), max(since, first))
        visit = next(visits, None)
        if visit and visit.begins < until:
            return visit.begins
    return None
