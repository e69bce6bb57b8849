"""The appointments that a doctor still has before them in a time, given to a colleague or cancelled."""

from collections.abc import Iterator
from typing import Annotated, Literal

from litestar import Controller
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter
from msgspec import Meta, field

from api.bookings import Appointment, appointment_of
from api.clinic import Clinic
from api.handovers import TO_ONESELF, Handover, Reassignment, carry_out, heir_of, judge, lock
from api.http.auditing import record_write
from api.http.fields import MAX_PAGE_SIZE, Count, Id, Input, Instant, Output
from api.http.operation import post
from api.http.problems import ErrorCode, Fault
from api.http.requests import Given, StrictRequest
from api.http.violations import field_fault
from persistence.audit import Action
from persistence.postgres.database import Transaction
from security.guards import requires
from security.roles import Role


class ReassignmentRequest(Input):
    doctor_id: Id
    from_: Instant = field(name="from")
    to: Instant
    appointments: Literal["cancel"] | Reassignment


class ReassignedAppointments(Output):
    appointments: Annotated[list[Appointment], Meta(max_length=MAX_PAGE_SIZE)]
    total: Count


def require_time(given: Given, request: StrictRequest) -> Iterator[Fault]:
    """The time has an end after its beginning."""
    if "from" in given and "to" in given and given["to"] <= given["from"]:
        yield field_fault("to", ErrorCode.BAD_ORDER, "must be after from")


def require_other_doctor(given: Given, request: StrictRequest) -> Iterator[Fault]:
    """The appointments go to somebody else."""
    asked = given.get("appointments")
    if isinstance(asked, Reassignment) and asked.reassign_to == given.get("doctorId"):
        yield field_fault("appointments/reassignTo", ErrorCode.SAME_DOCTOR, TO_ONESELF)


class ReassignmentController(Controller):
    path = "/api/appointments/reassign"

    @post(
        operation_id="reassignAppointments",
        status_code=200,
        action=Action.APPOINTMENT_UPDATE,
        changes_access=True,
        guards=[requires(Role.ADMIN, Role.STAFF)],
        rules=[require_time, require_other_doctor],
    )
    async def reassign_appointments(
        self,
        data: JSONBody[ReassignmentRequest],
        request: StrictRequest,
        clinic: NamedDependency[Clinic],
        transaction: NamedDependency[Transaction],
        dry_run: Annotated[Literal["true", "false"] | None, QueryParameter(name="dryRun")] = None,
    ) -> ReassignedAppointments:
        """All of them or none."""
        handover = Handover(data.doctor_id, heir_of(data.appointments), data.from_, data.to)
        found = await lock(transaction, request, handover)
        outcome = await judge(transaction, handover, found, clinic)
        rows = outcome.rows()
        shown = rows[:MAX_PAGE_SIZE]
        if dry_run == "true" or not rows:
            ids, charts = [row.id for row in shown], [row.patient_id for row in shown]
            action = Action.APPOINTMENT_LIST
            record_write(transaction, request, action=action, target_ids=ids, patient_ids=charts)
        else:
            await carry_out(transaction, request, handover, outcome)
        return ReassignedAppointments([appointment_of(row) for row in shown], len(rows))
