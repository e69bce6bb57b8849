"""Which appointments may be booked, moved, completed and cancelled, and by whom (requirement, section 5)."""

from datetime import UTC, datetime
from typing import Unpack
from uuid import UUID

from litestar.exceptions import NotFoundException

from api.clinic import Clinic
from api.http.errors import BadRequest, Forbidden, NotFound
from api.http.problems import ErrorCode
from persistence import booking
from persistence.appointments import AppointmentChanges, AppointmentRow
from persistence.booking import Booking, LockedAppointment, Slot
from persistence.models import AppointmentStatus
from persistence.postgres.database import Transaction
from security.guards import join_roles
from security.roles import Caller, Role

CLINIC_ROLES = join_roles(set(Role) - {Role.PATIENT})
SLOT_TAKEN = {
    "doctor": ("date: the doctor has another appointment at that time", ErrorCode.SLOT_TAKEN_DOCTOR),
    "patient": ("date: the patient has another appointment at that time", ErrorCode.SLOT_TAKEN_PATIENT),
}


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
    standing, current, ends_at, _ = locked
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


async def allow_change(
    transaction: Transaction,
    caller: Caller,
    locked: LockedAppointment,
    changed: AppointmentChanges,
    clinic: Clinic,
) -> AppointmentChanges:
    """The change as it is to be stored; 403 or 400 where it is not allowed."""
    standing, current, _, _ = locked
    require_may_change(caller, changed)
    if changed:
        require_not_final(current, changed)
        require_in_time(caller, current, changed, standing.now, clinic)
    return await reschedule(transaction, locked, changed) if "date" in changed else changed
