"""Appointments (requirement, section 5): booked, moved, and then completed or cancelled for good."""

from collections.abc import Iterator
from datetime import UTC, timedelta
from functools import partial
from uuid import UUID, uuid4

from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import UNSET, UnsetType

from api.appointment_lists import AppointmentLists
from api.appointment_rules import (
    allow_change,
    lock_for_change,
    require_booked,
    require_own_booking,
)
from api.bookings import Appointment, Notes, appointment_of, require_appointment
from api.charts import write_to_chart
from api.clinic import Clinic
from api.http.auditing import record_read, record_write
from api.http.conditional import IF_MATCH, Tagged, require_unchanged
from api.http.fields import (
    Id,
    Input,
    Instant,
    PathId,
    Reason,
    or_none,
    path_id,
)
from api.http.idempotency import IDEMPOTENCY_KEY, claim_key
from api.http.operation import get, patch, post
from api.http.problems import ErrorCode, Fault
from api.http.requests import Given, StrictRequest
from api.http.structs import changed_fields, sent_fields_of
from api.http.violations import field_fault
from persistence import appointments, booking
from persistence.appointments import AppointmentChanges
from persistence.audit import Action
from persistence.models import AppointmentStatus
from persistence.postgres.calendar import EARLIEST, LATEST
from persistence.postgres.database import Reader, Transaction
from security.guards import requires
from security.roles import Role


class AppointmentCreate(Input):
    patient_id: Id
    doctor_id: Id
    date: Instant
    reason: Reason
    notes: Notes | UnsetType | None = UNSET


class AppointmentUpdate(Input):
    date: Instant | UnsetType = UNSET
    status: AppointmentStatus | UnsetType = UNSET
    notes: Notes | UnsetType | None = UNSET


sent_fields = sent_fields_of(AppointmentUpdate, AppointmentChanges, frozenset({"notes"}))


def require_date_in_calendar(given: Given, request: StrictRequest) -> Iterator[Fault]:
    """The date is one that the clinic's calendar covers."""
    if not EARLIEST <= given.get("date", EARLIEST) < LATEST:
        last = LATEST - timedelta(days=1)
        yield field_fault(
            "date", ErrorCode.OUT_OF_RANGE, f"must be from {EARLIEST:%Y-%m-%d} to {last:%Y-%m-%d}"
        )


def lacks_patient(booked: booking.Booking) -> bool:
    return not booked.standing.sees_patient


async def show_again(transaction: Transaction, request: StrictRequest, id: UUID) -> Tagged[Appointment]:
    """The appointment that an earlier request has booked, or 404."""
    row = await require_appointment(transaction, request.user, id)
    action = Action.APPOINTMENT_READ
    record_write(transaction, request, action=action, patient_id=row.patient_id, target_id=row.id)
    return Tagged(appointment_of(row))


class AppointmentController(AppointmentLists):
    path = "/api/appointments"

    @post(
        operation_id="createAppointment",
        action=Action.APPOINTMENT_CREATE,
        guards=[requires(Role.DOCTOR, Role.STAFF, Role.PATIENT)],
        rules=[require_date_in_calendar],
        headers=IDEMPOTENCY_KEY,
    )
    async def create_appointment(
        self,
        data: JSONBody[AppointmentCreate],
        request: StrictRequest,
        clinic: NamedDependency[Clinic],
        transaction: NamedDependency[Transaction],
    ) -> Tagged[Appointment]:
        # Longer than other handlers by the columns of the new row, one a line.
        caller = request.user
        appointment_id = uuid4()
        if earlier := await claim_key(transaction, request, appointment_id):
            return await show_again(transaction, request, earlier)
        require_own_booking(caller, data.doctor_id)
        begins = data.date.astimezone(UTC)

        async def book(chart_id: UUID) -> booking.Booking:
            record_write(transaction, request, patient_id=chart_id, target_id=appointment_id)
            return await booking.book(
                transaction,
                caller,
                data.doctor_id,
                chart_id,
                id=appointment_id,
                date=begins,
                ends_at=begins + clinic.appointment_length,
                reason=data.reason,
                notes=or_none(data.notes),
                fee=clinic.fee,
            )

        is_missing, keys = lacks_patient, partial(booking.keys_of, data.doctor_id)
        booked = await write_to_chart(transaction, data.patient_id, book, is_missing, keys)
        return Tagged(appointment_of(require_booked(caller, begins, booked)))

    @get("/{id:str}", operation_id="getAppointment", action=Action.APPOINTMENT_READ)
    async def get_appointment(
        self, id: PathId, request: StrictRequest, near_reader: NamedDependency[Reader]
    ) -> Tagged[Appointment]:
        row = await require_appointment(near_reader, request.user, path_id(id, "Appointment"))
        await record_read(request, patient_id=row.patient_id, target_id=row.id)
        return Tagged(appointment_of(row))

    @patch(
        "/{id:str}",
        operation_id="updateAppointment",
        action=Action.APPOINTMENT_UPDATE,
        rules=[require_date_in_calendar],
        headers=IF_MATCH,
    )
    async def update_appointment(
        self,
        id: PathId,
        data: JSONBody[AppointmentUpdate],
        request: StrictRequest,
        clinic: NamedDependency[Clinic],
        reader: NamedDependency[Reader],
        transaction: NamedDependency[Transaction],
    ) -> Tagged[Appointment]:
        caller = request.user
        found = await require_appointment(reader, caller, path_id(id, "Appointment"))
        locked = await lock_for_change(transaction, caller, found)
        current = locked.appointment
        changed = changed_fields(sent_fields(data), current)
        changed = await allow_change(transaction, caller, locked, changed, clinic)
        require_unchanged(request, Tagged(appointment_of(current)))
        record_write(transaction, request, patient_id=current.patient_id, target_id=current.id)
        if changed:
            current = await appointments.change(transaction, current, locked.by, **changed)
        return Tagged(appointment_of(current))
