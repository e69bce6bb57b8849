"""The day sheet: who comes on a day, to whom, on paper for the desk."""

import logging
from collections.abc import Sequence
from datetime import UTC, date, datetime
from functools import partial
from importlib.resources import files
from itertools import groupby
from typing import Annotated
from uuid import UUID

from litestar import Controller, Response
from litestar.di import NamedDependency
from litestar.params import FromQuery, QueryParameter
from msgspec import Struct

from api.clinic import Clinic
from api.http.auditing import record_read_of_all
from api.http.errors import Forbidden, NotFound
from api.http.fields import Day, Id
from api.http.operation import get
from api.http.requests import StrictRequest
from api.paper.texts import in_words, printable
from api.paper.typesetting import typeset
from api.paper.workbench import Workbench
from persistence import day_sheets
from persistence.audit import Action
from persistence.day_sheets import VisitRow
from persistence.models import AppointmentStatus
from persistence.postgres.database import Reader
from security.guards import requires
from security.roles import Caller, Role

PDF = "application/pdf"
# A patient who is on the sheet as completed has come; of the others the desk writes it down.
STATES = {AppointmentStatus.SCHEDULED: "", AppointmentStatus.COMPLETED: "completed"}
log = logging.getLogger("medisecure.paper")


class Line(Struct, frozen=True):
    time: str
    patient: str
    born: str
    phone: str
    reason: str
    state: str


class Page(Struct, frozen=True):
    """One doctor's day."""

    doctor: str
    lines: list[Line]


class DaySheet(Struct, frozen=True, rename="camel"):
    """`number`: that of the request, which its events in the audit trail have, too."""

    number: UUID
    clinic: str
    timezone: str
    day: str
    printed_at: str
    pages: list[Page]


def draw_up(number: UUID, clinic: Clinic, day: date, visits: Sequence[VisitRow], at: datetime) -> DaySheet:
    """`visits`: by doctor, then time."""
    return DaySheet(
        number=number,
        clinic=printable(clinic.name),
        timezone=clinic.timezone.key,
        day=in_words(day),
        printed_at=f"{at.astimezone(clinic.timezone):%Y-%m-%d %H:%M}",
        pages=[
            Page(doctor=printable(theirs[0].doctor), lines=[line_of(clinic, visit) for visit in theirs])
            for theirs in (list(group) for _, group in groupby(visits, key=lambda visit: visit.doctor_id))
        ],
    )


def line_of(clinic: Clinic, visit: VisitRow) -> Line:
    begins, ends = (instant.astimezone(clinic.timezone) for instant in (visit.begins, visit.ends))
    return Line(
        time=f"{begins:%H:%M}–{ends:%H:%M}",  # noqa: RUF001  # a range
        patient=printable(visit.patient),
        born=visit.date_of_birth.isoformat(),
        phone=printable(visit.phone),
        reason=printable(visit.reason),
        state=STATES[visit.status],
    )


def print_sheet(sheet: DaySheet) -> bytes:
    """Takes its time."""
    pdf, is_whole = typeset(files(__package__).joinpath("day_sheet.typ").read_bytes(), sheet)
    if not is_whole:
        log.warning("A day sheet has boxes for characters that are in no font of this machine; install fonts")
    return pdf


def doctor_of_sheet(caller: Caller, doctor_id: UUID | None) -> UUID | None:
    """Whose day it is, None for everybody's; 403 where a doctor asks for another's."""
    if caller.role is not Role.DOCTOR:
        return doctor_id
    if doctor_id not in (caller.id, None):
        detail = "A doctor prints their own day only; admin and staff may print any"
        raise Forbidden(detail, parameter="doctorId")
    return caller.id


async def load_visits(
    reader: Reader, clinic: Clinic, day: date, doctor_id: UUID | None
) -> Sequence[VisitRow]:
    """404 where there is no such doctor."""
    visits = await day_sheets.visits(reader, clinic.calendar.spans(day), doctor_id)
    if doctor_id and not visits and not await day_sheets.has_sheet(reader, doctor_id):
        raise NotFound("Doctor not found", parameter="doctorId")
    return visits


class DaySheetController(Controller):
    @get(
        "/api/appointments/day-sheet",
        operation_id="getDaySheet",
        media_type=PDF,
        action=Action.APPOINTMENT_PRINT,
        guards=[requires(Role.ADMIN, Role.DOCTOR, Role.STAFF)],
    )
    async def get_day_sheet(
        self,
        request: StrictRequest,
        near_reader: NamedDependency[Reader],
        clinic: NamedDependency[Clinic],
        printer: NamedDependency[Workbench],
        date: FromQuery[Day | None] = None,
        doctor_id: Annotated[Id | None, QueryParameter(name="doctorId")] = None,
    ) -> Response[bytes]:
        whose, day = doctor_of_sheet(request.user, doctor_id), date or clinic.today()
        visits = await load_visits(near_reader, clinic, day, whose)
        sheet = partial(draw_up, request.request_id, clinic, day, visits, datetime.now(UTC))
        pdf = await printer.do(lambda: print_sheet(sheet()))
        await record_read_of_all(request, [(visit.id, visit.patient_id) for visit in visits])
        name = f'attachment; filename="day-sheet-{day}.pdf"'
        return Response(pdf, media_type=PDF, headers={"Content-Disposition": name})
