"""How the visit of an appointment goes: who came, who was seen, who did not come.

There is no table of it. Each act is a row of the appointment's history (history.py), which only grows and
which the trail vouches for: the field `visit` goes from one state to another, and `visitReason` says why, if
anybody did. What was done before the appointment's last move does not count any more, so that the patient is
expected at the new time without a further write. A no-show cancels the appointment in the same request.
"""

from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple, TypedDict
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    bindparam,
    case,
    exists,
    func,
    or_,
    select,
    true,
)
from sqlalchemy.orm import aliased
from sqlalchemy.sql.selectable import LateralFromClause

from persistence.appointments import AppointmentRow, change, readable_by
from persistence.audit import Event
from persistence.history import Difference, keep_appointment_changes
from persistence.history_tables import AppointmentChange
from persistence.models import Appointment, AppointmentStatus
from persistence.postgres.database import Source, Transaction
from persistence.postgres.declared import AnyColumn
from persistence.postgres.statements import Query
from persistence.relations import SeenById, taking_time
from security.roles import Caller, Role

VISIT = "visit"  # the fields of the history
VISIT_REASON = "visitReason"
CANCEL_REASON = "cancelReason"


class VisitState(StrEnum):
    EXPECTED = "expected"
    ARRIVED = "arrived"
    STARTED = "started"
    COMPLETED = "completed"
    NO_SHOW = "noShow"
    CANCELLED = "cancelled"


STATES = {state.value: state for state in VisitState}
# What an act does to the appointment itself.
STATUS_AFTER = {
    VisitState.NO_SHOW: AppointmentStatus.CANCELLED,
    VisitState.EXPECTED: AppointmentStatus.SCHEDULED,
    VisitState.ARRIVED: AppointmentStatus.SCHEDULED,
    VisitState.STARTED: AppointmentStatus.SCHEDULED,
}


class Arrival(NamedTuple):
    arrived_at: datetime


class LastAct(NamedTuple):
    acted_at: datetime
    before: str | None
    after: str | None


class LastChange(NamedTuple):
    """Who brought the visit where it is, and when: by an act, or by a change of the appointment's status."""

    at: datetime
    user_id: UUID | None
    name: str | None
    role: str | None


class Taken(NamedTuple):
    """By another scheduled appointment of the doctor, or of the patient."""

    by_doctor: bool
    by_patient: bool


class Of(TypedDict):
    appointment: UUID


class VisitRow(NamedTuple):
    """`arrival`: the last one, `act`: the last of all acts, since the appointment was last moved. `reason`:
    that of `last`."""

    id: UUID
    patient_id: UUID
    status: AppointmentStatus
    arrival: Arrival | None
    act: LastAct | None
    last: LastChange | None
    reason: str | None

    @property
    def state(self) -> VisitState | str:
        """Text, where a later release has brought the visit to a state that this one does not know."""
        if self.status is AppointmentStatus.COMPLETED:
            return VisitState.COMPLETED
        if self.status is AppointmentStatus.CANCELLED:
            has_missed = self.act is not None and self.act.after == VisitState.NO_SHOW
            return VisitState.NO_SHOW if has_missed else VisitState.CANCELLED
        after = self.act.after if self.act else None
        return STATES.get(after, after) if after else VisitState.EXPECTED


def newest(name: str, *where: ColumnElement[bool]) -> LateralFromClause:
    """The last of these changes of the appointment."""
    of_appointment = AppointmentChange.appointment_id == Appointment.id
    rows = select(AppointmentChange).where(of_appointment, *where)
    return rows.order_by(AppointmentChange.id.desc()).limit(1).lateral(name)


def select_visit() -> Select[AnyColumn]:
    """As VisitRow, of appointments. The index of the history finds the changes."""
    field = AppointmentChange.field
    moved = newest("moved", field == "date")
    is_act = and_(field == VISIT, AppointmentChange.id > func.coalesce(moved.c.id, 0))
    came = (AppointmentChange.before == VisitState.EXPECTED, AppointmentChange.after == VisitState.ARRIVED)
    arrival, act = newest("arrival", is_act, *came), newest("act", is_act)
    end = newest("ended", field == "status")
    is_by_act = or_(Appointment.status == AppointmentStatus.SCHEDULED, act.c.after == VisitState.NO_SHOW)

    def last(column: str) -> AnyColumn:
        return case((is_by_act, act.c[column]), else_=end.c[column])

    reason = select(AppointmentChange.after).where(
        AppointmentChange.appointment_id == Appointment.id,
        or_(field == VISIT_REASON, field == CANCEL_REASON),
        AppointmentChange.at == last("at"),
        AppointmentChange.request_id == last("request_id"),
    )
    columns = (
        *(Appointment.id, Appointment.patient_id, Appointment.status),
        arrival.c.at.label("arrived_at"),
        *(act.c.at.label("acted_at"), act.c.before, act.c.after),
        *(last(name).label(name) for name in LastChange._fields),
        reason.limit(1).scalar_subquery().label("reason"),
    )
    source = Appointment.__table__.outerjoin(moved, true())
    for one in (arrival, act, end):
        source = source.outerjoin(one, true())
    return select(*columns).select_from(source)


