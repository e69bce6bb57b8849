"""Charts (requirement, section 3)."""

from collections.abc import Iterator
from datetime import date
from typing import Annotated
from uuid import UUID, uuid4

from litestar import Controller
from litestar.di import NamedDependency
from litestar.params import FromQuery, JSONBody, QueryParameter
from msgspec import UNSET, Meta, UnsetType

from api.charts import (
    Address,
    Allergies,
    BloodType,
    ChartPhone,
    MedicalHistory,
    Patient,
    PatientSummary,
    chart_of,
    lock_chart,
    require_chart,
    summary_of,
)
from api.clinic import Clinic
from api.http.auditing import record_read, record_write
from api.http.conditional import IF_MATCH_AS_REQUIRED, Tagged, require_unchanged
from api.http.errors import Forbidden
from api.http.fields import (
    MAX_PAGE_SIZE,
    Count,
    Day,
    IdList,
    Input,
    Limit,
    Name,
    Output,
    Page,
    PageNumber,
    PageSize,
    PathId,
    Search,
    SentEmail,
    or_none,
    path_id,
    wire_name,
)
from api.http.idempotency import IDEMPOTENCY_KEY, claim_key
from api.http.operation import get, patch, post
from api.http.problems import ErrorCode, Fault
from api.http.requests import Given, StrictRequest
from api.http.structs import changed_fields, sent_fields_of
from api.http.violations import field_fault
from persistence import patients
from persistence.audit import Action
from persistence.models import Gender
from persistence.patients import PatientChanges
from persistence.postgres.database import Reader, Transaction
from persistence.postgres.folding import trim_email
from persistence.postgres.sorting import PatientSort
from security.guards import join_roles, requires
from security.roles import Caller, Role


class PatientPage(Output):
    patients: Annotated[list[PatientSummary], Meta(max_length=MAX_PAGE_SIZE)]
    total: Count
    page: PageNumber
    limit: PageSize


class PatientCreate(Input):
    name: Name
    email: SentEmail
    phone: ChartPhone
    date_of_birth: Day
    gender: Gender
    address: Address
    blood_type: BloodType | UnsetType | None = UNSET
    allergies: Allergies | UnsetType | None = UNSET


class PatientUpdate(Input):
    name: Name | UnsetType = UNSET
    email: SentEmail | UnsetType = UNSET
    phone: ChartPhone | UnsetType = UNSET
    date_of_birth: Day | UnsetType = UNSET
    gender: Gender | UnsetType = UNSET
    address: Address | UnsetType = UNSET
    blood_type: BloodType | UnsetType | None = UNSET
    allergies: Allergies | UnsetType | None = UNSET
    medical_history: MedicalHistory | UnsetType | None = UNSET


MEDICAL_FIELDS = frozenset({"blood_type", "allergies", "medical_history"})
SETTABLE_FIELDS = {
    Role.DOCTOR: MEDICAL_FIELDS,
    Role.STAFF: frozenset(PatientUpdate.__struct_fields__) - {"medical_history"},
    Role.ADMIN: frozenset(PatientUpdate.__struct_fields__),
}
sent_fields = sent_fields_of(PatientUpdate, PatientChanges, MEDICAL_FIELDS)


def require_not_in_future(given: Given, request: StrictRequest) -> Iterator[Fault]:
    """A date of birth is today at the clinic, or earlier."""
    if given.get("dateOfBirth", date.min) > request.service(Clinic).today():
        yield field_fault("dateOfBirth", ErrorCode.IN_THE_FUTURE, "must not be in the future")


def changes_to_store(data: PatientUpdate) -> PatientChanges:
    """The fields that were sent, as they are stored: the e-mail address without white space around it."""
    sent = sent_fields(data)
    if "email" in sent:
        sent["email"] = trim_email(sent["email"])
    return sent


