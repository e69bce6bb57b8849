"""Doctors (requirement, section 4)."""

from typing import Annotated

from litestar import Controller
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.params import FromQuery
from msgspec import Meta

from api.accounts import Label
from api.http.fields import (
    MAX_PAGE_SIZE,
    Count,
    Email,
    Id,
    IdList,
    Limit,
    Name,
    Output,
    Page,
    PathId,
    Phone,
    Search,
    path_id,
)
from api.http.operation import get
from api.http.structs import struct_of
from persistence import doctors
from persistence.audit import Action
from persistence.postgres.database import Reader
from persistence.postgres.sorting import DoctorSort


class DoctorSummary(Output):
    id: Id
    name: Name
    email: Email
    specialization: Label | None
    phone: Phone | None


class DoctorPage(Output):
    doctors: Annotated[list[DoctorSummary], Meta(max_length=MAX_PAGE_SIZE)]
    total: Count


class Doctor(Output):
    id: Id
    name: Name
    email: Email
    specialization: Label | None
    phone: Phone | None
    assigned_patients: Count


summary_of = struct_of(DoctorSummary, doctors.SummaryRow)
doctor_of = struct_of(Doctor, doctors.DoctorRow)


class DoctorController(Controller):
    path = "/api/doctors"

    @get(operation_id="listDoctors")
    async def list_doctors(
        self,
        near_reader: NamedDependency[Reader],
        page: Page = 1,
        limit: Limit = 10,
        search: Search = "",
        specialization: FromQuery[Label | None] = None,
        ids: FromQuery[IdList | None] = None,
        sort: FromQuery[DoctorSort | None] = None,
    ) -> DoctorPage:
        filters = doctors.Filters(search, specialization or None, ids)
        rows, total, _ = await doctors.page(near_reader, page, limit, filters, sort or DoctorSort.NAME)
        return DoctorPage([summary_of(row) for row in rows], total)

    @get("/{id:str}", operation_id="getDoctor", action=Action.DOCTOR_READ)
    async def get_doctor(self, id: PathId, near_reader: NamedDependency[Reader]) -> Doctor:
        row = await doctors.one(near_reader, path_id(id, "Doctor"))
        if row is None:
            raise NotFoundException("Doctor not found")
        return doctor_of(row)
