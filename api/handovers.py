"""What becomes of the appointments that a doctor still has before them, when they leave or for a time."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, NamedTuple
from uuid import UUID

from api.clinic import Clinic
from api.http.auditing import record_write
from api.http.errors import BadRequest, NotFound
from api.http.fields import Id, Input
from api.http.problems import ErrorCode
from api.http.requests import StrictRequest
from api.schedule.hours import hours_for, is_within, open_around
from api.schedule.weekly import Hours, hours_of
from persistence import handovers
from persistence.appointments import AppointmentRow
from persistence.audit import Action
from persistence.handovers import MAX_IN_EVENT, Clash, Coming, Fate
from persistence.history import text_of
from persistence.models import AppointmentStatus
from persistence.postgres.calendar import EARLIEST, LATEST
from persistence.postgres.database import Transaction

TO_ONESELF = "must be another doctor"


class Reassignment(Input):
    reassign_to: Id


class Handover(NamedTuple):
    """Which appointments, and to whom; without an heir they are cancelled. `since` is included, `until` is
    not."""

    doctor_id: UUID
    heir_id: UUID | None
    since: datetime = EARLIEST
    until: datetime = LATEST


class Outcome(NamedTuple):
    """`found`: what is to change, locked."""

    found: list[Coming]
    fate: Fate

    def rows(self) -> list[AppointmentRow]:
        """As they are then."""
        return [one.appointment._replace(**self.fate) for one in self.found]


class Obstacle(NamedTuple):
    """What is in the way of the appointment that begins then; None: of none."""

    why: str
    code: ErrorCode
    date: datetime | None


def heir_of(asked: Literal["cancel"] | Reassignment) -> UUID | None:
    return asked.reassign_to if isinstance(asked, Reassignment) else None


async def lock(transaction: Transaction, request: StrictRequest, handover: Handover) -> list[Coming]:
    """The appointments, which nobody else changes until the transaction ends. To be called before anything
    else is locked. Raises 400 where there are too many."""
    since, until = (min(max(at, EARLIEST), LATEST) for at in (handover.since, handover.until))
    heir = handover.heir_id
    found = await handovers.lock(transaction, request.user, handover.doctor_id, heir, since, until)
    if handovers.are_too_many(found):
        detail = (
            f"appointments: are more than {found[0].most}, so many do not change at once: reassign those of "
            "a shorter time (a doctor is disabled with keep, however many they have)"
        )
        raise BadRequest(detail, ErrorCode.TOO_MANY_ITEMS)
    return found


async def judge(transaction: Transaction, handover: Handover, found: list[Coming], clinic: Clinic) -> Outcome:
    """What is to change, if nothing speaks against it: 404 where one of the two is no doctor, 400 where the
    heir has no time."""
    parties = await handovers.parties(transaction, handover.doctor_id, handover.heir_id)
    if not parties.has_doctor:
        raise NotFound("Doctor not found", field="doctorId")
    if handover.heir_id is None:
        return Outcome(found, Fate(status=AppointmentStatus.CANCELLED))
    if parties.heir is None:
        raise NotFound("Doctor not found", field="appointments/reassignTo")
    hours = hours_for(hours_of(parties.hours), clinic)
    await require_time(transaction, handover.heir_id, found, hours, clinic)
    return Outcome(found, Fate(doctor_id=handover.heir_id, doctor_name=parties.heir))


async def require_time(
    transaction: Transaction,
    heir_id: UUID,
    found: list[Coming],
    hours: Sequence[Hours] | None,
    clinic: Clinic,
) -> None:
    """Raise 400, which names the first, where the heir has no time for one of them. `hours`: None means
    always."""
    clash = await handovers.find_clash(transaction, [one.appointment.id for one in found], heir_id)
    obstacles = [
        Obstacle("the doctor would have two appointments", ErrorCode.SLOT_TAKEN_DOCTOR, find_overlap(found)),
        obstacle_of(clash),
        Obstacle("the doctor does not work", ErrorCode.OUTSIDE_HOURS, find_closed(found, hours, clinic)),
    ]
    first = min(obstacles, key=lambda one: one.date or LATEST)
    if first.date:
        raise BadRequest(f"appointments: {first.why} at {text_of(first.date)}", first.code)


def obstacle_of(clash: Clash | None) -> Obstacle:
    date = clash and clash.date
    if clash and clash.is_absent:
        return Obstacle("the doctor is away or the clinic is closed", ErrorCode.OUTSIDE_HOURS, date)
    return Obstacle("the doctor has another appointment", ErrorCode.SLOT_TAKEN_DOCTOR, date)


def find_overlap(found: list[Coming]) -> datetime | None:
    """When the first begins before another has ended, as where somebody has overbooked."""
    until = EARLIEST
    for one in found:
        if one.appointment.date < until:
            return one.appointment.date
        until = max(until, one.ends_at)
    return None


def find_closed(found: list[Coming], hours: Sequence[Hours] | None, clinic: Clinic) -> datetime | None:
    """When the first begins that is not within these hours. None: always open."""
    if hours is None:
        return None
    open_at = open_around(hours, ((one.appointment.date, one.ends_at) for one in found), clinic)
    closed = (one for one in found if not is_within(open_at, one.appointment.date, one.ends_at))
    return next((one.appointment.date for one in closed), None)


def note(transaction: Transaction, request: StrictRequest, outcome: Outcome) -> None:
    """Have it stored, in the trail and in the history of each, who changed what."""
    for first in range(0, len(outcome.found), MAX_IN_EVENT):
        some = outcome.found[first : first + MAX_IN_EVENT]
        event = record_write(
            transaction,
            request,
            action=Action.APPOINTMENT_UPDATE,
            target_ids=[one.appointment.id for one in some],
            patient_ids=[one.appointment.patient_id for one in some],
        )
        handovers.keep_changes(transaction, some, outcome.fate, event)


async def carry_out(
    transaction: Transaction, request: StrictRequest, handover: Handover, outcome: Outcome
) -> None:
    """Concludes the transaction, if there are any."""
    note(transaction, request, outcome)
    ids = [one.appointment.id for one in outcome.found]
    if ids:
        await handovers.store(transaction, ids, handover.heir_id)
