"""Which appointments may be booked, moved, completed and cancelled, and by whom (requirement, section 5)."""

from datetime import datetime, timedelta
from uuid import UUID

from litestar.exceptions import NotFoundException
from msgspec import UNSET, UnsetType

from api.clinic import Clinic
from api.http.errors import BadRequest, Forbidden, NotFound
from api.http.problems import ErrorCode
from api.schedule.judging import CLINIC_ROLES, IN_THE_PAST, Wish, has_passed, require_within_horizon
from persistence import booking, visits
from persistence.appointments import AppointmentChanges, AppointmentRow
from persistence.booking import Booking, LockedAppointment
from persistence.history import Difference, keep_appointment_changes
from persistence.models import AppointmentStatus
from persistence.postgres.database import Transaction
from security.roles import Caller, Role

FINAL = "A completed or cancelled appointment cannot change"


def require_own_booking(caller: Caller, doctor_id: UUID) -> None:
    """Raise 403 where a doctor books with another doctor."""
    if caller.role is Role.DOCTOR and doctor_id != caller.id:
        detail = "A doctor books their own appointments only; staff and patient may book with any"
        raise Forbidden(detail, field="doctorId")


def require_booked(wish: Wish, booked: Booking) -> AppointmentRow:
    """The row of the new appointment; 400 or 404 where the patient is not seen."""
    if booked.row is None:
        if has_passed(wish, booked.standing.now):
            raise BadRequest(*IN_THE_PAST)
        raise NotFound("Patient not found", field="patientId")
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
    raise BadRequest(FINAL, ErrorCode.FINAL_STATE)


def require_in_time(
    caller: Caller, current: AppointmentRow, changed: AppointmentChanges, now: datetime, clinic: Clinic
) -> None:
    """Raise 400 where a patient changes an appointment that has begun, or is about to, and where anybody
    completes one before its day."""
    if caller.role is Role.PATIENT:
        require_before_cutoff(current.date, now, clinic.limits.cutoff)
    date = changed.get("date", current.date)
    if changed.get("status") is AppointmentStatus.COMPLETED and clinic.day_of(now) < clinic.day_of(date):
        raise BadRequest("status: an appointment cannot be completed before its day", ErrorCode.TOO_EARLY)


def require_before_cutoff(date: datetime, now: datetime, cutoff: timedelta) -> None:
    if date <= now:
        detail = "An appointment that has begun cannot be moved or cancelled by the patient"
        raise BadRequest(detail, ErrorCode.ALREADY_BEGUN)
    if date < now + cutoff:
        minutes = cutoff // timedelta(minutes=1)
        detail = f"Less than {minutes} minutes before it begins the patient can neither move nor cancel it"
        raise BadRequest(detail, ErrorCode.TOO_LATE)


async def lock_for_change(
    transaction: Transaction, caller: Caller, found: AppointmentRow
) -> LockedAppointment:
    """How things stand for a change, and the appointment as it is now; 404 where it is out of sight."""
    locked = await booking.lock(transaction, caller, found)
    if locked is None:
        raise NotFoundException("Appointment not found")
    return locked


async def keep_cancel_reason(
    transaction: Transaction,
    caller: Caller,
    locked: LockedAppointment,
    changed: AppointmentChanges,
    reason: str | UnsetType,
) -> None:
    """Have it stored, beside the change, why the appointment is cancelled, if anybody says so. Raises 400
    where it is cancelled already, and another reason was given then."""
    if reason is UNSET:
        return
    if "status" in changed:
        why = [Difference(visits.CANCEL_REASON, None, reason)]
        keep_appointment_changes(transaction, locked.appointment.id, locked.by, why)
        return
    visit = await visits.one(transaction, caller, locked.appointment.id)
    if visit is None or visit.reason != reason:
        raise BadRequest(FINAL, ErrorCode.FINAL_STATE)


def require_may_be_changed(
    wish: Wish, locked: LockedAppointment, changed: AppointmentChanges, clinic: Clinic
) -> None:
    """Raise 403 or 400 where the appointment may not change like this, whenever it would be then."""
    require_may_change(wish.caller, changed)
    if changed:
        require_not_final(locked.appointment, changed)
        require_in_time(wish.caller, locked.appointment, changed, locked.standing.now, clinic)
    if "date" in changed:
        require_within_horizon(wish, clinic)
        if not locked.standing.doctor_is_active:
            raise BadRequest("date: the doctor takes no appointments any more", ErrorCode.DOCTOR_INACTIVE)
