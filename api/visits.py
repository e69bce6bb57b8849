"""The visit of an appointment: who came, who was seen, who did not come."""

from enum import StrEnum
from typing import cast

from litestar import Controller
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.params import JSONBody
from msgspec import UNSET, UnsetType

from api.appointment_rules import FINAL, lock_for_change
from api.bookings import require_appointment
from api.http.auditing import record_read, record_write
from api.http.conditional import IF_MATCH, Tagged, require_unchanged
from api.http.errors import BadRequest
from api.http.fields import Id, Input, Instant, Name, Output, PathId, Reason, or_none, path_id
from api.http.operation import get, post
from api.http.problems import ErrorCode
from api.http.requests import StrictRequest
from api.schedule.judging import DOCTOR_TAKEN, PATIENT_TAKEN
from persistence import visits
from persistence.audit import Action
from persistence.booking import LockedAppointment
from persistence.postgres.database import Reader, Source, Transaction
from persistence.visits import VisitRow, VisitState
from security.guards import requires
from security.roles import Caller, Role


class VisitAct(StrEnum):
    ARRIVED = "arrived"
    STARTED = "started"
    NO_SHOW = "noShow"
    UNDO = "undo"


class Visit(Output):
    state: VisitState
    arrived_at: Instant | None
    started_at: Instant | None
    ended_at: Instant | None
    user_id: Id | None
    name: Name | None
    role: Role | None
    reason: Reason | None


class VisitUpdate(Input):
    act: VisitAct
    reason: Reason | UnsetType | None = UNSET


NEXT = {
    VisitAct.ARRIVED: VisitState.ARRIVED,
    VisitAct.STARTED: VisitState.STARTED,
    VisitAct.NO_SHOW: VisitState.NO_SHOW,
}
FINAL_STATES = {VisitState.COMPLETED, VisitState.CANCELLED}
# What a visit is refused that is there already, or has gone past.
REFUSALS: dict[tuple[str, VisitAct], str] = {
    (VisitState.EXPECTED, VisitAct.UNDO): "nothing of this visit can be undone",
    (VisitState.ARRIVED, VisitAct.ARRIVED): "the patient has arrived already",
    (VisitState.ARRIVED, VisitAct.NO_SHOW): "the patient has arrived; undo that first",
    (VisitState.STARTED, VisitAct.ARRIVED): "the visit has started already",
    (VisitState.STARTED, VisitAct.STARTED): "the visit has started already",
    (VisitState.STARTED, VisitAct.NO_SHOW): "the visit has started; undo that first",
    (VisitState.NO_SHOW, VisitAct.ARRIVED): "the patient is marked as not come; undo that first",
    (VisitState.NO_SHOW, VisitAct.STARTED): "the patient is marked as not come; undo that first",
    (VisitState.NO_SHOW, VisitAct.NO_SHOW): "the patient is marked as not come already",
}
UNKNOWN = "act: this release does not know the state; undo it first"


def visit_of(row: VisitRow) -> Visit:
    act, last = row.act, row.last
    has_started = act is not None and act.after == VisitState.STARTED
    has_arrived = act is not None and VisitState.ARRIVED in (
        (act.before, act.after) if has_started else (act.after,)
    )
    has_ended = row.state in FINAL_STATES | {VisitState.NO_SHOW}
    return Visit(
        state=cast("VisitState", row.state),  # or text, as the role below
        arrived_at=row.arrival.arrived_at if row.arrival and has_arrived else None,
        started_at=act.acted_at if act and has_started else None,
        ended_at=last.at if last and has_ended else None,
        user_id=last.user_id if last else None,
        name=last.name if last else None,
        role=cast("Role | None", last.role if last else None),  # text: that of a later release may be another
        reason=row.reason,
    )


async def require_visit(source: Source, caller: Caller, id: str) -> VisitRow:
    """The visit of the appointment with this id of a path, or 404 where the caller may not see it."""
    visit = await visits.one(source, caller, path_id(id, "Appointment"))
    if visit is None:
        raise NotFoundException("Appointment not found")
    return visit


def next_state(visit: VisitRow, act: VisitAct) -> VisitState:
    """Where the act brings the visit. Raises 400 where it cannot follow what was done before."""
    state, before = visit.state, visit.act.before if visit.act else None
    if state in FINAL_STATES:
        raise BadRequest(FINAL, ErrorCode.FINAL_STATE)
    if (state, act) in REFUSALS:
        raise BadRequest(f"act: {REFUSALS[state, act]}", ErrorCode.VISIT_STATE)
    if act is not VisitAct.UNDO:
        if not isinstance(state, VisitState):
            raise BadRequest(UNKNOWN, ErrorCode.VISIT_STATE)
        return NEXT[act]
    if state is not VisitState.ARRIVED and before == VisitState.ARRIVED:
        return VisitState.ARRIVED
    return VisitState.EXPECTED


def require_its_time(locked: LockedAppointment, act: VisitAct) -> None:
    """Raise 400 where somebody is missed before the appointment begins."""
    if act is VisitAct.NO_SHOW and locked.standing.now < locked.appointment.date:
        detail = "act: nobody is missed before the appointment begins"
        raise BadRequest(detail, ErrorCode.TOO_EARLY)


async def require_still_free(transaction: Transaction, visit: VisitRow) -> None:
    """Raise 400 where the doctor or the patient has another scheduled appointment by now, at the time of one
    that is to be scheduled again."""
    taken = await visits.find_taken(transaction, visit.id)
    if taken.by_doctor or taken.by_patient:
        raise BadRequest(*(DOCTOR_TAKEN if taken.by_doctor else PATIENT_TAKEN))


class VisitController(Controller):
    path = "/api/appointments/{id:str}/visit"

    @get(operation_id="getVisit", action=Action.VISIT_READ)
    async def get_visit(
        self, id: PathId, request: StrictRequest, near_reader: NamedDependency[Reader]
    ) -> Tagged[Visit]:
        row = await require_visit(near_reader, request.user, id)
        await record_read(request, patient_id=row.patient_id, target_id=row.id)
        return Tagged(visit_of(row))

    @post(
        operation_id="updateVisit",
        status_code=200,
        action=Action.VISIT_UPDATE,
        headers=IF_MATCH,
        guards=[requires(Role.ADMIN, Role.DOCTOR, Role.STAFF)],
    )
    async def update_visit(
        self,
        id: PathId,
        data: JSONBody[VisitUpdate],
        request: StrictRequest,
        reader: NamedDependency[Reader],
        transaction: NamedDependency[Transaction],
    ) -> Tagged[Visit]:
        """Of two acts at once the second meets what the first has done."""
        # Longer than other handlers by what is looked at before.
        found = await require_appointment(reader, request.user, path_id(id, "Appointment"))
        locked = await lock_for_change(transaction, request.user, found)
        visit = await require_visit(transaction, request.user, id)
        after = next_state(visit, data.act)
        require_its_time(locked, data.act)
        if visit.state is VisitState.NO_SHOW:
            await require_still_free(transaction, visit)
        require_unchanged(request, Tagged(visit_of(visit)))
        event = record_write(transaction, request, patient_id=visit.patient_id, target_id=visit.id)
        reason = or_none(data.reason)
        done = await visits.act(transaction, locked.appointment, visit, locked.by, event, after, reason)
        return Tagged(visit_of(done))
