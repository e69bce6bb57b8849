"""Two charts of one person become one, and two again (migration 0017).

A merged chart's row moves to `merged_patients`. Its appointments and records get the survivor's id, and keep
the one that they were written with as `stored_patient_id`: so `patient_id` is whom they are about in every
list, total, lock and constraint, and nothing that reads them has to know of merges.
"""

from datetime import datetime
from typing import NamedTuple, TypedDict
from uuid import UUID

from sqlalchemy import bindparam, column, exists, func, not_, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased
from sqlalchemy.types import Uuid

from persistence.audit import Event
from persistence.contents import Kept, SealedTable
from persistence.history import ACCOUNT, Difference, keep_chart_changes, text_of
from persistence.merge_tables import MergedPatient, PatientMerge
from persistence.models import Appointment, AppointmentStatus, MedicalRecord, Patient
from persistence.patients import COLUMNS, LockedChart, PatientRow
from persistence.postgres.database import Source, Transaction
from persistence.postgres.declared import columns_of
from persistence.postgres.paging import PagedQuery
from persistence.postgres.statements import ById, Query, Statement
from persistence.relations import CALLERS_NAME, Seen, taking_time
from persistence.survivors import lock_key
from security.roles import Caller

MERGE = "merge"  # the field of a chart's history whose values are ids of the other chart


class LockedCharts(NamedTuple):
    """Two charts that nobody else changes until the transaction ends; None for one that is not there, or was
    merged. `by`: the name of who locked them."""

    by: str
    survivor: PatientRow | None
    merged: PatientRow | None


class MergedInto(NamedTuple):
    """Where a merged chart has gone."""

    survivor_id: UUID


class Extent(NamedTuple):
    """How many appointments and records a merge moves, and whether two scheduled ones would overlap."""

    appointments: int
    records: int
    overlaps: bool


class Left(NamedTuple):
    """`left_ids`: what was written since the merge, and stays. `account`: which one has gone back."""

    left_ids: list[UUID]
    account: UUID | None


class MergedChart(NamedTuple):
    """A chart as it was when it was merged, and who did it, when and why."""

    at: datetime
    by_id: UUID
    by: str
    by_role: str
    reason: str
    chart: PatientRow


class MergeRow(NamedTuple):
    """What is sealed of one."""

    at: datetime
    user_id: UUID
    name: str
    role: str
    request_id: UUID
    is_undone: bool
    survivor_id: UUID
    merged_id: UUID
    reason: str


class Both(TypedDict):
    survivor: UUID
    merged: UUID


class Locked(Seen):
    charts: list[UUID]


MERGES = SealedTable(MergeRow, PatientMerge)
LOCK = Query(
    LockedChart,
    Locked,
    select(CALLERS_NAME.label("by"), *COLUMNS)
    .where(Patient.id == func.any(bindparam("charts", type_=ARRAY(Uuid))))
    .order_by(Patient.id)
    .with_for_update(),
)
INTO = Query(
    MergedInto,
    ById,
    select(MergedPatient.survivor_id).where(MergedPatient.id == bindparam("id")),
)
IDS = {name: bindparam(name, type_=Uuid) for name in ("survivor", "merged")}
OTHER = aliased(Appointment)
OVERLAPS = exists().where(
    Appointment.patient_id == IDS["survivor"],
    OTHER.patient_id == IDS["merged"],
    Appointment.status == AppointmentStatus.SCHEDULED,
    *taking_time(OTHER, Appointment.date, Appointment.ends_at),
)
EXTENT = Query(
    Extent,
    Both,
    select(
        select(func.count())
        .select_from(Appointment)
        .where(Appointment.patient_id == IDS["merged"])
        .scalar_subquery()
        .label("appointments"),
        select(func.count())
        .select_from(MedicalRecord)
        .where(MedicalRecord.patient_id == IDS["merged"])
        .scalar_subquery()
        .label("records"),
        OVERLAPS.label("overlaps"),
    ),
)
MOVE = Statement(Both, select(func.merge_charts(*IDS.values())))
RESTORE = Query(
    Left,
    Both,
    select(
        func.unmerge_charts(*IDS.values()).table_valued(
            column("left_ids", ARRAY(Uuid)), column("account", Uuid)
        )
    ),
)

