"""Who looked at a chart, or at a record of it, by the audit trail."""

from datetime import datetime
from typing import NamedTuple, TypedDict
from uuid import UUID

from sqlalchemy import text

from persistence.postgres.database import Source
from persistence.postgres.statements import Query


class AccessRow(NamedTuple):
    at: datetime
    first_at: datetime
    count: int  # type: ignore[assignment]  # the contract's word; a row's method of that name is not used
    user_id: UUID
    name: str
    role: str
    action: str


class AccessPageRow(NamedTuple):
    """`access`: None in the one row of a page past the end. `total`: of all pages."""

    access: AccessRow | None
    total: int


class OfChart(TypedDict):
    """`record`: the one of the chart that is asked for; None for all of it. `left_out`: whose accesses are
    not asked for."""

    patient: UUID
    record: UUID | None
    left_out: UUID | None
    limit: int
    offset: int


# What one person did in one operation within ten minutes of the first time is one row. Charts that were
# merged into this one are included; of a record, also those that its chart was ever merged with.
ACCESSES_SQL = text(
    """
    WITH RECURSIVE charts AS (
        SELECT CAST(:patient AS uuid) AS id
        UNION
        SELECT other.id FROM charts JOIN (
            SELECT survivor_id AS chart, id FROM merged_patients
            UNION ALL
            SELECT survivor_id, merged_id FROM patient_merges WHERE CAST(:record AS uuid) IS NOT NULL
            UNION ALL
            SELECT merged_id, survivor_id FROM patient_merges WHERE CAST(:record AS uuid) IS NOT NULL
        ) AS other ON other.chart = charts.id
    ), looks AS (
        SELECT id, at, user_id, role, action,
               began_of_ten_minutes(at) OVER (PARTITION BY user_id, role, action ORDER BY at, id) AS first_at
        FROM audit_events
        WHERE patient_ids && ARRAY(SELECT id FROM charts) AND outcome = 'success'
          AND user_id IS NOT NULL AND user_id IS DISTINCT FROM CAST(:left_out AS uuid)
          AND (CAST(:record AS uuid) IS NULL OR target_id = :record OR :record = ANY (target_ids))
    ), accesses AS (
        SELECT max(at) AS at, first_at, count(*) AS count, user_id, role, action, max(id) AS last_id
        FROM looks GROUP BY user_id, role, action, first_at
    ), page AS (
        SELECT * FROM accesses ORDER BY at DESC, last_id DESC
        LIMIT CAST(:limit AS bigint) OFFSET CAST(:offset AS bigint)
    )
    SELECT page.at, page.first_at, page.count, page.user_id, users.name, page.role, page.action, whole.total
    FROM (SELECT count(*) AS total FROM accesses) AS whole
    LEFT JOIN page ON true LEFT JOIN users ON users.id = page.user_id
    ORDER BY page.at DESC, page.last_id DESC
    """
)
ACCESSES = Query(AccessPageRow, OfChart, ACCESSES_SQL)


async def page(
    source: Source,
    page: int,
    limit: int,
    patient_id: UUID,
    *,
    record_id: UUID | None = None,
    but: UUID | None,
) -> tuple[list[AccessRow], int]:
    """What showed or changed something of the chart, newest first, without what `but` did. `record_id`: only
    of this record of the chart. The chart's index finds the events, since every event that names a record
    names its chart as well; one of the records would cost each write of the trail."""
    parameters = OfChart(
        patient=patient_id, record=record_id, left_out=but, limit=limit, offset=(page - 1) * limit
    )
    found = await source.rows(ACCESSES, parameters)
    return [row.access for row in found if row.access is not None], found[0].total
