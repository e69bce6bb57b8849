"""Appointments (requirement, section 5): booked, moved, and then completed or cancelled for good."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Unpack
from uuid import UUID, uuid4

from litestar import Controller
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.params import FromQuery, JSONBody
from msgspec import UNSET, Meta, UnsetType

from api.clinic import Clinic
from api.http.auditing import record_read, record_write
from api.http.errors import BadRequest, Forbidden, NotFound
from api.http.fields import (
    MAX_PAGE_SIZE,
    NOT_BLANK,
    TEXT,
    Count,
    Day,
    Id,
    Input,
    Instant,
    Limit,
    Name,
    Output,
    Page,
    PathId,
    or_none,
    path_id,
)
from api.http.operation import get, patch, post
from api.http.problems import ErrorCode, Fault
from api.http.requests import Given, StrictRequest
from api.http.structs import changed_fields, sent_fields_of, struct_of
from api.http.violations import field_fault
from persistence import appointments, booking
from persistence.appointments import AppointmentChanges, AppointmentRow
from persistence.audit import Action
from persistence.booking import Booking, LockedAppointment, Slot
from persistence.models import AppointmentStatus
from persistence.postgres.calendar import EARLIEST, LATEST
from persistence.postgres.database import Reader, Source, Transaction
from security.guards import join_roles, requires
from security.roles import Caller, Role

Reason = Annotated[str, Meta(min_length=1, max_length=500, pattern=NOT_BLANK)]
Notes = Annotated[str, Meta(max_length=5000, pattern=TEXT)]
CLINIC_ROLES = join_roles(set(Role) - {Role.PATIENT})
SLOT_TAKEN = {
    "doctor": ("date: the doctor has another appointment at that time", ErrorCode.SLOT_TAKEN_DOCTOR),
    "patient": ("date: the patient has another appointment at that time", ErrorCode.SLOT_TAKEN_PATIENT),
}


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


class AppointmentPage(Output):
    appointments: Annotated[list[Appointment], Meta(max_length=MAX_PAGE_SIZE)]
    total: Count


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


appointment_of = struct_of(Appointment, AppointmentRow)
sent_fields = sent_fields_of(AppointmentUpdate, AppointmentChanges, frozenset({"notes"}))


def require_date_in_calendar(given: Given, request: StrictRequest) -> Iterator[Fault]:
    """The date is one that the clinic's calendar covers."""
    if not EARLIEST <= given.get("date", EARLIEST) < LATEST:
        last = LATEST - timedelta(days=1)
        yield field_fault(
            "date", ErrorCode.OUT_OF_RANGE, f"must be from {EARLIEST:%Y-%m-%d} to {last:%Y-%m-%d}"
        )


def require_not_in_past(caller: Caller, instant: datetime, now: datetime) -> None:
    """Raise 400 where a patient asks for an appointment in the past; staff and doctors may enter one."""
    if caller.role is Role.PATIENT and instant < now:
        raise BadRequest("date: must not be in the past", ErrorCode.IN_THE_PAST)


def require_own_booking(caller: Caller, doctor_id: UUID) -> None:
    """Raise 403 where a doctor books with another doctor."""
    if caller.role is Role.DOCTOR and doctor_id != caller.id:
        detail = "A doctor books their own appointments only; staff and patient may book with any"
        raise Forbidden(detail, field="doctorId")


def require_booked(caller: Caller, begins: datetime, booked: Booking) -> AppointmentRow:
    """The row of the new appointment, or why it was not booked: 400 or 404."""
    require_not_in_past(caller, begins, booked.standing.now)
    if not booked.standing.sees_patient:
        raise NotFound("Patient not found", field="patientId")
    if not booked.standing.doctor_is_active:
        raise NotFound("Doctor not found", field="doctorId")
    if booked.row is None:
        raise BadRequest(*SLOT_TAKEN[str(booked.taken)])
    return booked.row


def require_may_change(caller: Caller, changed: AppointmentChanges) -> None:
    """Raise 403 where a patient does more than move or cancel."""
    if caller.role is not Role.PATIENT:
        return
    if "notes" in changed:
        raise Forbidden(f"Your role may not change notes; {CLINIC_ROLES} may", field="notes")
    if changed.get("status", AppointmentStatus.CANCELLED) is not AppointmentStatus.CANCELLED:
        raise Forbidden(
            f"Your role may only cancel an appointment; {CLINIC_ROLES} may complete one", field="status"
        )


def require_not_final(current: AppointmentRow, changed: AppointmentChanges) -> None:
    """Raise 400 where a completed or cancelled appointment would change; a completed one takes notes."""
    if current.status is AppointmentStatus.SCHEDULED:
        return
    if current.status is AppointmentStatus.COMPLETED and changed.keys() <= {"notes"}:
        return
    raise BadRequest("A completed or cancelled appointment cannot change", ErrorCode.FINAL_STATE)