# The charts that are merged into one, and those that are merged into them.
DIRECTLY = select(MergedPatient.id).where(MergedPatient.survivor_id == bindparam("id"))
UNDER = DIRECTLY.cte("under", recursive=True)
UNDER = UNDER.union_all(select(MergedPatient.id).where(MergedPatient.survivor_id == UNDER.c.id))
# Of several merges of one chart, all but the last are undone.
LAST = (
    select(func.max(PatientMerge.id))
    .where(PatientMerge.merged_id == MergedPatient.id, not_(PatientMerge.is_undone))
    .correlate(MergedPatient)
    .scalar_subquery()
)
MERGED = PagedQuery(
    MergedChart,
    ById,
    MergedPatient.id,
    (
        PatientMerge.at,
        PatientMerge.user_id.label("by_id"),
        PatientMerge.name.label("by"),
        PatientMerge.role.label("by_role"),
        PatientMerge.reason,
        *columns_of(PatientRow, MergedPatient, user_id=MergedPatient.moved_account),
    ),
    MergedPatient.__table__.join(PatientMerge, PatientMerge.id == LAST),
    (MergedPatient.merged_at.desc(), MergedPatient.id),
    (MergedPatient.id.in_(select(UNDER.c.id)),),
)


async def lock(transaction: Transaction, caller: Caller, survivor: UUID, merged: UUID) -> LockedCharts:
    """Wait for whatever books for, writes to or merges one of the two."""
    await transaction.lock(*sorted({lock_key(survivor), lock_key(merged)}))
    rows = await transaction.rows(LOCK, Locked(charts=[survivor, merged], caller=caller.id))
    charts = {row.chart.id: row.chart for row in rows}
    return LockedCharts(rows[0].by if rows else "", charts.get(survivor), charts.get(merged))


async def merged_into(transaction: Transaction, chart_id: UUID) -> MergedInto | None:
    """None where the chart is merged into none."""
    return await transaction.first(INTO, ById(id=chart_id))


async def page(source: Source, page: int, limit: int, chart_id: UUID) -> tuple[list[MergedChart], int]:
    """The charts that are part of this one, for callers who may read it; the last one first."""
    return await MERGED.fetch(source, page, limit, ById(id=chart_id))


async def measure(transaction: Transaction, survivor: UUID, merged: UUID) -> Extent:
    """What merging the two would move."""
    [extent] = await transaction.rows(EXTENT, Both(survivor=survivor, merged=merged))
    return extent


async def merge(
    transaction: Transaction, by: str, survivor: PatientRow, merged: PatientRow, reason: str
) -> PatientRow:
    """Merge two locked charts. Returns the survivor, with the account that it has now."""
    await transaction.run(MOVE, Both(survivor=survivor.id, merged=merged.id))
    keep(transaction, by, survivor.id, merged.id, reason, is_undone=False)
    keep_difference(transaction, by, survivor.id, MERGE, None, merged.id)
    keep_difference(transaction, by, merged.id, MERGE, None, survivor.id)
    keep_move(transaction, by, merged.user_id, merged.id, survivor.id)
    account = survivor.user_id or merged.user_id
    return survivor._replace(user_id=account, merge_count=survivor.merge_count + 1)


async def unmerge(transaction: Transaction, by: str, survivor: UUID, merged: UUID, reason: str) -> list[UUID]:
    """Undo the merge of two locked charts. Returns the ids of the appointments and records that were written
    since, which stay."""
    [left] = await transaction.rows(RESTORE, Both(survivor=survivor, merged=merged))
    keep(transaction, by, survivor, merged, reason, is_undone=True)
    keep_difference(transaction, by, survivor, MERGE, merged, None)
    keep_difference(transaction, by, merged, MERGE, survivor, None)
    keep_move(transaction, by, left.account, survivor, merged)
    return left.left_ids


def keep_move(transaction: Transaction, by: str, account: UUID | None, source: UUID, target: UUID) -> None:
    """That an account, if there is one, has gone from one chart to the other."""
    if account is not None:
        keep_difference(transaction, by, source, ACCOUNT, account, None)
        keep_difference(transaction, by, target, ACCOUNT, None, account)


def keep_difference(
    transaction: Transaction, by: str, chart: UUID, field: str, before: UUID | None, after: UUID | None
) -> None:
    keep_chart_changes(transaction, chart, by, [Difference(field, text_of(before), text_of(after))])


def keep(
    transaction: Transaction, by: str, survivor: UUID, merged: UUID, reason: str, *, is_undone: bool
) -> None:
    """Have it stored who did it and why."""

    def make(event: Event) -> list[MergeRow]:
        if event.user_id is None or event.role is None:
            raise LookupError("nobody merges charts who is not signed in")
        who = event.at, event.user_id, by, event.role, event.request_id
        return [MergeRow(*who, is_undone, survivor, merged, reason)]

    transaction.keep(Kept(MERGES, make))
