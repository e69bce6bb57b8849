"""What records.py and record_versions.py share: a record in an answer, and the texts that it has."""

from typing import Annotated

from msgspec import Meta

from api.http.fields import NOT_BLANK, REFERENCE, TEXT, Id, Instant, Name, Output
from api.http.structs import struct_of
from persistence import records

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
