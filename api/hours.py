"""When doctors work: the hours of their weeks, and which bookings a change of them leaves outside."""

from collections.abc import Iterator
from typing import Annotated
from uuid import UUID

from litestar import Controller
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.params import JSONBody
from msgspec import UNSET, Meta, UnsetType, field

from api.bookings import Appointment, appointment_of
from api.clinic import Clinic
from api.http.auditing import record_read, record_write
from api.http.conditional import IF_MATCH, Tagged, require_unchanged
from api.http.errors import Forbidden
from api.http.fields import MAX_PAGE_SIZE, Clock, Count, Day, Input, Output, PathId, path_id
from api.http.operation import get, put
from api.http.problems import ErrorCode, Fault
from api.http.requests import Given, StrictRequest
from api.http.violations import field_fault
from api.schedule.hours import hours_for, is_within, open_around
from api.schedule.weekly import (
    MAX_HOURS,
    Hours,
    HoursList,
    VisitMinutes,
    Weekday,
    find_overlap,
    hours_of,
    minutes_of,
    shown_hours,
    stored_hours,
)
from persistence import hours
from persistence.appointments import AppointmentRow
from persistence.audit import Action
from persistence.hours import HoursRow
from persistence.postgres.database import Reader, Source, Transaction
from security.guards import requires
from security.roles import Caller, Role


class WorkingHoursEntry(Input):
    weekday: Weekday
    from_: Clock = field(name="from")
    to: Clock
    valid_from: Day | UnsetType | None = UNSET
    valid_until: Day | UnsetType | None = UNSET
    minutes: VisitMinutes | UnsetType | None = UNSET


class DoctorHours(Output):
    hours: HoursList | None


class DoctorHoursUpdate(Input):
    hours: Annotated[list[WorkingHoursEntry], Meta(max_length=MAX_HOURS)] | None


class DoctorHoursChanged(Output):
    hours: HoursList | None
    appointments: Annotated[list[Appointment], Meta(max_length=MAX_PAGE_SIZE)]
    total: Count


def hours_sent(sent: list[WorkingHoursEntry] | None) -> tuple[Hours, ...] | None:
    if sent is None:
        return None
    return tuple(
        Hours(
            one.weekday,
            minutes_of(one.from_),
            minutes_of(one.to),
            one.valid_from or None,
            one.valid_until or None,
            one.minutes or None,
        )
        for one in sent
    )


def require_sound_hours(given: Given, request: StrictRequest) -> Iterator[Fault]:
    """Each ends after its beginning, and no two have a minute in common."""
    sent = hours_sent(given.get("hours")) or ()
    for number, one in enumerate(sent):
        if one.opens >= one.closes:
            yield field_fault(f"hours/{number}/to", ErrorCode.BAD_ORDER, "must be later than from")
        if one.valid_from and one.valid_until and one.valid_from > one.valid_until:
            detail = "must not be before validFrom"
            yield field_fault(f"hours/{number}/validUntil", ErrorCode.BAD_ORDER, detail)
    if overlap := find_overlap(sent):
        first, second = overlap
        yield field_fault(f"hours/{second}", ErrorCode.OVERLAP, f"overlaps with hours[{first}] on some day")


def require_doctor(found: HoursRow | None) -> DoctorHours:
    """The doctor's hours, or 404."""
    if found is None:
        raise NotFoundException("Doctor not found")
    own = hours_of(found.hours)
    return DoctorHours(None if own is None else shown_hours(own))


def require_own_hours(caller: Caller, doctor_id: UUID) -> None:
    """Raise 403 where a doctor asks for another doctor's hours."""
    if caller.role is Role.DOCTOR and doctor_id != caller.id:
        raise Forbidden("Doctors have to do with their own hours only; admin and staff with any doctor's")


async def find_uncovered(
    source: Source, doctor_id: UUID, own: tuple[Hours, ...] | None, clinic: Clinic
) -> list[AppointmentRow]:
    """The doctor's scheduled appointments, not over yet, that these hours do not cover, by date."""
    week = hours_for(own, clinic)
    if week is None:
        return []
    booked = await hours.booked(source, doctor_id)
    open_at = open_around(week, ((each.date, ends_at) for each, ends_at in booked), clinic)
    return [each for each, ends_at in booked if not is_within(open_at, each.date, ends_at)]


class HoursController(Controller):
    path = "/api/doctors/{id:str}/hours"

    @get(
        operation_id="getDoctorHours",
        action=Action.HOURS_READ,
        guards=[requires(Role.ADMIN, Role.DOCTOR, Role.STAFF)],
    )
    async def get_doctor_hours(
        self, id: PathId, request: StrictRequest, near_reader: NamedDependency[Reader]
    ) -> Tagged[DoctorHours]:
        doctor_id = path_id(id, "Doctor")
        require_own_hours(request.user, doctor_id)
        shown = require_doctor(await hours.one(near_reader, doctor_id))
        await record_read(request, target_id=doctor_id)
        return Tagged(shown)

    @put(
        operation_id="putDoctorHours",
        action=Action.HOURS_UPDATE,
        rules=[require_sound_hours],
        headers=IF_MATCH,
        guards=[requires(Role.ADMIN, Role.DOCTOR, Role.STAFF)],
    )
    async def put_doctor_hours(
        self,
        id: PathId,
        data: JSONBody[DoctorHoursUpdate],
        request: StrictRequest,
        clinic: NamedDependency[Clinic],
        transaction: NamedDependency[Transaction],
    ) -> Tagged[DoctorHoursChanged]:
        """What is booked outside the new hours stays, and is in the answer: whoever books or moves
        meanwhile waits for this, and then sees the new hours."""
        doctor_id = path_id(id, "Doctor")
        require_own_hours(request.user, doctor_id)
        current = require_doctor(await hours.lock(transaction, doctor_id))
        require_unchanged(request, Tagged(current))
        own = hours_sent(data.hours)
        outside = await find_uncovered(transaction, doctor_id, own, clinic)
        first = outside[:MAX_PAGE_SIZE]
        ids, charts = [row.id for row in first], [row.patient_id for row in first]
        record_write(transaction, request, target_id=doctor_id, target_ids=ids, patient_ids=charts)
        await hours.change(transaction, doctor_id, None if own is None else stored_hours(own))
        whole = DoctorHours(None if own is None else shown_hours(own))
        changed = DoctorHoursChanged(whole.hours, [appointment_of(row) for row in first], len(outside))
        return Tagged(changed, whole=whole)
