"""Charts (requirement, section 3), and the accounts that people link to them."""

from collections.abc import Iterator
from datetime import date
from typing import Annotated, Any
from uuid import uuid4

from litestar import Controller
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, JSONBody
from msgspec import UNSET, Meta, UnsetType

from api.accounts import Account, account
from api.clinic import Clinic
from api.errors import BadRequest, Forbidden, NotFound
from api.operation import delete, get, patch, post, put
from api.problems import ErrorCode, Fault
from api.requests import Given, StrictRequest
from api.schemas import (
    MAX_PAGE,
    MAX_PHONE,
    NOT_BLANK,
    TEXT,
    Day,
    Email,
    Figure,
    Id,
    Input,
    Instant,
    Limit,
    Name,
    Output,
    Page,
    PageNumber,
    PageSize,
    Search,
    SentEmail,
    changes,
    differing,
    or_none,
    path_id,
)
from api.trail import done, seen
from api.violations import of_field
from persistence import patients, users
from persistence.audit import Action
from persistence.database import Reader, Transaction
from persistence.models import AccountStatus, Gender
from persistence.statements import AnyRow
from persistence.text import trimmed
from security.guards import listed, requires
from security.roles import Caller, Role

ChartPhone = Annotated[str, Meta(min_length=1, max_length=MAX_PHONE, pattern=NOT_BLANK)]
Address = Annotated[str, Meta(min_length=1, max_length=500, pattern=NOT_BLANK)]
BloodType = Annotated[str, Meta(max_length=20, pattern=TEXT)]
Allergies = Annotated[str, Meta(max_length=5000, pattern=TEXT)]
History = Annotated[str, Meta(max_length=20000, pattern=TEXT)]
WIRE = {
    "date_of_birth": "dateOfBirth",
    "blood_type": "bloodType",
    "medical_history": "medicalHistory",
}


class PatientSummary(Output, rename=WIRE):
    id: Id
    name: Name
    email: Email
    phone: ChartPhone
    date_of_birth: Day
    gender: Gender
    address: Address
    created_at: Instant


class PatientPage(Output):
    patients: Annotated[list[PatientSummary], Meta(max_length=MAX_PAGE)]
    total: Figure
    page: PageNumber
    limit: PageSize


class Patient(Output, rename=WIRE):
    id: Id
    name: Name
    email: Email
    phone: ChartPhone
    date_of_birth: Day
    gender: Gender
    address: Address
    blood_type: BloodType | None
    allergies: Allergies | None
    medical_history: History | None
    created_at: Instant


class PatientCreate(Input, rename=WIRE):
    name: Name
    email: SentEmail
    phone: ChartPhone
    date_of_birth: Day
    gender: Gender
    address: Address
    blood_type: BloodType | UnsetType | None = UNSET
    allergies: Allergies | UnsetType | None = UNSET


class PatientUpdate(Input, rename=WIRE):
    name: Name | UnsetType = UNSET
    email: SentEmail | UnsetType = UNSET
    phone: ChartPhone | UnsetType = UNSET
    date_of_birth: Day | UnsetType = UNSET
    gender: Gender | UnsetType = UNSET
    address: Address | UnsetType = UNSET
    blood_type: BloodType | UnsetType | None = UNSET
    allergies: Allergies | UnsetType | None = UNSET
    medical_history: History | UnsetType | None = UNSET


class AccountLink(Input, rename={"user_id": "userId"}):
    user_id: Id


MEDICAL = frozenset({"blood_type", "allergies", "medical_history"})
MAY_SET = {
    Role.DOCTOR: MEDICAL,
    Role.STAFF: frozenset(PatientUpdate.__struct_fields__) - {"medical_history"},
    Role.ADMIN: frozenset(PatientUpdate.__struct_fields__),
}


def born(given: Given, request: StrictRequest) -> Iterator[Fault]:
    clinic: Clinic = request.app.state.clinic
    if given.get("dateOfBirth", date.min) > clinic.today():
        yield of_field("dateOfBirth", ErrorCode.IN_THE_FUTURE, "must not be in the future")


def sent(data: PatientUpdate) -> dict[str, Any]:
    given = changes(data, MEDICAL)
    return given | {"email": trimmed(given["email"])} if "email" in given else given


def settable(caller: Caller, changed: dict[str, Any]) -> None:
    forbidden = changed.keys() - MAY_SET[caller.role]
    if forbidden:
        names = sorted(WIRE.get(name, name) for name in forbidden)
        may = listed(role for role in MAY_SET if forbidden <= MAY_SET[role])
        code, who = ErrorCode.ROLE_NOT_ALLOWED, f"only {may} may change it"
        faults = [Fault(pointer=f"/{name}", code=code, detail=who) for name in names]
        raise Forbidden(f"Your role may not change {', '.join(names)}; {may} may", code, faults)


def linkable(caller: Caller, ever_linked: bool) -> None:
    """Raise 403 for staff where a chart was linked before: none of them moves one to an account of their
    own and reads its records. So `patient.link` by staff is a chart's first link, the only one of theirs."""
    if ever_linked and caller.role is not Role.ADMIN:
        raise Forbidden("This chart was linked before: only admin may link it again")


async def chart(transaction: Transaction, id: str) -> AnyRow:
    row = await patients.locked(transaction, path_id(id, "Patient"))
    if row is None:
        raise NotFoundException("Patient not found")
    return row


