"""What records.py and record_versions.py share: a record in an answer, and the texts that it has."""

from typing import Annotated
from uuid import UUID

from litestar.exceptions import NotFoundException
from msgspec import Meta

from api.http.auditing import record_write
from api.http.conditional import Tagged
from api.http.fields import NOT_BLANK, REFERENCE, TEXT, Id, Instant, Name, Output
from api.http.requests import StrictRequest
from api.http.structs import struct_of
from persistence import records
from persistence.audit import Action
from persistence.postgres.database import Source, Transaction
from security.roles import Caller

Diagnosis = Annotated[str, Meta(min_length=1, max_length=5000, pattern=NOT_BLANK)]
Prescription = Annotated[str, Meta(max_length=5000, pattern=TEXT)]
RecordNotes = Annotated[str, Meta(max_length=10000, pattern=TEXT)]
# The service stores these references and never fetches them.
Reference = Annotated[str, Meta(min_length=1, max_length=2048, pattern=REFERENCE)]
Attachments = Annotated[list[Reference], Meta(max_length=20)]


class MedicalRecord(Output):
    id: Id
    patient_id: Id
    patient_name: Name
    doctor_id: Id
    doctor_name: Name
    date: Instant
    diagnosis: Diagnosis
    prescription: Prescription
    notes: RecordNotes
    attachments: Attachments


record_of = struct_of(MedicalRecord, records.RecordRow)


async def require_record(source: Source, caller: Caller, record_id: UUID) -> records.RecordRow:
    """The record, or 404 where the caller may not see it."""
    row = await records.one(source, caller, record_id)
    if row is None:
        raise NotFoundException("Record not found")
    return row


async def show_again(transaction: Transaction, request: StrictRequest, id: UUID) -> Tagged[MedicalRecord]:
    """The record that an earlier request has written or amended, or 404."""
    row = await require_record(transaction, request.user, id)
    action = Action.RECORD_READ
    record_write(transaction, request, action=action, patient_id=row.patient_id, target_id=row.id)
    return Tagged(record_of(row))
