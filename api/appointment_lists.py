"""Lists of appointments, and by what they are narrowed."""

from typing import Annotated

from litestar import Controller
from litestar.di import NamedDependency
from litestar.params import FromQuery
from msgspec import Meta

from api.bookings import Appointment, appointment_of
from api.clinic import Clinic
from api.http.auditing import record_read
from api.http.fields import MAX_PAGE_SIZE, Count, Day, Limit, Output, Page
from api.http.operation import get
from api.http.requests import StrictRequest
from persistence import appointment_lists
from persistence.appointment_lists import Filters
from persistence.audit import Action
from persistence.models import AppointmentStatus
from persistence.postgres.database import Reader


class AppointmentPage(Output):
    appointments: Annotated[list[Appointment], Meta(max_length=MAX_PAGE_SIZE)]
    total: Count


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
        status: FromQuery[AppointmentStatus | None] = None,
    ) -> AppointmentPage:
        filters = Filters(spans=clinic.calendar.spans(date) if date else None, status=status)
        rows, total, [ids, charts] = await appointment_lists.page(
            near_reader, request.user, page, limit, filters
        )
        await record_read(request, target_ids=ids, patient_ids=charts)
        return AppointmentPage([appointment_of(row) for row in rows], total)
