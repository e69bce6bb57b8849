"""The events that requests leave in the audit trail. An operation's decorator and the contract's `x-audit`
name its action; its handler says whose data the answer shows."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Protocol, TypedDict, Unpack
from uuid import UUID, uuid4

from litestar.exceptions import HTTPException
from litestar.types import Scope
from msgspec import Raw

from api.http.requests import StrictRequest
from persistence.audit import Action, Event, Journal, Outcome
from persistence.postgres.database import Transaction
from persistence.postgres.paging import MAX_NAMED_IDS, Ids
from security.roles import Role

log = logging.getLogger("medisecure.audit")
AUDITED_REFUSALS = {HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND}


class AuditedUser(Protocol):
    """The user whom an event is about."""

    @property
    def id(self) -> UUID: ...
    @property
    def email(self) -> str: ...
    @property
    def role(self) -> Role: ...


class EventDetails(TypedDict, total=False):
    """What a handler says of an event. `action`: if it is not the operation's. `user`: whom it is about if
    nobody is signed in; `session_id`: their session. `target_id`, `target_ids`: what was read or written.
    `patient_id`, `patient_ids`: every chart that the answer shows something of."""

    action: Action
    user: AuditedUser | None
    session_id: UUID | None
    patient_id: UUID | None
    target_id: UUID | None
    target_ids: Ids
    patient_ids: Ids


def build_event(
    request: StrictRequest, outcome: Outcome = Outcome.SUCCESS, **details: Unpack[EventDetails]
) -> Event:
    caller = request.caller
    who = caller or details.get("user")
    patient_id = details.get("patient_id")
    return Event(
        at=datetime.now(UTC),
        user_id=who.id if who else None,
        email=who.email if who else None,
        role=who.role if who else None,
        session_id=caller.session_id if caller else details.get("session_id"),
        action=details.get("action") or action_of(request),
        outcome=outcome,
        patient_id=patient_id,
        target_id=details.get("target_id"),
        target_ids=details.get("target_ids", ()),
        patient_ids=distinct_charts(details.get("patient_ids", ()), patient_id),
        address=request.address,
        request_id=request.request_id,
    )


def action_of(request: StrictRequest) -> Action:
    action = request.policy.action
    if action is None:
        raise LookupError("The operation's decorator names no action")
    return action


def distinct_charts(patient_ids: Ids, patient_id: UUID | None) -> Ids:
    """Each chart once. A list that the database has written names each once already."""
    if isinstance(patient_ids, Raw):
        return patient_ids
    return sorted({*patient_ids, patient_id} if patient_id else {*patient_ids})


async def record_read(
    request: StrictRequest, outcome: Outcome = Outcome.SUCCESS, **details: Unpack[EventDetails]
) -> None:
    """Store an event of something that was read, or tried in vain. Returns once it is durable."""
    await request.service(Journal).write(build_event(request, outcome, **details))


async def record_read_of_all(
    request: StrictRequest, shown: Sequence[tuple[UUID, UUID]], **details: Unpack[EventDetails]
) -> None:
    """As record_read, in as many events as name all that was shown; one if that is nothing. `shown`: pairs of
    an object and its chart."""
    batches = [shown[begin : begin + MAX_NAMED_IDS] for begin in range(0, len(shown) or 1, MAX_NAMED_IDS)]
    events = [
        EventDetails(
            **details, target_ids=[target for target, _ in batch], patient_ids=[chart for _, chart in batch]
        )
        for batch in batches
    ]
    await asyncio.gather(*(record_read(request, **event) for event in events))


def record_write(
    transaction: Transaction,
    request: StrictRequest,
    outcome: Outcome = Outcome.SUCCESS,
    **details: Unpack[EventDetails],
) -> Event:
    """Have an event stored in the same transaction as the write that it tells of: both or neither."""
    event = build_event(request, outcome, **details)
    transaction.note(event)
    return event


async def record_refusal(error: Exception, scope: Scope) -> None:
    """Litestar's after_exception hook: store an event if a signed-in caller was refused."""
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
    except Exception as failed:  # The caller gets their refusal also without an event.
        log.error("A refusal could not be stored in the audit trail: %s", type(failed).__name__)


def path_target(request: StrictRequest) -> UUID | None:
    try:
        return UUID(request.path_params["id"])
    except (KeyError, ValueError):
        return None


def command_event(action: Action, target_id: UUID | None = None) -> Event:
    """An event of a command at the command line. The service does not know which operator ran it."""
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