class PatientController(Controller):
    path = "/api/patients"

    @get(operation_id="listPatients", action=Action.PATIENT_LIST)
    async def list_patients(
        self,
        request: StrictRequest,
        reader: NamedDependency[Reader],
        page: Page = 1,
        limit: Limit = 10,
        search: Search = "",
    ) -> PatientPage:
        rows, total, [ids] = await patients.page(reader, request.user, page, limit, search)
        await seen(request, target_ids=ids, patient_ids=ids)
        return PatientPage([PatientSummary(*row) for row in rows], total, page, limit)

    @post(
        operation_id="createPatient",
        action=Action.PATIENT_CREATE,
        guards=[requires(Role.ADMIN, Role.STAFF)],
        rules=[born],
    )
    async def create_patient(
        self,
        data: JSONBody[PatientCreate],
        request: StrictRequest,
        transaction: NamedDependency[Transaction],
    ) -> Patient:
        chart_id = uuid4()
        done(transaction, request, patient_id=chart_id, target_id=chart_id)
        row = await patients.add(
            transaction,
            id=chart_id,
            name=data.name,
            email=trimmed(data.email),
            phone=data.phone,
            date_of_birth=data.date_of_birth,
            gender=data.gender,
            address=data.address,
            blood_type=or_none(data.blood_type),
            allergies=or_none(data.allergies),
        )
        return Patient(*row)

    @get("/{id:str}", operation_id="getPatient", action=Action.PATIENT_READ)
    async def get_patient(
        self, id: FromPath[str], request: StrictRequest, reader: NamedDependency[Reader]
    ) -> Patient:
        row = await patients.one(reader, request.user, path_id(id, "Patient"))
        if row is None:
            raise NotFoundException("Patient not found")
        await seen(request, patient_id=row.id, target_id=row.id)
        return Patient(*row)

    @patch(
        "/{id:str}",
        operation_id="updatePatient",
        action=Action.PATIENT_UPDATE,
        guards=[requires(Role.ADMIN, Role.DOCTOR, Role.STAFF)],
        rules=[born],
    )
    async def update_patient(
        self,
        id: FromPath[str],
        data: JSONBody[PatientUpdate],
        request: StrictRequest,
        transaction: NamedDependency[Transaction],
    ) -> Patient:
        current = await chart(transaction, id)
        changed = differing(sent(data), current)
        settable(request.user, changed)
        done(transaction, request, patient_id=current.id, target_id=current.id)
        return Patient(*await patients.change(transaction, current, **changed))

    @get(
        "/{id:str}/account",
        operation_id="getPatientAccount",
        action=Action.ACCOUNT_READ,
        guards=[requires(Role.ADMIN, Role.STAFF)],
    )
    async def get_patient_account(
        self, id: FromPath[str], request: StrictRequest, reader: NamedDependency[Reader]
    ) -> Account:
        """Staff see patient accounts only, here too: a linked one may have been given another role since."""
        patient_id = path_id(id, "Patient")
        if await patients.one(reader, request.user, patient_id) is None:
            raise NotFoundException("Patient not found")
        user_id = await patients.linked_account(reader, patient_id)
        row = user_id and await users.one(reader, user_id)
        if not row or (request.user.role is Role.STAFF and row.role is not Role.PATIENT):
            raise NotFoundException("User not found")
        await seen(request, patient_id=patient_id, target_id=row.id)
        return account(row)

    @put(
        "/{id:str}/account",
        operation_id="linkPatientAccount",
        action=Action.PATIENT_LINK,
        guards=[requires(Role.ADMIN, Role.STAFF)],
    )
    async def link_patient_account(
        self,
        id: FromPath[str],
        data: JSONBody[AccountLink],
        request: StrictRequest,
        transaction: NamedDependency[Transaction],
    ) -> Patient:
        """A person's act: never by an e-mail address that nobody verified."""
        current = await chart(transaction, id)
        link = await patients.link_of(transaction, current.id)
        linkable(request.user, link.ever_linked)
        user = await users.locked(transaction, data.user_id)
        if user is None:
            raise NotFound("User not found", field="userId")
        if link.user_id != user.id:
            if user.role is not Role.PATIENT or user.status is not AccountStatus.ACTIVE:
                raise BadRequest("userId: must be an active patient account", ErrorCode.NOT_A_PATIENT_ACCOUNT)
            if link.user_id is not None:
                raise BadRequest("This patient is linked to another account", ErrorCode.ALREADY_LINKED)
            await patients.link(transaction, current.id, user.id)
        done(transaction, request, patient_id=current.id, target_id=user.id)
        return Patient(*current)

    @delete(
        "/{id:str}/account",
        operation_id="unlinkPatientAccount",
        status_code=200,
        action=Action.PATIENT_UNLINK,
        guards=[requires(Role.ADMIN, Role.STAFF)],
    )
    async def unlink_patient_account(
        self, id: FromPath[str], request: StrictRequest, transaction: NamedDependency[Transaction]
    ) -> Patient:
        current = await chart(transaction, id)
        was = await patients.linked_account(transaction, current.id)
        await patients.link(transaction, current.id, None)
        done(transaction, request, patient_id=current.id, target_id=was)
        return Patient(*current)
