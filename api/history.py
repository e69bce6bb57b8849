"""The history of a chart and of an appointment: what stood there, who changed it, and when."""

from typing import Annotated, Literal

import msgspec
from litestar import Controller
from litestar.di import NamedDependency
from msgspec import Meta

from api.bookings import require_appointment
from api.charts import require_chart
from api.http.auditing import record_read
from api.http.fields import (
    MAX_PAGE_SIZE,
    TEXT,
    Count,
    Id,
    Instant,
    Limit,
    Name,
    Output,
    Page,
    PathId,
    path_id,
)
from api.http.operation import get
from api.http.requests import StrictRequest
from api.http.structs import struct_of
from persistence import history
from persistence.audit import Action
from persistence.history import ChangeRow
from persistence.postgres.database import Reader
from security.roles import Role

FormerValue = Annotated[str, Meta(max_length=20000, pattern=TEXT)]  # as long as the longest field


class PatientChange(Output):
    at: Instant
    user_id: Id | None
    name: Name | None
    role: Role | None
    field: Literal[
        "name",
        "email",
        "phone",
        "dateOfBirth",
        "gender",
        "address",
        "bloodType",
        "allergies",
        "medicalHistory",
        "account",
        "merge",
    ]
    before: FormerValue | None = msgspec.field(name="from")
    after: FormerValue | None = msgspec.field(name="to")


class PatientHistory(Output):
    changes: Annotated[list[PatientChange], Meta(max_length=MAX_PAGE_SIZE)]
    total: Count


class AppointmentChange(Output):
    at: Instant
    user_id: Id | None
    name: Name | None
    role: Role | None
    field: Literal[
        "date",
        "status",
        "notes",
        "override",
        "overbook",
        "visit",
        "visitReason",
        "cancelReason",
        "doctorId",
        "doctorName",
    ]
    before: FormerValue | None = msgspec.field(name="from")
    after: FormerValue | None = msgspec.field(name="to")


class AppointmentHistory(Output):
    changes: Annotated[list[AppointmentChange], Meta(max_length=MAX_PAGE_SIZE)]
    total: Count


OF_ANY_RELEASE = frozenset({"role", "field"})
patient_change_of = struct_of(PatientChange, ChangeRow, as_text=OF_ANY_RELEASE)
appointment_change_of = struct_of(AppointmentChange, ChangeRow, as_text=OF_ANY_RELEASE)


class HistoryController(Controller):
    @get(
        "/api/patients/{id:str}/history",
        operation_id="getPatientHistory",
        action=Action.PATIENT_HISTORY,
    )
    async def get_patient_history(
        self,
        id: PathId,
        request: StrictRequest,
        near_reader: NamedDependency[Reader],
        page: Page = 1,
        limit: Limit = 10,
    ) -> PatientHistory:
        """Of a merged chart its own, by its old id."""
        chart_id = path_id(id, "Patient")
        chart = await require_chart(near_reader, request.user, chart_id)
        rows, total = await history.of_chart(near_reader, request.user, page, limit, chart_id)
        await record_read(request, patient_id=chart.id, target_id=chart_id)
        return PatientHistory([patient_change_of(row) for row in rows], total)

    @get(
        "/api/appointments/{id:str}/history",
        operation_id="getAppointmentHistory",
        action=Action.APPOINTMENT_HISTORY,
    )
    async def get_appointment_history(
        self,
        id: PathId,
        request: StrictRequest,
        near_reader: NamedDependency[Reader],
        page: Page = 1,
        limit: Limit = 10,
    ) -> AppointmentHistory:
        visit = await require_appointment(near_reader, request.user, path_id(id, "Appointment"))
        rows, total = await history.of_appointment(near_reader, page, limit, visit.id)
        await record_read(request, patient_id=visit.patient_id, target_id=visit.id)
        return AppointmentHistory([appointment_change_of(row) for row in rows], total)
