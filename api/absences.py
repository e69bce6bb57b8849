"""When doctors are away and when the clinic is closed, and what is booked then."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID, uuid4

from litestar import Controller
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.params import JSONBody, QueryParameter
from msgspec import UNSET, Meta, UnsetType, field

from api.bookings import Appointment, appointment_of
from api.clinic import find_faults_of_calendar
from api.http.auditing import record_read, record_write
from api.http.errors import Forbidden, InvalidInput, NotFound
from api.http.fields import (
    EMPTY_OR_NOT_BLANK,
    MAX_PAGE_SIZE,
    TEXT,
    Count,
    Id,
    Input,
    Instant,
    Limit,
    Message,
    Output,
    Page,
    PathId,
    or_none,
    path_id,
    to_utc,
)
from api.http.idempotency import IDEMPOTENCY_KEY, claim_key
from api.http.operation import delete, get, post
from api.http.problems import ErrorCode, Fault
from api.http.requests import Given, StrictRequest
from api.http.structs import struct_of
from api.http.violations import field_fault
from persistence import absences
from persistence.absences import AbsenceRow
from persistence.appointments import AppointmentRow
from persistence.audit import Action
from persistence.postgres.database import Reader, Transaction
from security.guards import requires
from security.roles import Caller, Role

WhyAway = Annotated[str, Meta(max_length=500, pattern=TEXT)]
SentWhyAway = Annotated[str, Meta(max_length=500, pattern=EMPTY_OR_NOT_BLANK)]


class Absence(Output):
    id: Id
    doctor_id: Id | None
    begins: Instant = field(name="from")
    ends: Instant = field(name="to")
    reason: WhyAway | None


class AbsencePage(Output):
    absences: Annotated[list[Absence], Meta(max_length=MAX_PAGE_SIZE)]
    total: Count


class AbsenceCreate(Input, kw_only=True):
    doctor_id: Id | UnsetType | None = UNSET
    begins: Instant = field(name="from")
    ends: Instant = field(name="to")
    reason: SentWhyAway | UnsetType | None = UNSET


class AbsenceCreated(Output):
    id: Id
    doctor_id: Id | None
    begins: Instant = field(name="from")
    ends: Instant = field(name="to")
    reason: WhyAway | None
    appointments: Annotated[list[Appointment], Meta(max_length=MAX_PAGE_SIZE)]
    total: Count


absence_of = struct_of(Absence, AbsenceRow)


def created_of(row: AbsenceRow, booked: list[AppointmentRow], total: int) -> AbsenceCreated:
    return AbsenceCreated(*row, [appointment_of(each) for each in booked], total)


def require_sound_time(given: Given, request: StrictRequest) -> Iterator[Fault]:
    """The end is later than the beginning, and both are of the clinic's calendar."""
    for name in ("from", "to"):
        yield from find_faults_of_calendar(given, name)
    if "from" in given and "to" in given and given["from"] >= given["to"]:
        yield field_fault("to", ErrorCode.BAD_ORDER, "must be later than from")


def require_forwards(since: datetime | None, until: datetime | None) -> None:
    """Raise 400 where a list is to end before it begins."""
    if since and until and since >= until:
        raise InvalidInput(
            [Fault(parameter="to", code=ErrorCode.BAD_ORDER, detail="must be later than from")]
        )


def require_may_set(caller: Caller, doctor_id: UUID | None, field: str | None = None) -> None:
    """Raise 403 where a doctor has to do with another doctor's leave, or with the whole clinic's days.
    `field`: of the body, which says whose it is."""
    if caller.role is Role.DOCTOR and doctor_id != caller.id:
        detail = "Doctors set and delete their own absences only; admin and staff any, and the clinic's"
        raise Forbidden(detail, field=field)


async def show_again(transaction: Transaction, request: StrictRequest, id: UUID) -> AbsenceCreated:
    """The absence that an earlier request has made, with what is booked in it now; 404 where it was deleted
    since."""
    row = await absences.one(transaction, request.user, id)
    if row is None:
        raise NotFoundException("Absence not found")
    require_may_set(request.user, row.doctor_id, "doctorId")  # who made it may have another role by now
    booked, total = await absences.bookings(transaction, row, MAX_PAGE_SIZE)
    ids, charts = [each.id for each in booked], [each.patient_id for each in booked]
    action = Action.ABSENCE_READ
    record_write(transaction, request, action=action, target_id=id, target_ids=ids, patient_ids=charts)
    return created_of(row, booked, total)


class AbsenceController(Controller):
    path = "/api/absences"

    @get(
        operation_id="listAbsences",
        action=Action.ABSENCE_LIST,
        guards=[requires(Role.ADMIN, Role.DOCTOR, Role.STAFF)],
    )
    async def list_absences(
        self,
        request: StrictRequest,
        near_reader: NamedDependency[Reader],
        page: Page = 1,
        limit: Limit = 10,
        doctor_id: Annotated[Id | None, QueryParameter(name="doctorId")] = None,
        since: Annotated[Instant | None, QueryParameter(name="from")] = None,
        until: Annotated[Instant | None, QueryParameter(name="to")] = None,
    ) -> AbsencePage:
        require_forwards(since, until)
        rows, total, [ids] = await absences.page(
            near_reader, request.user, page, limit, doctor=doctor_id, since=to_utc(since), until=to_utc(until)
        )
        await record_read(request, target_ids=ids)
        return AbsencePage([absence_of(row) for row in rows], total)

    @post(
        operation_id="createAbsence",
        action=Action.ABSENCE_CREATE,
        rules=[require_sound_time],
        headers=IDEMPOTENCY_KEY,
        guards=[requires(Role.ADMIN, Role.DOCTOR, Role.STAFF)],
    )
    async def create_absence(
        self,
        data: JSONBody[AbsenceCreate],
        request: StrictRequest,
        transaction: NamedDependency[Transaction],
    ) -> AbsenceCreated:
        """What is booked in that time stays, and is in the answer: whoever books or moves meanwhile waits
        for this, and then sees the absence."""
        doctor_id = data.doctor_id or None
        begins, ends = data.begins.astimezone(UTC), data.ends.astimezone(UTC)
        row = AbsenceRow(uuid4(), doctor_id, begins, ends, or_none(data.reason))
        if earlier := await claim_key(transaction, request, row.id):
            return await show_again(transaction, request, earlier)
        require_may_set(request.user, doctor_id, "doctorId")
        if not await absences.lock(transaction, doctor_id):
            raise NotFound("Doctor not found", field="doctorId")
        booked, total = await absences.bookings(transaction, row, MAX_PAGE_SIZE)
        charts = [each.patient_id for each in booked]
        ids = [each.id for each in booked]
        record_write(transaction, request, target_id=row.id, target_ids=ids, patient_ids=charts)
        return created_of(await absences.add(transaction, **row._asdict()), booked, total)

    @delete(
        "/{id:str}",
        operation_id="deleteAbsence",
        status_code=200,
        action=Action.ABSENCE_DELETE,
        guards=[requires(Role.ADMIN, Role.DOCTOR, Role.STAFF)],
    )
    async def delete_absence(
        self, id: PathId, request: StrictRequest, transaction: NamedDependency[Transaction]
    ) -> Message:
        row = await absences.locked(transaction, request.user, path_id(id, "Absence"))
        if row is None:
            raise NotFoundException("Absence not found")
        require_may_set(request.user, row.doctor_id)
        record_write(transaction, request, target_id=row.id)
        await absences.end(transaction, row.id)
        return Message("Absence deleted")
