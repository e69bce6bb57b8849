"""Two charts of one person, merged by an administrator, and parted again."""

from typing import Annotated, Literal

from litestar import Controller
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.params import JSONBody, QueryParameter
from msgspec import Meta, field

from api.charts import Patient, chart_of, patient_of, require_chart
from api.http.auditing import record_read, record_write
from api.http.conditional import IF_MATCH, Tagged, require_unchanged
from api.http.errors import BadRequest, NotFound
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
from api.http.operation import get, post
from api.http.problems import ErrorCode
from api.http.requests import StrictRequest
from persistence import merges
from persistence.audit import Action
from persistence.merges import Extent, MergedChart
from persistence.patients import PatientRow
from persistence.postgres.database import Reader, Transaction
from security.guards import requires
from security.roles import Caller, Role

MAX_LEFT = 1_000_000  # nobody has as many; the contract wants a number


class MergeRequest(Input):
    from_: Id = field(name="from")
    reason: Reason


class MergePreview(Output):
    appointments: Count
    records: Count
    account: Id | None


class PatientMerge(Output):
    at: Instant
    user_id: Id
    name: Name
    role: Role
    reason: Reason
    patient: Patient


class MergePage(Output):
    merges: Annotated[list[PatientMerge], Meta(max_length=MAX_PAGE_SIZE)]
    total: Count


class Unmerged(Output):
    left: Annotated[list[Id], Meta(max_length=MAX_LEFT)]


def merge_of(row: MergedChart) -> PatientMerge:
    return PatientMerge(row.at, row.by_id, row.by, Role(row.by_role), row.reason, patient_of(row.chart))


async def lock_charts(
    transaction: Transaction, caller: Caller, id: str, data: MergeRequest
) -> tuple[str, PatientRow, PatientRow]:
    """The caller's name, and both charts, which nobody else changes until the transaction ends: the one that
    a path names, and the one to merge into it. Raises 404 for either, 400 for one that cannot be merged."""
    survivor = await require_chart(transaction, caller, path_id(id, "Patient"))
    if data.from_ == survivor.id:
        raise BadRequest("from: a chart cannot be merged into itself", ErrorCode.SAME_CHART)
    charts = await merges.lock(transaction, caller, survivor.id, data.from_)
    if charts.survivor is None:  # merged in this moment
        raise NotFoundException("Patient not found")
    if charts.merged is None:
        if await merges.merged_into(transaction, data.from_):
            raise BadRequest("from: this chart is merged already", ErrorCode.ALREADY_MERGED)
        raise NotFound("Patient not found", field="from")
    return charts.by, charts.survivor, charts.merged


def require_mergeable(survivor: PatientRow, merged: PatientRow, extent: Extent) -> None:
    """Raise 400 where people would lose their account, or have two appointments at once."""
    if survivor.user_id is not None and merged.user_id is not None:
        detail = "Both charts are linked to accounts: unlink one of them first"
        raise BadRequest(detail, ErrorCode.ALREADY_LINKED)
    if extent.overlaps:
        detail = "Scheduled appointments of the two charts overlap: move or cancel one of them first"
        raise BadRequest(detail, ErrorCode.SLOT_TAKEN_PATIENT)


async def lock_merged(
    transaction: Transaction, caller: Caller, id: str, data: MergeRequest
) -> tuple[str, PatientRow]:
    """The caller's name, and the chart that a path names, into which the other one is merged. Raises 404
    where there is no such chart, 400 where they are not merged or the survivor was merged itself."""
    survivor_id = path_id(id, "Patient")
    charts = await merges.lock(transaction, caller, survivor_id, data.from_)
    if charts.survivor is None:
        if await merges.merged_into(transaction, survivor_id):
            raise BadRequest("This chart is merged into another: undo that first", ErrorCode.ALREADY_MERGED)
        raise NotFoundException("Patient not found")
    into = await merges.merged_into(transaction, data.from_)
    if into is None and charts.merged is None:
        raise NotFound("Patient not found", field="from")
    if into is None or into.survivor_id != survivor_id:
        raise BadRequest("from: is not merged into this chart", ErrorCode.NOT_MERGED)
    return charts.by, charts.survivor


class MergeController(Controller):
    path = "/api/patients/{id:str}"

    @get(
        "/merges",
        operation_id="listPatientMerges",
        action=Action.PATIENT_MERGES,
        guards=[requires(Role.ADMIN, Role.DOCTOR, Role.STAFF)],
    )
    async def list_patient_merges(
        self,
        id: PathId,
        request: StrictRequest,
        near_reader: NamedDependency[Reader],
        page: Page = 1,
        limit: Limit = 10,
    ) -> MergePage:
        survivor = await require_chart(near_reader, request.user, path_id(id, "Patient"))
        rows, total = await merges.page(near_reader, page, limit, survivor.id)
        ids = [row.chart.id for row in rows]
        await record_read(request, patient_id=survivor.id, target_ids=ids, patient_ids=[survivor.id, *ids])
        return MergePage([merge_of(row) for row in rows], total)

    @post(
        "/merge",
        operation_id="mergePatient",
        status_code=200,
        action=Action.PATIENT_MERGE,
        changes_access=True,
        headers=IF_MATCH,
        guards=[requires(Role.ADMIN)],
    )
    async def merge_patient(
        self,
        id: PathId,
        data: JSONBody[MergeRequest],
        request: StrictRequest,
        transaction: NamedDependency[Transaction],
        dry_run: Annotated[Literal["true", "false"] | None, QueryParameter(name="dryRun")] = None,
    ) -> Tagged[Patient] | Tagged[MergePreview]:
        """The merged chart's appointments, records and account become the survivor's."""
        by, survivor, merged = await lock_charts(transaction, request.user, id, data)
        extent = await merges.measure(transaction, survivor.id, merged.id)
        require_mergeable(survivor, merged, extent)
        chart = chart_of(survivor)
        require_unchanged(request, chart)
        both = (survivor.id, merged.id)
        if dry_run == "true":
            action = Action.PATIENT_READ
            record_write(transaction, request, action=action, patient_id=survivor.id, patient_ids=both)
            preview = MergePreview(extent.appointments, extent.records, merged.user_id)
            return Tagged(preview, *chart.unseen, whole=chart.shown)
        record_write(transaction, request, patient_id=survivor.id, target_id=merged.id, patient_ids=both)
        return chart_of(await merges.merge(transaction, by, survivor, merged, data.reason))

    @post(
        "/unmerge",
        operation_id="unmergePatient",
        status_code=200,
        action=Action.PATIENT_UNMERGE,
        changes_access=True,
        headers=IF_MATCH,
        guards=[requires(Role.ADMIN)],
    )
    async def unmerge_patient(
        self,
        id: PathId,
        data: JSONBody[MergeRequest],
        request: StrictRequest,
        transaction: NamedDependency[Transaction],
    ) -> Unmerged:
        """What was written since the merge stays with the survivor."""
        by, survivor = await lock_merged(transaction, request.user, id, data)
        require_unchanged(request, chart_of(survivor))
        both = (survivor.id, data.from_)
        record_write(transaction, request, patient_id=survivor.id, target_id=data.from_, patient_ids=both)
        left = await merges.unmerge(transaction, by, survivor.id, data.from_, data.reason)
        return Unmerged(left)
