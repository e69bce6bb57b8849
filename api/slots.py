"""Free times: when a doctor may be booked, and which doctor may be booked first."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from heapq import merge
from itertools import islice, takewhile
from typing import Annotated

from litestar import Controller
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.params import FromQuery, QueryParameter
from msgspec import Meta

from api.accounts import Label
from api.clinic import Clinic
from api.http.errors import InvalidInput
from api.http.fields import MAX_PAGE_SIZE, Day, Id, Instant, Limit, Name, Output, PathId, path_id
from api.http.operation import get
from api.http.problems import ErrorCode, Fault
from api.http.requests import StrictRequest
from api.schedule.free_times import free_starts, spans_of
from api.schedule.hours import Interval, hours_for, intervals_around
from api.schedule.judging import has_too_many
from api.schedule.weekly import Hours, hours_of
from persistence import free_times
from persistence.audit import Action
from persistence.free_times import DoctorTimes, Narrowed
from persistence.postgres.calendar import LATEST, Span
from persistence.postgres.database import Reader
from security import clock
from security.roles import Role

MAX_DAYS = 31
LAST = datetime.max.replace(tzinfo=UTC)
MAX_SLOTS = 2880  # visits of a minute, on a day that came twice


class DoctorSlots(Output):
    slots: Annotated[list[Instant], Meta(max_length=MAX_SLOTS)]


class Slot(Output):
    doctor_id: Id
    doctor_name: Name
    date: Instant


class SlotList(Output):
    slots: Annotated[list[Slot], Meta(max_length=MAX_PAGE_SIZE)]


def window_of(since: datetime | None, until: datetime | None) -> Span:
    """From when to when is asked for. Raises 400 where that is backwards or too long."""
    begins = (since or datetime.fromtimestamp(clock.now(), UTC)).astimezone(UTC)
    longest = begins + min(timedelta(days=MAX_DAYS), LAST - begins)
    ends = until.astimezone(UTC) if until else longest
    if ends < begins:
        raise refusal(ErrorCode.BAD_ORDER, "must not be before from, which is now if it is not given")
    if ends > longest:
        detail = f"must be at most {MAX_DAYS} days after from, which is now if it is not given"
        raise refusal(ErrorCode.OUT_OF_RANGE, detail)
    return begins, ends


def refusal(code: ErrorCode, detail: str) -> InvalidInput:
    return InvalidInput([Fault(parameter="to", code=code, detail=detail)])


def to_come(begins: datetime, ends: datetime) -> Span:
    """What of that time has not passed, give or take what clocks differ by, and is in the calendar."""
    passed = datetime.fromtimestamp(clock.now(), UTC) - timedelta(minutes=1)
    begins = min(max(begins, passed), LATEST)
    return begins, max(begins, min(ends, LATEST))


def narrowed_for(role: Role, row: DoctorTimes, window: Span, clinic: Clinic) -> Span:
    """What of that time has not begun, and may be booked by somebody of that role."""
    begins, ends = window
    if role is not Role.PATIENT:
        return max(begins, row.now), ends
    first, end = clinic.span_for_patients(row.now)
    return max(begins, first), begins if has_too_many(row.open_visits, clinic) else min(ends, end)


def offered(
    role: Role, rows: list[DoctorTimes], window: Span, clinic: Clinic
) -> Iterator[tuple[datetime, DoctorTimes]]:
    """When a visit may begin in the time that is asked for, and with whom: by date, and at the same date in
    the order of `rows`."""

    @cache  # most doctors have the clinic's hours
    def intervals(hours: tuple[Hours, ...] | None) -> list[Interval]:
        return intervals_around(hours_for(hours, clinic), *window, clinic)

    def dates_of(place: int, row: DoctorTimes) -> Iterator[tuple[datetime, int]]:
        after, ends = narrowed_for(role, row, window, clinic)
        visits = free_starts(intervals(hours_of(row.hours)), spans_of(row.closed), spans_of(row.taken), after)
        return ((visit.begins, place) for visit in takewhile(lambda visit: visit.begins < ends, visits))

    dates = merge(*(dates_of(place, row) for place, row in enumerate(rows)))
    return ((date, rows[place]) for date, place in dates)


class SlotController(Controller):
    @get("/api/doctors/{id:str}/slots", operation_id="listDoctorSlots", action=Action.DOCTOR_READ)
    async def list_doctor_slots(
        self,
        id: PathId,
        request: StrictRequest,
        near_reader: NamedDependency[Reader],
        clinic: NamedDependency[Clinic],
        date: FromQuery[Day],
    ) -> DoctorSlots:
        spans = clinic.calendar.spans(date)
        window = to_come(spans[0][0], spans[-1][1])
        row = await free_times.one(near_reader, request.user, *window, path_id(id, "Doctor"))
        if row is None:
            raise NotFoundException("Doctor not found")
        free = (at for at, _ in offered(request.user.role, [row], window, clinic))
        return DoctorSlots([at for at in free if clinic.day_of(at) == date])

    @get("/api/slots", operation_id="listSlots")
    async def list_slots(
        self,
        request: StrictRequest,
        near_reader: NamedDependency[Reader],
        clinic: NamedDependency[Clinic],
        limit: Limit = 10,
        since: Annotated[Instant | None, QueryParameter(name="from")] = None,
        until: Annotated[Instant | None, QueryParameter(name="to")] = None,
        specialization: FromQuery[Label | None] = None,
        doctor_id: Annotated[Id | None, QueryParameter(name="doctorId")] = None,
    ) -> SlotList:
        window = to_come(*window_of(since, until))
        narrowed = Narrowed()
        if doctor_id:
            narrowed["doctor"] = doctor_id
        if specialization:
            narrowed["specialization"] = specialization
        rows = await free_times.find(near_reader, request.user, *window, **narrowed)
        first = islice(offered(request.user.role, rows, window, clinic), limit)
        return SlotList([Slot(row.id, row.name, at) for at, row in first])
