"""What several resources share: a chart in an answer, and the chart that a path names."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, TypeVar
from uuid import UUID

from litestar.exceptions import NotFoundException
from msgspec import Meta

from api.http.conditional import Tagged
from api.http.fields import MAX_PHONE_LENGTH, NOT_BLANK, TEXT, Day, Email, Id, Instant, Name, Output, path_id
from api.http.structs import struct_of
from persistence import patients
from persistence.models import Gender
from persistence.postgres.database import Source, Transaction
from persistence.survivors import keys_of_chart, lock_current_chart
from security.roles import Caller

W = TypeVar("W")
ChartPhone = Annotated[str, Meta(min_length=1, max_length=MAX_PHONE_LENGTH, pattern=NOT_BLANK)]
Address = Annotated[str, Meta(min_length=1, max_length=500, pattern=NOT_BLANK)]
BloodType = Annotated[str, Meta(max_length=20, pattern=TEXT)]
Allergies = Annotated[str, Meta(max_length=5000, pattern=TEXT)]
MedicalHistory = Annotated[str, Meta(max_length=20000, pattern=TEXT)]


class PatientSummary(Output):
    id: Id
    name: Name
    email: Email
    phone: ChartPhone
    date_of_birth: Day
    gender: Gender
    address: Address
    created_at: Instant


class Patient(Output):
    id: Id
    name: Name
    email: Email
    phone: ChartPhone
    date_of_birth: Day
    gender: Gender
    address: Address
    blood_type: BloodType | None
    allergies: Allergies | None
    medical_history: MedicalHistory | None
    created_at: Instant


summary_of = struct_of(PatientSummary, patients.SummaryRow)
patient_of = struct_of(Patient, patients.PatientRow)


def chart_of(row: patients.PatientRow) -> Tagged[Patient]:
    """Its tag changes with the linked account as well, and with each merge."""
    merges = b"%d" % row.merge_count if row.merge_count else b""
    return Tagged(patient_of(row), row.user_id.bytes if row.user_id else b"", merges)


async def require_chart(source: Source, caller: Caller, chart_id: UUID) -> patients.PatientRow:
    """The chart, or 404 where the caller may not see it."""
    row = await patients.one(source, caller, chart_id)
    if row is None:
        raise NotFoundException("Patient not found")
    return row


async def lock_chart(transaction: Transaction, caller: Caller, id: str) -> patients.LockedChart:
    """The chart with this id of a path, or 404. Nobody else changes it until the transaction ends."""
    locked = await patients.locked(transaction, caller, path_id(id, "Patient"))
    if locked is None:
        raise NotFoundException("Patient not found")
    return locked


async def write_to_chart(
    transaction: Transaction,
    chart_id: UUID,
    write: Callable[[UUID], Awaitable[W]],
    is_missing: Callable[[W], bool],
    keys: Callable[[UUID], Sequence[int]] = keys_of_chart,
) -> W:
    """What `write` returns for this chart, or for the one that it was merged into. `write` notes what it does
    and concludes the transaction; nothing is stored where the chart is missing. `keys`: of the locks that it
    takes, for a chart."""
    has_claimed_key = transaction.has_begun
    if has_claimed_key:
        await transaction.set_savepoint()
    written = await write(chart_id)
    if is_missing(written):
        transaction.reopen()
        # Give back the locks of `write`: the other chart's come in another order.
        if has_claimed_key:
            await transaction.return_to_savepoint()
        else:
            await transaction.close()
        if current := await lock_current_chart(transaction, chart_id, keys):
            written = await write(current)
    return written
