"""Reading the audit trail: what happened, and who looked at a chart."""

from typing import Annotated, Literal

from litestar import Controller
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.params import FromQuery, QueryParameter
from msgspec import Meta

from api.charts import require_chart
from api.http.auditing import record_read
from api.http.fields import (
    INT32,
    MAX_EMAIL_LENGTH,
    MAX_INT32,
    MAX_PAGE_SIZE,
    MAX_SAFE_INTEGER,
    TEXT,
    Count,
    Id,
    Instant,
    Limit,
    Name,
    Output,
    Page,
    PathId,
    PeerAddress,
    path_id,
    to_utc,
)
from api.http.operation import get
from api.http.requests import StrictRequest
from api.http.structs import struct_of
from persistence import accesses, audit, record_versions
from persistence.audit import Action, Outcome
from persistence.postgres.database import Reader
from persistence.postgres.paging import MAX_NAMED_IDS
from security.guards import requires
from security.roles import Role

EventEmail = Annotated[str, Meta(max_length=MAX_EMAIL_LENGTH, pattern=TEXT)]
EventId = Annotated[int, Meta(ge=0, le=MAX_SAFE_INTEGER, extra_json_schema={"format": "int64"})]


class AuditEvent(Output):
    id: EventId
    at: Instant
    user_id: Id | None
    email: EventEmail | None
    role: Role | None
    session_id: Id | None
    action: Action
    outcome: Outcome
    patient_id: Id | None
    target_id: Id | None
    target_ids: Annotated[list[Id], Meta(max_length=MAX_NAMED_IDS)]
    address: PeerAddress
    request_id: Id


class AuditPage(Output):
    events: Annotated[list[AuditEvent], Meta(max_length=MAX_PAGE_SIZE)]
    total: Count


class Access(Output):
    at: Instant
    first_at: Instant
    count: Annotated[int, Meta(ge=1, le=MAX_INT32, extra_json_schema=INT32)]
    user_id: Id
    name: Name
    role: Role
    action: Action


class AccessPage(Output):
    accesses: Annotated[list[Access], Meta(max_length=MAX_PAGE_SIZE)]
    total: Count


event_of = struct_of(AuditEvent, audit.EventRow, as_text=frozenset({"role", "action", "outcome"}))
access_of = struct_of(Access, accesses.AccessRow, as_text=frozenset({"role", "action"}))


class AuditController(Controller):
    @get(
        "/api/audit",
        operation_id="listAuditEvents",
        action=Action.AUDIT_LIST,
        guards=[requires(Role.ADMIN)],
    )
    async def list_audit_events(
        self,
        request: StrictRequest,
        reader: NamedDependency[Reader],
        page: Page = 1,
        limit: Limit = 10,
        user_id: Annotated[Id | None, QueryParameter(name="userId")] = None,
        patient_id: Annotated[Id | None, QueryParameter(name="patientId")] = None,
        action: FromQuery[Action | None] = None,
        since: Annotated[Instant | None, QueryParameter(name="from")] = None,
        until: Annotated[Instant | None, QueryParameter(name="to")] = None,
    ) -> AuditPage:
        rows, total = await audit.page(
            reader,
            page,
            limit,
            user_id=user_id,
            patient_id=patient_id,
            action=action,
            since=to_utc(since),
            until=to_utc(until),
        )
        await record_read(request, target_id=user_id, patient_id=patient_id)
        return AuditPage([event_of(row) for row in rows], total)

    @get(
        "/api/patients/{id:str}/accesses",
        operation_id="listPatientAccesses",
        action=Action.PATIENT_ACCESSES,
        guards=[requires(Role.ADMIN, Role.PATIENT)],
    )
    async def list_patient_accesses(
        self,
        id: PathId,
        request: StrictRequest,
        reader: NamedDependency[Reader],
        page: Page = 1,
        limit: Limit = 10,
        others: FromQuery[Literal["true", "false"] | None] = None,
    ) -> AccessPage:
        patient = await require_chart(reader, request.user, path_id(id, "Patient"))
        but = request.user.id if others == "true" else None
        rows, total = await accesses.page(reader, page, limit, patient.id, but=but)
        await record_read(request, patient_id=patient.id, target_id=patient.id)
        return AccessPage([access_of(row) for row in rows], total)

    @get(
        "/api/records/{id:str}/accesses",
        operation_id="listRecordAccesses",
        action=Action.RECORD_ACCESSES,
        guards=[requires(Role.ADMIN)],
    )
    async def list_record_accesses(
        self,
        id: PathId,
        request: StrictRequest,
        reader: NamedDependency[Reader],
        page: Page = 1,
        limit: Limit = 10,
        others: FromQuery[Literal["true", "false"] | None] = None,
    ) -> AccessPage:
        record_id = path_id(id, "Record")
        place = await record_versions.place(reader, record_id)
        if place is None:
            raise NotFoundException("Record not found")
        but = request.user.id if others == "true" else None
        chart = place.patient_id
        rows, total = await accesses.page(reader, page, limit, chart, record_id=record_id, but=but)
        await record_read(request, patient_id=chart, target_id=record_id)
        return AccessPage([access_of(row) for row in rows], total)