@lru_cache
def single(role: Role) -> Query[SeenById, VisitRow]:
    where = (Appointment.id == bindparam("id"), *readable_by(role))
    return Query(VisitRow, SeenById, select_visit().where(*where))


async def one(source: Source, caller: Caller, appointment_id: UUID) -> VisitRow | None:
    """The visit of the appointment, if the caller may see that."""
    return await source.first(single(caller.role), SeenById(id=appointment_id, caller=caller.id))


OTHER = aliased(Appointment)
OVERLAPS = (OTHER.id != Appointment.id, *taking_time(OTHER, Appointment.date, Appointment.ends_at))
MOVE = aliased(AppointmentChange)
HAS_MOVED = or_(MOVE.field == "date", MOVE.field == "doctorId")


def placed(appointment: type[Appointment]) -> ColumnElement[datetime]:
    """When it came to be where it is."""
    moves = select(func.max(MOVE.at)).where(MOVE.appointment_id == appointment.id, HAS_MOVED)
    return func.greatest(appointment.created_at, moves.correlate(appointment).scalar_subquery())


# Since when both are where they are.
BOTH_PLACED = func.greatest(placed(Appointment), placed(OTHER))


def stood(appointment: type[Appointment]) -> ColumnElement[bool]:
    """Whether it was scheduled then. Acts of visits alone end that and bring it back."""
    status = (
        select(AppointmentChange.after)
        .where(
            AppointmentChange.appointment_id == appointment.id,
            AppointmentChange.field == "status",
            AppointmentChange.at <= BOTH_PLACED,
        )
        .order_by(AppointmentChange.id.desc())
        .limit(1)
        .correlate(Appointment, OTHER)
        .scalar_subquery()
    )
    return status.is_distinct_from(AppointmentStatus.CANCELLED.value)


# One of the two was booked over the other, which somebody has permitted.
STOOD_BESIDE = and_(or_(Appointment.overbooked, OTHER.overbooked), stood(Appointment), stood(OTHER))
TAKEN = Query(
    Taken,
    Of,
    select(
        exists().where(OTHER.doctor_id == Appointment.doctor_id, *OVERLAPS, ~STOOD_BESIDE).label("by_doctor"),
        exists().where(OTHER.patient_id == Appointment.patient_id, *OVERLAPS).label("by_patient"),
    ).where(Appointment.id == bindparam("appointment")),
)


async def find_taken(transaction: Transaction, missed: UUID) -> Taken:
    """Whether the time of a no-show was taken since. Its doctor and its patient are locked."""
    [taken] = await transaction.rows(TAKEN, Of(appointment=missed))
    return taken


def differences_of(before: str, after: VisitState, reason: str | None) -> list[Difference]:
    """What an act leaves in the history."""
    why = [Difference(VISIT_REASON, None, reason)] if reason else []
    return [Difference(VISIT, before, after), *why]


async def act(
    transaction: Transaction,
    appointment: AppointmentRow,
    visit: VisitRow,
    by: str,
    event: Event,
    after: VisitState,
    reason: str | None,
) -> VisitRow:
    """The visit as it is after an act, whose `event` is noted in the transaction. `appointment` is locked,
    and `visit` was read since. `by`: the name of who does it."""
    before = visit.state
    keep_appointment_changes(transaction, appointment.id, by, differences_of(before, after, reason))
    status = STATUS_AFTER[after]
    if status is not appointment.status:
        await change(transaction, appointment, by, status=status)
    has_come = (before, after) == (VisitState.EXPECTED, VisitState.ARRIVED)
    return visit._replace(
        status=status,
        arrival=Arrival(event.at) if has_come else visit.arrival,
        act=LastAct(event.at, before, after),
        last=LastChange(event.at, event.user_id, by, event.role),
        reason=reason,
    )
