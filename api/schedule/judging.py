"""Which visits may be booked for a time, moved there or handed over to another doctor: by hours, absences,
the visits of both, and what somebody permits."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from msgspec import UNSET, UnsetType

from api.clinic import Clinic
from api.http.errors import BadRequest, Forbidden
from api.http.fields import Input, Reason
from api.http.problems import ErrorCode
from api.schedule.fitting import Fit
from persistence.audit import Action
from persistence.availability import Availability
from security import clock
from security.guards import join_roles
from security.roles import Caller, Role

CLINIC_ROLES = join_roles(set(Role) - {Role.PATIENT})
DOCTOR_TAKEN = "date: the doctor has another appointment at that time", ErrorCode.SLOT_TAKEN_DOCTOR
PATIENT_TAKEN = "date: the patient has another appointment at that time", ErrorCode.SLOT_TAKEN_PATIENT
OUTSIDE = "date: is outside the hours of the doctor", ErrorCode.OUTSIDE_HOURS
ABSENT = "date: the doctor is away or the clinic is closed at that time", ErrorCode.OUTSIDE_HOURS
NOT_OFFERED = "date: is not one of the free times", ErrorCode.NOT_A_FREE_TIME
IN_THE_PAST = "date: must not be in the past", ErrorCode.IN_THE_PAST


class Permission(Input):
    reason: Reason


AnyPermission = Permission | UnsetType | None


class Permit(NamedTuple):
    """A permission that did something. `field`: in the request, and in the history."""

    field: str
    action: Action
    reason: str


class Wish(NamedTuple):
    """Somebody wants a visit to begin then. `override`, `overbook`: why they permit it outside the hours, and
    over another visit of the doctor; None where they do not."""

    caller: Caller
    begins: datetime
    override: str | None = None
    overbook: str | None = None

    @property
    def permits(self) -> bool:
        return bool(self.override or self.overbook)

    @property
    def is_patients(self) -> bool:
        return self.caller.role is Role.PATIENT


def reason_of(permission: AnyPermission) -> str | None:
    return permission.reason if isinstance(permission, Permission) else None


def require_may_permit(caller: Caller, override: AnyPermission, overbook: AnyPermission) -> None:
    """Raise 403 where a patient permits what only the clinic may."""
    if caller.role is not Role.PATIENT:
        return
    for field, given in (("override", override), ("overbook", overbook)):
        if given is not UNSET and given is not None:
            raise Forbidden(f"Your role may not use {field}; {CLINIC_ROLES} may", field=field)


def permits_of(wish: Wish, fit: Fit, available: Availability) -> Iterator[Permit]:
    """Those that it takes, of what the wish permits."""
    if wish.override and (available.is_absent or not fit.is_inside):
        yield Permit("override", Action.APPOINTMENT_OVERRIDE, wish.override)
    if wish.overbook and available.doctor_is_taken:
        yield Permit("overbook", Action.APPOINTMENT_OVERBOOK, wish.overbook)


def refusal_of(wish: Wish, fit: Fit, available: Availability) -> BadRequest | None:
    """Why the visit may not be then; None where it may."""
    if available.doctor_is_taken and not wish.overbook:
        return BadRequest(*DOCTOR_TAKEN)
    if available.patient_is_taken:
        return BadRequest(*PATIENT_TAKEN)
    if wish.is_patients:
        is_free = fit.is_offered and not available.is_absent
        return None if is_free else BadRequest(*NOT_OFFERED)
    if wish.override:
        return None
    if available.is_absent:
        return BadRequest(*ABSENT)
    return None if fit.is_inside else BadRequest(*OUTSIDE)


def require_within_horizon(wish: Wish, clinic: Clinic) -> None:
    """Raise 400 where a patient asks for a time that is too far away."""
    now = datetime.fromtimestamp(clock.now(), UTC)
    if wish.is_patients and wish.begins >= clinic.span_for_patients(now)[1]:
        detail = f"date: must be at most {clinic.limits.horizon_days} days from today"
        raise BadRequest(detail, ErrorCode.TOO_FAR_AHEAD)


def has_passed(wish: Wish, now: datetime) -> bool:
    """Whether the time has passed for a patient; staff and doctors may enter what happened."""
    return wish.is_patients and wish.begins < now


def limit_of(wish: Wish, now: datetime, clinic: Clinic, open_visits: int = 0) -> BadRequest | None:
    """Why a patient may not book by themselves: the time has passed or is too soon, or it is a visit too
    many."""
    if not wish.is_patients:
        return None
    if has_passed(wish, now):
        return BadRequest(*IN_THE_PAST)
    if wish.begins < now + clinic.limits.lead:
        minutes = clinic.limits.lead // timedelta(minutes=1)
        return BadRequest(f"date: must be at least {minutes} minutes from now", ErrorCode.TOO_SOON)
    if has_too_many(open_visits, clinic):
        most = clinic.limits.max_open
        detail = f"The patient has {most} appointments to come already; more cannot be booked"
        return BadRequest(detail, ErrorCode.TOO_MANY_OPEN)
    return None


def has_too_many(open_visits: int, clinic: Clinic) -> bool:
    """Whether a patient who has so many visits to come may not book another one."""
    return clinic.limits.max_open is not None and open_visits >= clinic.limits.max_open
