"""What a request leaves in the audit trail. An operation's action is in its decorator and in the contract's
`x-audit`; the handler says whose data the answer shows."""

import logging
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from uuid import UUID, uuid4

from litestar.exceptions import HTTPException
from litestar.types import Scope
from msgspec import Raw

from api.http.requests import StrictRequest
from persistence.audit import Action, Event, Journal, Outcome
from persistence.postgres.database import Transaction
from persistence.postgres.paging import Ids

log = logging.getLogger("medisecure.audit")
AUDITED_REFUSALS = {HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND}


def build_event(
    request: StrictRequest,
    outcome: Outcome = Outcome.SUCCESS,
    *,
    action: Action | None = None,
    user: Any = None,
    session_id: UUID | None = None,
    patient_id: UUID | None = None,
    target_id: UUID | None = None,
    target_ids: Ids = (),
    patient_ids: Ids = (),
) -> Event:
    """An event of this request. `user`: who it is about where nobody has signed in yet, with id, email and
    role; `session_id`: their session, then. `patient_ids`: every chart that the answer shows something of, if
    it is not `patient_id` alone."""
    caller = request.caller
    who = caller or user
    return Event(
        at=datetime.now(UTC),
        user_id=who.id if who else None,
        email=who.email if who else None,
        role=who.role if who else None,
        session_id=caller.session_id if caller else session_id,
        action=action or action_of(request),
        outcome=outcome,
        patient_id=patient_id,
        target_id=target_id,
        target_ids=target_ids,
        patient_ids=distinct_charts(patient_ids, patient_id),
        address=request.address,
        request_id=request.request_id,
    )


def action_of(request: StrictRequest) -> Action:
    action = request.policy.action
    if action is None:
        raise LookupError("The operation's decorator names no action")
    return action


def distinct_charts(patient_ids: Ids, patient_id: UUID | None) -> Ids:
    """All of them, each once; those of a list that the database has written are."""
    if isinstance(patient_ids, Raw):
        return patient_ids
    return sorted({*patient_ids, patient_id} if patient_id else {*patient_ids})


async def record_read(request: StrictRequest, outcome: Outcome = Outcome.SUCCESS, **what: Any) -> None:
    """Store that something was read, or was tried in vain; returns when that is durable."""
    await request.service(Journal).write(build_event(request, outcome, **what))


def record_write(transaction: Transaction, request: StrictRequest, **what: Any) -> None:
    """Have it stored that something is written, with the write itself: both or neither."""
    transaction.note(build_event(request, **what))


async def record_refusal(error: Exception, scope: Scope) -> None:
    """Litestar's after_exception hook: a signed-in caller was refused."""
    if not isinstance(error, HTTPException) or error.status_code not in AUDITED_REFUSALS:
        return
    request = StrictRequest(scope)
    if request.caller is None or request.policy.action is None:
        return
    try:
        target = path_target(request)
        of_a_chart = request.path_template.startswith("/api/patients/")
        await record_read(
            request, Outcome.REFUSED, target_id=target, patient_id=target if of_a_chart else None
        )
    except Exception as failed:  # the caller is refused all the same
        log.error("A refusal could not be stored in the audit trail: %s", type(failed).__name__)


def path_target(request: StrictRequest) -> UUID | None:
    try:
        return UUID(request.path_params["id"])
    except (KeyError, ValueError):
        return None


def command_event(action: Action, target_id: UUID) -> Event:
    """An event of an operator at the command line, whom the service does not know."""
    return Event(
        at=datetime.now(UTC),
        user_id=None,
        email=None,
        role=None,
        session_id=None,
        action=action,
        outcome=Outcome.SUCCESS,
        patient_id=None,
        target_id=target_id,
        target_ids=[],
        patient_ids=[],
        address="command line",
        request_id=uuid4(),
    )
