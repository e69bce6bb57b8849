"""What every resource shares that answers with appointments: one of them in an answer."""

from typing import Annotated
from uuid import UUID

from litestar.exceptions import NotFoundException
from msgspec import Meta

from api.http.fields import TEXT, Id, Instant, Name, Output, Reason
from api.http.structs import struct_of
from persistence import appointments
from persistence.appointments import AppointmentRow
from persistence.models import AppointmentStatus
from persistence.postgres.database import Source
from security.roles import Caller

Notes = Annotated[str, Meta(max_length=5000, pattern=TEXT)]


class Appointment(Output):
    id: Id
    patient_id: Id
    patient_name: Name
    doctor_id: Id
    doctor_name: Name
    date: Instant
    status: AppointmentStatus
    reason: Reason
    notes: Notes | None


appointment_of = struct_of(Appointment, AppointmentRow)


async def require_appointment(source: Source, caller: Caller, appointment_id: UUID) -> AppointmentRow:
    """The appointment, or 404 where the caller may not see it."""
    row = await appointments.one(source, caller, appointment_id)
    if row is None:
        raise NotFoundException("Appointment not found")
    return row
