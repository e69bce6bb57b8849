"""The first free time, which a patient is told who has asked for another one."""

from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from api.clinic import Clinic
from api.http.errors import BadRequest
from api.schedule.free_times import free_starts, spans_of
from api.schedule.hours import ONE_DAY, hours_for, intervals_around
from api.schedule.judging import Wish
from api.schedule.weekly import Hours
from persistence import free_times
from persistence.history import text_of
from persistence.postgres.database import Source

AT_ONCE = timedelta(days=31)  # that are looked at
LONGEST = timedelta(days=366)  # after which nobody looks any further


async def name_free_time(
    source: Source, refusal: BadRequest, wish: Wish, doctor: UUID, clinic: Clinic, itself: UUID | None = None
) -> BadRequest:
    """The refusal of a patient's wish, with the first free time at or after the one that was asked for."""
    found = await find_free_time(source, wish, doctor, clinic, itself)
    said = f"the first free time from then on is {text_of(found)}" if found else "none is free within a year"
    return BadRequest(f"{refusal.detail}; {said}", refusal.code)


async def find_free_time(
    source: Source, wish: Wish, doctor: UUID, clinic: Clinic, itself: UUID | None
) -> datetime | None:
    """`itself`: the appointment that is moved, which makes room for itself."""
    since, last = wish.begins, wish.begins + LONGEST
    while since < last:
        until = since + AT_ONCE
        row = await free_times.one(source, wish.caller, since, until + ONE_DAY, doctor, itself)
        if row is None:
            return None
        first, latest = clinic.span_for_patients(row.now)
        own = None if row.hours is None else msgspec.convert(row.hours, list[Hours])
        intervals = intervals_around(hours_for(own, clinic), since, until, clinic)
        visits = free_starts(intervals, spans_of(row.closed), spans_of(row.taken), max(since, first))
        visit = next(visits, None)
        if visit and visit.begins < until:
            return visit.begins if visit.begins < latest else None
        since, last = until, min(last, latest)
    return None
