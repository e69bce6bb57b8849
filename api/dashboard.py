"""The dashboard of each role (requirement, section 7)."""

from typing import Annotated

import msgspec
from litestar import Controller, Response
from litestar.di import NamedDependency
from msgspec import Meta

from api.clinic import Clinic
from api.http.conditional import conditional_response, entity_tag
from api.http.fields import MAX_SAFE_INTEGER, Count, Output
from api.http.operation import get
from api.http.requests import StrictRequest
from api.http.structs import struct_of
from persistence import dashboard
from persistence.postgres.database import Reader
from security.roles import Caller, Role

Money = Annotated[int, Meta(ge=0, le=MAX_SAFE_INTEGER, extra_json_schema={"format": "int64"})]


class AdminStats(Output):
    total_patients: Count
    total_doctors: Count
    total_appointments: Count
    revenue: Money


class DoctorStats(Output):
    assigned_patients: Count
    today_appointments: Count
    pending_reports: Count


class StaffStats(Output):
    managed_patients: Count
    scheduled_appointments: Count
    pending_registrations: Count


class PatientStats(Output):
    upcoming_appointments: Count
    medical_records: Count
    prescriptions: Count


admin_stats_of = struct_of(AdminStats, dashboard.AdminRow)
doctor_stats_of = struct_of(DoctorStats, dashboard.DoctorRow)
staff_stats_of = struct_of(StaffStats, dashboard.StaffRow)
patient_stats_of = struct_of(PatientStats, dashboard.PatientRow)
Stats = AdminStats | DoctorStats | StaffStats | PatientStats


async def load_stats(caller: Caller, reader: Reader, clinic: Clinic) -> Stats:
    match caller.role:
        case Role.ADMIN:
            return admin_stats_of(await dashboard.admin(reader))
        case Role.DOCTOR:
            return doctor_stats_of(await dashboard.doctor(reader, caller.id, clinic.calendar, clinic.today()))
        case Role.STAFF:
            return staff_stats_of(await dashboard.staff(reader))
        case Role.PATIENT:  # pragma: no branch  # there is no fifth role
            return patient_stats_of(await dashboard.patient(reader, caller.id))


class DashboardController(Controller):
    path = "/api/dashboard"

    @get("/stats", operation_id="getDashboardStats")
    async def get_dashboard_stats(
        self, request: StrictRequest, near_reader: NamedDependency[Reader], clinic: NamedDependency[Clinic]
    ) -> Response[Stats] | Response[bytes]:
        """A page that polls sends the tag of what it has and gets 304 while nothing has changed. The caller's
        id and role are part of the tag, so that equal figures of somebody else never match."""
        caller = request.user
        stats = await load_stats(caller, near_reader, clinic)
        tag = entity_tag(caller.id.bytes, caller.role.encode(), msgspec.json.encode(stats))
        return conditional_response(request, stats, tag)
