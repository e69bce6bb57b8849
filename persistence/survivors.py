"""Charts that were merged into others, and are found under their old ids."""

from collections.abc import Callable, Sequence
from uuid import UUID

from sqlalchemy import CTE, ScalarSelect, func, select, text

from persistence.merge_tables import MergedPatient
from persistence.models import Patient
from persistence.postgres.database import Source, Transaction
from persistence.postgres.declared import AnyColumn, AnySelect
from persistence.postgres.statements import ById, IdRow, Query

CURRENT = Query(
    IdRow,
    ById,
    text(
        """
        WITH RECURSIVE way AS (
            SELECT CAST(:id AS uuid) AS id
            UNION ALL
            SELECT merged.survivor_id FROM way JOIN merged_patients AS merged ON merged.id = way.id
        )
        SELECT patients.id FROM way JOIN patients ON patients.id = way.id
        """
    ),
)


def chart_now(chart_id: AnyColumn) -> ScalarSelect[UUID]:
    """As `current_chart`, in a statement: no trip of its own, and one value, so that an index serves."""
    way = way_of(select(chart_id.label("id")))
    return select(Patient.id).join(way, way.c.id == Patient.id).scalar_subquery()


def charts_now(chart_ids: AnyColumn) -> AnyColumn:
    """As `chart_now`, of several: an array."""
    return func.array(select(way_of(select(func.unnest(chart_ids).label("id"))).c.id).scalar_subquery())


def way_of(ids: AnySelect) -> CTE:
    """These ids, and those of all charts that they were merged into."""
    way = ids.cte("way", recursive=True)
    further = select(MergedPatient.survivor_id).join(way, MergedPatient.id == way.c.id)
    return way.union(further)


def lock_key(row_id: UUID) -> int:
    """What those wait for who book for, merge, amend or otherwise change what has this id."""
    return int.from_bytes(row_id.bytes[8:], signed=True)


def keys_of_chart(chart_id: UUID) -> list[int]:
    return [lock_key(chart_id)]


async def current_chart(source: Source, chart_id: UUID) -> UUID | None:
    """The chart with this id, or the one that it was merged into; None where there is none."""
    row = await source.first(CURRENT, ById(id=chart_id))
    return row and row.id


async def lock_current_chart(
    transaction: Transaction, chart_id: UUID, keys: Callable[[UUID], Sequence[int]] = keys_of_chart
) -> UUID | None:
    """As `current_chart`, and it stays so until the transaction ends. `keys`: what to wait for, for a
    chart."""
    while current := await current_chart(transaction, chart_id):
        await transaction.set_savepoint()
        await transaction.lock(*keys(current))
        if await current_chart(transaction, chart_id) == current:
            break
        await transaction.return_to_savepoint()  # with two charts' locks, in any order, others could deadlock
    return current
