"""Compares the records that are shown with what the trail vouches for: the first text with the event that
wrote it, the newest one with the versions (content_verification.py). A text that SQL has changed where it is
read is damage, too."""

from collections.abc import Mapping
from typing import NamedTuple, TypedDict
from uuid import UUID

import msgspec
from sqlalchemy import text

from persistence.audit import Action
from persistence.audit_chain import Key
from persistence.contents import Content
from persistence.postgres.database import Source
from persistence.postgres.statements import NOTHING, Nothing, Query
from persistence.records import WRITTEN, WrittenRecord

EVENTS_AT_ONCE = 1000


class FirstText(NamedTuple):
    """Of a record. `attachments`: JSON."""

    id: UUID
    doctor_id: UUID
    diagnosis: str
    prescription: str
    notes: str
    attachments: str


class WrittenRow(NamedTuple):
    """An event that vouches for a record. `is_in_its_chart`: that which it was written into. `first`: None
    where nothing is left of it."""

    event_id: int
    content: str
    request_id: UUID
    is_in_its_chart: bool
    first: FirstText | None


class Events(TypedDict):
    action: Action
    after: int
    limit: int


class Departures(NamedTuple):
    """How many records depart from what was kept of them, and how."""

    what: str
    records: int


DEPARTURES = Query(
    Departures,
    Nothing,
    text(
        """
        WITH newest AS (
            SELECT DISTINCT ON (record_id) record_id, diagnosis, prescription, notes, attachments
            FROM record_versions ORDER BY record_id, is_original, id DESC
        ), kept AS (
            SELECT CASE
                WHEN retraction.record_id IS NULL AND record.id IS NULL THEN 'that are removed'
                WHEN retraction.record_id IS NOT NULL AND record.id IS NOT NULL
                    THEN 'that stand although they were retracted'
                WHEN record.id IS NOT NULL
                    AND (record.diagnosis, record.prescription, coalesce(record.notes, ''),
                         coalesce(record.attachments, '[]'))
                    IS DISTINCT FROM (newest.diagnosis, newest.prescription, newest.notes, newest.attachments)
                    THEN 'whose text is not their newest version'
            END AS what
            FROM newest
            LEFT JOIN medical_records AS record ON record.id = newest.record_id
            LEFT JOIN record_retractions AS retraction ON retraction.record_id = newest.record_id
        )
        SELECT what, count(*) AS records FROM kept WHERE what IS NOT NULL GROUP BY what ORDER BY what
        """
    ),
)


FIRST_TEXTS = Query(
    WrittenRow,
    Events,
    text(
        """
        SELECT event.id AS event_id, event.content, event.request_id,
               event.patient_id IS NOT DISTINCT FROM (
                   SELECT coalesce(stored_patient_id, patient_id) FROM medical_records
                   WHERE id = event.target_id
                   UNION ALL
                   SELECT coalesce(stored_patient_id, patient_id) FROM record_retractions
                   WHERE record_id = event.target_id
                   LIMIT 1
               ) AS is_in_its_chart, first.id, first.doctor_id,
               first.diagnosis, first.prescription, first.notes, first.attachments::text
        FROM audit_events AS event LEFT JOIN LATERAL (
            SELECT user_id AS doctor_id, record_id AS id, diagnosis, prescription, notes, attachments
            FROM record_versions WHERE record_id = event.target_id AND is_original
            UNION ALL
            SELECT doctor_id, id, diagnosis, prescription, coalesce(notes, ''), coalesce(attachments, '[]')
            FROM medical_records WHERE id = event.target_id
            LIMIT 1
        ) AS first ON true
        WHERE event.id > :after AND event.action = :action AND event.content IS NOT NULL
        ORDER BY event.id LIMIT :limit
        """
    ),
)


async def find_departures(source: Source) -> list[str]:
    """What `verify-audit` says of them, a line for each kind."""
    found = await source.rows(DEPARTURES, NOTHING)
    return [f"records in medical_records {row.what}: {row.records}" for row in found]


async def find_altered_records(source: Source, keys: Mapping[str, Key]) -> list[str]:
    """A line for each event whose record does not have the text any more that it was written with, neither
    where it is read nor as its first version. `keys`: by what they are called."""
    damage, after = [], 0
    while rows := await source.rows(
        FIRST_TEXTS, Events(action=Action.RECORD_CREATE, after=after, limit=EVENTS_AT_ONCE)
    ):
        after = rows[-1].event_id
        damage += [
            f"event {row.event_id}: the record that it wrote is changed or removed"
            for row in rows
            if not is_as_written(row, keys)
        ]
    return damage


def is_as_written(row: WrittenRow, keys: Mapping[str, Key]) -> bool:
    """True also where nobody can say: of unknown keys and unreadable contents content_verification.py
    tells."""
    try:
        content = msgspec.json.decode(row.content, type=Content)
    except msgspec.DecodeError:
        return True
    key = keys.get(content.key)
    if key is None or WRITTEN.name not in content.rows:
        return True
    if row.first is None or not row.is_in_its_chart:
        return False
    attachments = msgspec.json.decode(row.first.attachments, type=list[str])
    found = WrittenRecord(*row.first[:-1], attachments, row.request_id)
    return WRITTEN.mac(key, found) in content.rows[WRITTEN.name]