def require_in_time(
    caller: Caller, current: AppointmentRow, changed: AppointmentChanges, now: datetime, clinic: Clinic
) -> None:
    """Raise 400 where a patient changes an appointment that has begun or moves one into the past, and where
    anybody completes one before its day."""
    if caller.role is Role.PATIENT and current.date <= now:
        detail = "An appointment that has begun cannot be moved or cancelled by the patient"
        raise BadRequest(detail, ErrorCode.ALREADY_BEGUN)
    date = changed.get("date", current.date)
    if "date" in changed:
        require_not_in_past(caller, date, now)
    if changed.get("status") is AppointmentStatus.COMPLETED and clinic.day_of(now) < clinic.day_of(date):
        raise BadRequest("status: an appointment cannot be completed before its day", ErrorCode.TOO_EARLY)


async def require_appointment(source: Source, caller: Caller, appointment_id: UUID) -> AppointmentRow:
    """The appointment, or 404 where the caller may not see it."""
    row = await appointments.one(source, caller, appointment_id)
    if row is None:
        raise NotFoundException("Appointment not found")
    return row


async def lock_for_change(
    transaction: Transaction, caller: Caller, found: AppointmentRow
) -> LockedAppointment:
    """How things stand for a change, and the appointment as it is now; 404 where it is out of sight."""
    locked = await booking.lock(transaction, caller, found)
    if locked is None:
        raise NotFoundException("Appointment not found")
    return locked


async def require_free_slot(transaction: Transaction, **slot: Unpack[Slot]) -> None:
    """Raise 400 where the doctor or the patient has another scheduled appointment at that time."""
    taken = await booking.find_clash(transaction, **slot)
    if taken:
        raise BadRequest(*SLOT_TAKEN[taken])


async def reschedule(
    transaction: Transaction, locked: LockedAppointment, changed: AppointmentChanges
) -> AppointmentChanges:
    """`changed` with the new beginning and end, as far apart as before; 400 where the doctor or the slot is
    not free."""
    standing, current, ends_at = locked
    if not standing.doctor_is_active:
        raise BadRequest("date: the doctor takes no appointments any more", ErrorCode.DOCTOR_INACTIVE)
    begins = changed["date"].astimezone(UTC)
    ends = begins + (ends_at - current.date)
    if "status" not in changed:  # only scheduled appointments can overlap
        await require_free_slot(
            transaction,
            doctor=current.doctor_id,
            patient=current.patient_id,
            date=begins,
            ends_at=ends,
            itself=current.id,
        )
    return {**changed, "date": begins, "ends_at": ends}


class AppointmentController(Controller):
    path = "/api/appointments"

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
        spans = clinic.calendar.spans(date) if date else None
        rows, total, [ids, charts] = await appointments.page(
            near_reader, request.user, page, limit, spans=spans, status=status
        )
        await record_read(request, target_ids=ids, patient_ids=charts)
        return AppointmentPage([appointment_of(row) for row in rows], total)

    @post(
        operation_id="createAppointment",
        action=Action.APPOINTMENT_CREATE,
        guards=[requires(Role.DOCTOR, Role.STAFF, Role.PATIENT)],
        rules=[require_date_in_calendar],
    )
    async def create_appointment(
        self,
        data: JSONBody[AppointmentCreate],
        request: StrictRequest,
        clinic: NamedDependency[Clinic],
        transaction: NamedDependency[Transaction],
    ) -> Appointment:
        # Longer than other handlers by the columns of the new row, one a line.
        caller = request.user
        require_own_booking(caller, data.doctor_id)
        begins = data.date.astimezone(UTC)
        appointment_id = uuid4()
        record_write(transaction, request, patient_id=data.patient_id, target_id=appointment_id)
        booked = await booking.book(
            transaction,
            caller,
            data.doctor_id,
            data.patient_id,
            id=appointment_id,
            date=begins,
            ends_at=begins + clinic.appointment_length,
            reason=data.reason,
            notes=or_none(data.notes),
            fee=clinic.fee,
        )
        return appointment_of(require_booked(caller, begins, booked))

    @get("/{id:str}", operation_id="getAppointment", action=Action.APPOINTMENT_READ)
    async def get_appointment(
        self, id: PathId, request: StrictRequest, near_reader: NamedDependency[Reader]
    ) -> Appointment:
        row = await require_appointment(near_reader, request.user, path_id(id, "Appointment"))
        await record_read(request, patient_id=row.patient_id, target_id=row.id)
        return appointment_of(row)

    @patch(
        "/{id:str}",
        operation_id="updateAppointment",
        action=Action.APPOINTMENT_UPDATE,
        rules=[require_date_in_calendar],
    )
    async def update_appointment(
        self,
        id: PathId,
        data: JSONBody[AppointmentUpdate],
        request: StrictRequest,
        clinic: NamedDependency[Clinic],
        reader: NamedDependency[Reader],
        transaction: NamedDependency[Transaction],
    ) -> Appointment:
        caller = request.user
        found = await require_appointment(reader, caller, path_id(id, "Appointment"))
        locked = await lock_for_change(transaction, caller, found)
        standing, current, _ = locked
        changed = changed_fields(sent_fields(data), current)
        require_may_change(caller, changed)
        record_write(transaction, request, patient_id=current.patient_id, target_id=current.id)
        if not changed:
            return appointment_of(current)
        require_not_final(current, changed)
        require_in_time(caller, current, changed, standing.now, clinic)
        if "date" in changed:
            changed = await reschedule(transaction, locked, changed)
        return appointment_of(await appointments.change(transaction, current.id, **changed))
