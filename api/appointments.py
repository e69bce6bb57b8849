"""Appointments (requirement, section 5): booked, moved, and then completed or cancelled for good."""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from uuid import UUID, uuid4

from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import UNSET, UnsetType

from api.appointment_booking import Booker, Mover, note_permits
from api.appointment_lists import AppointmentLists
from api.appointment_rules import (
    keep_cancel_reason,
    lock_for_change,
    require_booked,
    require_may_be_changed,
    require_own_booking,
)
from api.bookings import Appointment, Notes, appointment_of, require_appointment
from api.charts import write_to_chart
from api.clinic import Clinic, find_faults_of_calendar
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
from api.schedule.judging import (
    Permission,
    Permit,
    Wish,
    reason_of,
    require_may_permit,
    require_within_horizon,
)
from persistence import appointments
from persistence.appointments import AppointmentChanges
from persistence.audit import Action
from persistence.availability import keys_of
from persistence.booking import Booking
from persistence.models import AppointmentStatus
from persistence.postgres.database import Reader, Transaction
from security.guards import requires
from security.roles import Role


class AppointmentCreate(Input):
    patient_id: Id
    doctor_id: Id
    date: Instant
    reason: Reason
    notes: Notes | UnsetType | None = UNSET
    override: Permission | UnsetType | None = UNSET
    overbook: Permission | UnsetType | None = UNSET


class AppointmentUpdate(Input):
    date: Instant | UnsetType = UNSET
    status: AppointmentStatus | UnsetType = UNSET
    notes: Notes | UnsetType | None = UNSET
    override: Permission | UnsetType = UNSET
    overbook: Permission | UnsetType = UNSET
    cancel_reason: Reason | UnsetType = UNSET


BESIDES = frozenset({"override", "overbook", "cancel_reason"})
sent_fields = sent_fields_of(AppointmentUpdate, AppointmentChanges, frozenset({"notes"}), BESIDES)


def require_date_in_calendar(given: Given, request: StrictRequest) -> Iterator[Fault]:
    """The date is one that the clinic's calendar covers."""
    return find_faults_of_calendar(given, "date")


def require_cancellation(given: Given, request: StrictRequest) -> Iterator[Fault]:
    """A reason to cancel is sent together with that."""
    if "cancelReason" in given and given.get("status") is not AppointmentStatus.CANCELLED:
        yield field_fault(
            "cancelReason", ErrorCode.NOT_ALLOWED_VALUE, "is for `status: cancelled` in the same request only"
        )


def wish_of(request: StrictRequest, date: datetime, data: AppointmentCreate | AppointmentUpdate) -> Wish:
    """What the caller wants, as far as their role lets them; 403 else."""
    require_may_permit(request.user, data.override, data.overbook)
    permitted = reason_of(data.override), reason_of(data.overbook)
    return Wish(request.user, date.astimezone(UTC), *permitted)


def lacks_patient(booked: Booking) -> bool:
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
        appointment_id = uuid4()
        if earlier := await claim_key(transaction, request, appointment_id):
            return await show_again(transaction, request, earlier)
        require_own_booking(request.user, data.doctor_id)
        wish = wish_of(request, data.date, data)
        require_within_horizon(wish, clinic)
        new = data.doctor_id, appointment_id, data.reason, or_none(data.notes)
        booker = Booker(request, transaction, clinic, wish, *new)
        is_missing, keys = lacks_patient, partial(keys_of, data.doctor_id)
        booked = await write_to_chart(transaction, data.patient_id, booker.book, is_missing, keys)
        return Tagged(appointment_of(require_booked(wish, booked)))

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
        rules=[require_date_in_calendar, require_cancellation],
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
        # Longer than other handlers, because a permission is noted beside the change.
        caller = request.user
        found = await require_appointment(reader, caller, path_id(id, "Appointment"))
        locked = await lock_for_change(transaction, caller, found)
        current = locked.appointment
        permits: list[Permit] = []
        changed = changed_fields(sent_fields(data), current)
        wish = wish_of(request, changed.get("date", current.date), data)
        require_may_be_changed(wish, locked, changed, clinic)
        if "date" in changed:
            changed, permits = await Mover(request, transaction, clinic, wish, locked).place(changed)
        await keep_cancel_reason(transaction, caller, locked, changed, data.cancel_reason)
        require_unchanged(request, Tagged(appointment_of(current)))
        record_write(transaction, request, patient_id=current.patient_id, target_id=current.id)
        note_permits(transaction, request, permits, locked.by, current.patient_id, current.id)
        if changed:
            current = await appointments.change(transaction, current, locked.by, **changed)
        return Tagged(appointment_of(current))
