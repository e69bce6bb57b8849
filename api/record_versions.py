"""Records amended and taken back: every text that a record had stays readable, with who wrote it and why."""

from typing import Annotated, TypedDict, cast

from litestar import Controller
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.params import JSONBody
from msgspec import UNSET, Meta, UnsetType

from api.http.auditing import record_read, record_write
from api.http.conditional import IF_MATCH, Tagged, require_unchanged
from api.http.errors import BadRequest, Forbidden, InvalidInput
from api.http.fields import (
    MAX_PAGE_SIZE,
    Count,
    Id,
    Input,
    Instant,
    Limit,
    Name,
    Output,
    Page,
    PathId,
    Reason,
    path_id,
)
from api.http.idempotency import IDEMPOTENCY_KEY, claim_key
from api.http.operation import get, post
from api.http.problems import ErrorCode, Fault
from api.http.requests import StrictRequest
from api.http.structs import struct_of
from api.medical_records import (
    Attachments,
    Diagnosis,
    MedicalRecord,
    Prescription,
    RecordNotes,
    record_of,
    show_again,
)
from persistence import record_versions
from persistence.audit import Action, Event
from persistence.postgres.database import Reader, Transaction
from persistence.record_versions import Act, Amendment, HeldRecord, RetractionRow, VersionRow
from security.guards import requires
from security.roles import Caller, Role


class RecordVersion(Output):
    at: Instant
    user_id: Id
    name: Name
    role: Role
    reason: Reason | None
    diagnosis: Diagnosis
    prescription: Prescription
    notes: RecordNotes
    attachments: Attachments


class Retraction(Output):
    at: Instant
    user_id: Id
    name: Name
    role: Role
    reason: Reason


class RecordVersionPage(Output):
    versions: Annotated[list[RecordVersion], Meta(max_length=MAX_PAGE_SIZE)]
    total: Count
    retraction: Retraction | None


class RecordVersionCreate(Input):
    reason: Reason
    diagnosis: Diagnosis | UnsetType | None = UNSET
    prescription: Prescription | UnsetType | None = UNSET
    notes: RecordNotes | UnsetType | None = UNSET
    attachments: Attachments | UnsetType | None = UNSET


class RetractionCreate(Input):
    reason: Reason


class SentTexts(TypedDict, total=False):
    diagnosis: str
    prescription: str
    notes: str
    attachments: list[str]


NO_TEXT = Fault(
    pointer="",
    code=ErrorCode.REQUIRED,
    detail="at least one of diagnosis, prescription, notes and attachments is required",
)
version_of = struct_of(RecordVersion, VersionRow, as_text=frozenset({"role"}))


def retraction_of(row: RetractionRow | None) -> Retraction | None:
    if row is None:
        return None
    role = cast(Role, row.retracted_role)  # text, because a later release may have stored one we do not know
    return Retraction(row.retracted_at, row.retracted_by, row.retracted_name, role, row.retracted_for)


def require_texts(data: RecordVersionCreate) -> SentTexts:
    """The texts that were sent; `null` is as good as none. Raises 400 where there are none."""
    sent = {name: getattr(data, name) for name in SentTexts.__annotations__}
    given = {name: value for name, value in sent.items() if value is not UNSET and value is not None}
    if not given:
        raise InvalidInput([NO_TEXT])
    return cast(SentTexts, given)


async def hold_record(transaction: Transaction, caller: Caller, id: str, what: str) -> HeldRecord:
    """The record with this id of a path, which nobody else amends or retracts until the transaction ends.
    Raises 404; 403 for a doctor who did not write it; 400 where it was retracted. `what`: is to be done."""
    record_id = path_id(id, "Record")
    held = await record_versions.held(transaction, caller, record_id)
    place = held.record if held else await record_versions.place(transaction, record_id)
    if place is None:
        raise NotFoundException("Record not found")
    if caller.role is Role.DOCTOR and place.doctor_id != caller.id:
        raise Forbidden(f"Only the doctor who wrote the record may {what} it", ErrorCode.NOT_THE_AUTHOR)
    if held is None:
        raise BadRequest("The record was retracted", ErrorCode.RECORD_RETRACTED)
    return held


def act_of(event: Event, caller: Caller, held: HeldRecord, reason: str) -> Act:
    """What the caller does to the record, as the event of it says."""
    return Act(
        record_id=held.record.id,
        at=event.at,
        user_id=caller.id,
        name=held.by,
        role=caller.role,
        reason=reason,
        request_id=event.request_id,
    )


class RecordVersionController(Controller):
    path = "/api/records/{id:str}"

    @get(
        "/versions",
        operation_id="listRecordVersions",
        action=Action.RECORD_VERSIONS,
        guards=[requires(Role.ADMIN, Role.DOCTOR, Role.PATIENT)],
    )
    async def list_record_versions(
        self,
        id: PathId,
        request: StrictRequest,
        near_reader: NamedDependency[Reader],
        page: Page = 1,
        limit: Limit = 10,
    ) -> RecordVersionPage:
        record_id = path_id(id, "Record")
        rows = await record_versions.page(near_reader, request.user, page, limit, record_id)
        if not rows:
            raise NotFoundException("Record not found")
        first = rows[0]
        await record_read(request, patient_id=first.patient_id, target_id=record_id)
        versions = [version_of(row.version) for row in rows if row.version]
        return RecordVersionPage(versions, first.total, retraction_of(first.retraction))

    @post(
        "/versions",
        operation_id="createRecordVersion",
        action=Action.RECORD_AMEND,
        guards=[requires(Role.DOCTOR)],
        headers={**IF_MATCH, **IDEMPOTENCY_KEY},
    )
    async def create_record_version(
        self,
        id: PathId,
        data: JSONBody[RecordVersionCreate],
        request: StrictRequest,
        transaction: NamedDependency[Transaction],
    ) -> Tagged[MedicalRecord]:
        # Longer than other handlers by the columns of the new row, one a line.
        texts = require_texts(data)
        if earlier := await claim_key(transaction, request, path_id(id, "Record")):
            return await show_again(transaction, request, earlier)
        held = await hold_record(transaction, request.user, id, "amend")
        require_unchanged(request, Tagged(record_of(held.record)))
        amended = held.record._replace(**texts)
        event = record_write(transaction, request, patient_id=amended.patient_id, target_id=amended.id)
        amendment = Amendment(
            **act_of(event, request.user, held, data.reason),
            diagnosis=amended.diagnosis,
            prescription=amended.prescription,
            notes=amended.notes,
            attachments=amended.attachments,
        )
        await record_versions.amend(transaction, held, amendment)
        return Tagged(record_of(amended))

    @post(
        "/retraction",
        operation_id="retractRecord",
        action=Action.RECORD_RETRACT,
        guards=[requires(Role.ADMIN, Role.DOCTOR)],
        changes_access=True,
        headers=IF_MATCH,
    )
    async def retract_record(
        self,
        id: PathId,
        data: JSONBody[RetractionCreate],
        request: StrictRequest,
        transaction: NamedDependency[Transaction],
    ) -> Retraction:
        held = await hold_record(transaction, request.user, id, "retract")
        found = held.record
        require_unchanged(request, Tagged(record_of(found)))
        event = record_write(transaction, request, patient_id=found.patient_id, target_id=found.id)
        act = act_of(event, request.user, held, data.reason)
        await record_versions.retract(transaction, held, act)
        return Retraction(act["at"], act["user_id"], act["name"], act["role"], act["reason"])
