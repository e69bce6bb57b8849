"""Compares the records that are shown with their versions and retractions, which the trail vouches for
(content_verification.py): a text that SQL has changed where it is read is damage, too."""

from typing import NamedTuple

from sqlalchemy import text

from persistence.postgres.database import Source
from persistence.postgres.statements import NOTHING, Nothing, Query


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


async def find_departures(source: Source) -> list[str]:
    """What `verify-audit` says of them, a line for each kind."""
    found = await source.rows(DEPARTURES, NOTHING)
    return [f"records in medical_records {row.what}: {row.records}" for row in found]
