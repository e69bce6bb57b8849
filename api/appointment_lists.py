"""Lists of appointments, and by what they are narrowed."""

from typing import Annotated, Literal
from uuid import UUID

from litestar import Controller
from litestar.di import NamedDependency
from litestar.params import FromQuery, QueryParameter
from msgspec import Meta

from api.bookings import Appointment, appointment_of
from api.clinic import Clinic
from api.http.auditing import record_read
from api.http.errors import Forbidden
from api.http.fields import (
    MAX_LISTED,
    MAX_PAGE_SIZE,
    Count,
    Day,
    Id,
    IdList,
    Instant,
    Limit,
    Output,
    Page,
    to_utc,
)
from api.http.operation import get
from api.http.problems import ErrorCode, Fault
from api.http.requests import StrictRequest
from persistence import appointment_lists
from persistence.appointment_lists import Filters
from persistence.appointments import AppointmentRow
from persistence.audit import Action
from persistence.models import AppointmentStatus
from persistence.postgres.database import Reader
from persistence.postgres.sorting import AppointmentSort
from security.roles import Caller, Role


class AppointmentPage(Output):
    appointments: Annotated[list[Appointment], Meta(max_length=MAX_PAGE_SIZE)]
    total: Count


Statuses = Annotated[list[AppointmentStatus], Meta(min_length=1, max_length=MAX_LISTED)]


def distinct(status: AppointmentStatus | list[AppointmentStatus] | None) -> set[AppointmentStatus] | None:
    if status is None:
        return None
    return {*status} if isinstance(status, list) else {status}


def chart_of_list(request: StrictRequest, rows: list[AppointmentRow], patient_id: UUID | None) -> UUID | None:
    """Of which chart the appointments are, where one is asked for: it may be merged into another by now. An
    empty list tells of it too, but for a patient, who may name a chart that is not their own."""
    if rows and patient_id:
        return rows[0].patient_id
    return None if request.user.role is Role.PATIENT else patient_id


def require_sees_orphans(caller: Caller, orphaned: str | None) -> None:
    """Raise 403 where somebody asks for them who sees their own appointments only."""
    if orphaned is not None and caller.role not in (Role.ADMIN, Role.STAFF):
        detail = "Your role may not use orphaned; admin and staff may"
        fault = Fault(parameter="orphaned", code=ErrorCode.ROLE_NOT_ALLOWED, detail=detail)
        raise Forbidden(detail, faults=[fault])


class AppointmentLists(Controller):
    """A part of AppointmentController: Litestar wants all methods of one path in one controller."""

    @get(operation_id="listAppointments", action=Action.APPOINTMENT_LIST)
    async def list_appointments(
        self,
        request: StrictRequest,
        near_reader: NamedDependency[Reader],
        clinic: NamedDependency[Clinic],
        page: Page = 1,
        limit: Limit = 10,
        date: FromQuery[Day | None] = None,
        since: Annotated[Instant | None, QueryParameter(name="from")] = None,
        until: Annotated[Instant | None, QueryParameter(name="to")] = None,
        status: FromQuery[AppointmentStatus | Statuses | None] = None,
        patient_id: Annotated[Id | None, QueryParameter(name="patientId")] = None,
        doctor_id: Annotated[Id | None, QueryParameter(name="doctorId")] = None,
        ids: FromQuery[IdList | None] = None,
        orphaned: FromQuery[Literal["true", "false"] | None] = None,
        overdue: FromQuery[Literal["true", "false"] | None] = None,
        sort: FromQuery[AppointmentSort | None] = None,
    ) -> AppointmentPage:
        # Longer than other handlers by the filters, one a line.
        require_sees_orphans(request.user, orphaned)
        filters = Filters(
            spans=clinic.calendar.spans(date) if date else None,
            statuses=distinct(status),
            patient=patient_id,
            doctor=doctor_id,
            since=to_utc(since),
            until=to_utc(until),
            ids=ids,
            orphaned=None if orphaned is None else orphaned == "true",
            overdue=clinic.bounds_of(clinic.today())[0] if overdue == "true" else None,
        )
        rows, total, [visits, charts] = await appointment_lists.page(
            near_reader, request.user, page, limit, filters, sort or AppointmentSort.DATE
        )
        chart = chart_of_list(request, rows, patient_id)
        await record_read(request, patient_id=chart, target_ids=visits, patient_ids=charts)
        return AppointmentPage([appointment_of(row) for row in rows], total)