def require_may_set(caller: Caller, changed: PatientChanges) -> None:
    """Raise 403 where a field of `changed` is not for the caller's role to change."""
    forbidden = changed.keys() - SETTABLE_FIELDS[caller.role]
    if forbidden:
        names = sorted(wire_name(name) for name in forbidden)
        may = join_roles(role for role in SETTABLE_FIELDS if forbidden <= SETTABLE_FIELDS[role])
        code, detail = ErrorCode.ROLE_NOT_ALLOWED, f"only {may} may change it"
        faults = [Fault(pointer=f"/{name}", code=code, detail=detail) for name in names]
        raise Forbidden(f"Your role may not change {', '.join(names)}; {may} may", code, faults)


async def show_again(transaction: Transaction, request: StrictRequest, chart_id: UUID) -> Tagged[Patient]:
    """The chart that an earlier request has opened."""
    row = await require_chart(transaction, request.user, chart_id)
    record_write(transaction, request, action=Action.PATIENT_READ, patient_id=row.id, target_id=row.id)
    return chart_of(row)


class PatientController(Controller):
    path = "/api/patients"

    @get(operation_id="listPatients", action=Action.PATIENT_LIST)
    async def list_patients(
        self,
        request: StrictRequest,
        near_reader: NamedDependency[Reader],
        page: Page = 1,
        limit: Limit = 10,
        search: Search = "",
        date_of_birth: Annotated[Day | None, QueryParameter(name="dateOfBirth")] = None,
        ids: FromQuery[IdList | None] = None,
        sort: FromQuery[PatientSort | None] = None,
    ) -> PatientPage:
        filters = patients.Filters(search, date_of_birth, ids)
        sort = sort or PatientSort.NAME
        rows, total, [charts] = await patients.page(near_reader, request.user, page, limit, filters, sort)
        await record_read(request, target_ids=charts, patient_ids=charts)
        return PatientPage([summary_of(row) for row in rows], total, page=page, limit=limit)

    @post(
        operation_id="createPatient",
        action=Action.PATIENT_CREATE,
        guards=[requires(Role.ADMIN, Role.STAFF)],
        rules=[require_not_in_future],
        headers=IDEMPOTENCY_KEY,
    )
    async def create_patient(
        self,
        data: JSONBody[PatientCreate],
        request: StrictRequest,
        transaction: NamedDependency[Transaction],
    ) -> Tagged[Patient]:
        # Longer than other handlers by the columns of the new row, one a line.
        chart_id = uuid4()
        if earlier := await claim_key(transaction, request, chart_id):
            return await show_again(transaction, request, earlier)
        record_write(transaction, request, patient_id=chart_id, target_id=chart_id)
        row = await patients.add(
            transaction,
            id=chart_id,
            name=data.name,
            email=trim_email(data.email),
            phone=data.phone,
            date_of_birth=data.date_of_birth,
            gender=data.gender,
            address=data.address,
            blood_type=or_none(data.blood_type),
            allergies=or_none(data.allergies),
        )
        return chart_of(row)

    @get("/{id:str}", operation_id="getPatient", action=Action.PATIENT_READ)
    async def get_patient(
        self, id: PathId, request: StrictRequest, near_reader: NamedDependency[Reader]
    ) -> Tagged[Patient]:
        row = await require_chart(near_reader, request.user, path_id(id, "Patient"))
        await record_read(request, patient_id=row.id, target_id=row.id)
        return chart_of(row)

    @patch(
        "/{id:str}",
        operation_id="updatePatient",
        action=Action.PATIENT_UPDATE,
        guards=[requires(Role.ADMIN, Role.DOCTOR, Role.STAFF)],
        rules=[require_not_in_future],
        headers=IF_MATCH_AS_REQUIRED,
    )
    async def update_patient(
        self,
        id: PathId,
        data: JSONBody[PatientUpdate],
        request: StrictRequest,
        transaction: NamedDependency[Transaction],
    ) -> Tagged[Patient]:
        locked = await lock_chart(transaction, request.user, id)
        current = locked.chart
        changed = changed_fields(changes_to_store(data), current)
        require_may_set(request.user, changed)
        require_unchanged(request, chart_of(current))
        record_write(transaction, request, patient_id=current.id, target_id=current.id)
        return chart_of(await patients.change(transaction, locked, **changed))
