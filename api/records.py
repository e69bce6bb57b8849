"""Medical records (requirement, section 6): written by a doctor, then read. They are amended and retracted in
record_versions.py."""

from typing import Annotated
from uuid import UUID, uuid4

from litestar import Controller
from litestar.di import NamedDependency
from litestar.params import FromQuery, JSONBody, QueryParameter
from msgspec import UNSET, Meta, UnsetType

from api.charts import write_to_chart
from api.http.auditing import record_read, record_write
from api.http.conditional import Tagged
from api.http.errors import NotFound
from api.http.fields import (
    MAX_PAGE_SIZE,
    Count,
    Id,
    Input,
    Instant,
    Limit,
    Output,
    Page,
    PathId,
    path_id,
    to_utc,
)
from api.http.idempotency import IDEMPOTENCY_KEY, claim_key
from api.http.operation import get, post
from api.http.requests import StrictRequest
from api.medical_records import (
    Attachments,
    Diagnosis,
    MedicalRecord,
    Prescription,
    RecordNotes,
    record_of,
    require_record,
    show_again,
)
from persistence import patients, records
from persistence.audit import Action
from persistence.postgres.database import Reader, Transaction
from persistence.postgres.sorting import RecordSort
from persistence.records import Filters
from security.guards import requires
from security.roles import Caller, Role


class RecordPage(Output):
    records: Annotated[list[MedicalRecord], Meta(max_length=MAX_PAGE_SIZE)]
    total: Count


class RecordCreate(Input):
    patient_id: Id
    diagnosis: Diagnosis
    prescription: Prescription
    notes: RecordNotes
    attachments: Attachments | UnsetType | None = UNSET


async def is_chart_visible(reader: Reader, caller: Caller, filters: Filters) -> bool:
    """Whether an empty list tells the caller something about the chart, namely that it has no records. A
    patient may name a chart that is not their own; then the same empty list tells nothing. One that is
    narrowed further does not say that there are none, and is not looked into."""
    if filters.patient is None or caller.role is not Role.PATIENT:
        return True
    is_of_chart_alone = filters == Filters(patient=filters.patient)
    return is_of_chart_alone and await patients.one(reader, caller, filters.patient) is not None


def chart_of_list(rows: list[records.RecordRow], patient_id: UUID | None) -> UUID | None:
    """Of which chart the records are, where one is asked for: it may be merged into another by now."""
    return rows[0].patient_id if rows and patient_id else patient_id


class RecordController(Controller):
    path = "/api/records"

    @get(
        operation_id="listRecords",
        action=Action.RECORD_LIST,
        guards=[requires(Role.ADMIN, Role.DOCTOR, Role.PATIENT)],
    )
    async def list_records(
        self,
        request: StrictRequest,
        near_reader: NamedDependency[Reader],
        page: Page = 1,
        limit: Limit = 10,
        patient_id: Annotated[Id | None, QueryParameter(name="patientId")] = None,
        doctor_id: Annotated[Id | None, QueryParameter(name="doctorId")] = None,
        since: Annotated[Instant | None, QueryParameter(name="from")] = None,
        until: Annotated[Instant | None, QueryParameter(name="to")] = None,
        sort: FromQuery[RecordSort | None] = None,
    ) -> RecordPage:
        # Longer than other handlers by the filters, one a line.
        filters = Filters(patient=patient_id, doctor=doctor_id, since=to_utc(since), until=to_utc(until))
        rows, total, [ids, charts] = await records.page(
            near_reader, request.user, page, limit, filters, sort or RecordSort.DATE_DESCENDING
        )
        shows_chart = total > 0 or await is_chart_visible(near_reader, request.user, filters)
        await record_read(
            request,
            patient_id=chart_of_list(rows, patient_id) if shows_chart else None,
            target_ids=ids,
            patient_ids=charts if patient_id is None else (),
        )
        return RecordPage([record_of(row) for row in rows], total)

    @post(
        operation_id="createRecord",
        action=Action.RECORD_CREATE,
        guards=[requires(Role.DOCTOR)],
        headers=IDEMPOTENCY_KEY,
    )
    async def create_record(
        self,
        data: JSONBody[RecordCreate],
        request: StrictRequest,
        transaction: NamedDependency[Transaction],
    ) -> Tagged[MedicalRecord]:
        """The doctor is the caller, the date is now."""
        # Longer than other handlers by the columns of the new row, one a line.
        record_id = uuid4()
        if earlier := await claim_key(transaction, request, record_id):
            return await show_again(transaction, request, earlier)

        async def write(chart_id: UUID) -> records.RecordRow | None:
            record_write(transaction, request, patient_id=chart_id, target_id=record_id)
            return await records.add(
                transaction,
                id=record_id,
                patient_id=chart_id,
                doctor_id=request.user.id,
                diagnosis=data.diagnosis,
                prescription=data.prescription,
                notes=data.notes,
                attachments=data.attachments or [],
            )

        row = await write_to_chart(transaction, data.patient_id, write, lambda row: row is None)
        if row is None:
            raise NotFound("Patient not found", field="patientId")
        return Tagged(record_of(row))

    @get(
        "/{id:str}",
        operation_id="getRecord",
        action=Action.RECORD_READ,
        guards=[requires(Role.ADMIN, Role.DOCTOR, Role.PATIENT)],
    )
    async def get_record(
        self, id: PathId, request: StrictRequest, near_reader: NamedDependency[Reader]
    ) -> Tagged[MedicalRecord]:
        row = await require_record(near_reader, request.user, path_id(id, "Record"))
        await record_read(request, patient_id=row.patient_id, target_id=row.id)
        return Tagged(record_of(row))
