"""Looks for damage in the audit trail, by its seals (audit_chain.py), and in the rows that it vouches for.
That the newest seals were cut off shows only to a person who noted the head elsewhere: `verify` gives it, and
takes an earlier one."""

import hmac
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import zip_longest
from typing import NamedTuple, TypedDict

from msgspec import Struct
from sqlalchemy import bindparam, func, select

from persistence.audit_chain import EVENTS, EventIds, Key
from persistence.content_verification import Comparison
from persistence.models import AuditEvent, AuditSeal
from persistence.postgres.database import Source
from persistence.postgres.declared import columns_of
from persistence.postgres.statements import NOTHING, Nothing, Query
from persistence.record_verification import find_altered_records, find_departures


class SealRow(NamedTuple):
    number: int
    event_ids: list[int]
    until_xid: int
    within_id: int
    after_id: int
    digests: list[bytes]
    key_id: str
    mac: bytes
    sealed_at: datetime


class TailRow(NamedTuple):
    """`age`: of the oldest event that is in no seal."""

    unsealed: int
    age: timedelta | None


class After(TypedDict):
    after: int


class Report(Struct):
    """What `verify` found: in `damage`, what does not stand as it was written; in `not_given`, what nobody
    can check without a key that was not given."""

    sealed: int = 0
    seals: int = 0
    vouched_rows: int = 0
    unsealed: int = 0
    oldest_unsealed_seconds: float = 0.0
    head: str = "0:"
    damage: list[str] = []
    not_given: list[str] = []

    @property
    def problems(self) -> list[str]:
        return [*self.damage, *self.not_given]


SEALED = select(func.unnest(AuditSeal.event_ids).label("id")).subquery()
SEALS = Query(
    SealRow,
    After,
    select(*columns_of(SealRow, AuditSeal))
    .where(AuditSeal.number > bindparam("after"))
    .order_by(AuditSeal.number)
    .limit(10),  # each may hold MAX_SEALED_EVENTS events
)
TAIL = Query(
    TailRow,
    Nothing,
    select(func.count().label("unsealed"), (func.now() - func.min(AuditEvent.at)).label("age"))
    .select_from(AuditEvent)
    .outerjoin(SEALED, SEALED.c.id == AuditEvent.id)
    .where(SEALED.c.id.is_(None)),
)


async def verify(source: Source, keys: Sequence[Key], noted_head: str | None = None) -> Report:
    """Recompute every seal. `noted_head`: a head that an earlier run gave; it must still be in the chain."""
    known = {key.id: key for key in keys}
    strange: dict[str, list[int]] = {}  # what the key is called -> the numbers of its seals
    report = Report()
    before, number, noted = b"", 0, noted_head in (None, "0:")
    while seals := await source.rows(SEALS, After(after=number)):
        for block in seals:
            if block.number != number + 1:
                report.damage.append(f"seals {number + 1} to {block.number - 1} are missing")
            number = block.number
            key = known.get(block.key_id)
            if key is None:
                strange.setdefault(block.key_id, []).append(number)
            report.damage += await find_damage(source, key, block, before)
            before = block.mac
            report.sealed += len(block.event_ids)
            report.seals += 1
            report.head = f"{number}:{block.mac.hex()}"
            noted = noted or report.head == noted_head
    if not noted:
        report.damage.append("the noted head is not in the chain: seals were cut off or made anew")
    report.not_given = [
        f"{len(numbers)} seals, {numbers[0]} to {numbers[-1]}, are under a key that was not given ({key_id})"
        for key_id, numbers in strange.items()
    ]
    await add_contents(report, Comparison(source, known))
    [tail] = await source.rows(TAIL, NOTHING)
    report.unsealed = tail.unsealed
    report.oldest_unsealed_seconds = tail.age.total_seconds() if tail.age else 0.0
    return report


async def add_contents(report: Report, comparison: Comparison) -> None:
    await comparison.run()
    report.vouched_rows = comparison.rows
    source = comparison.source
    report.damage += comparison.damage + await find_departures(source)
    report.damage += await find_altered_records(source, comparison.keys)
    report.not_given += [
        f"{number} events vouch for rows {reason}" for reason, number in comparison.unread.items()
    ]


async def find_damage(source: Source, key: Key | None, block: SealRow, before: bytes) -> list[str]:
    """What is wrong with a seal. Without its key, what can be seen all the same: that an event is gone."""
    damage = []
    found = {event.id: event for event in await source.rows(EVENTS, EventIds(ids=block.event_ids))}
    if key and not hmac.compare_digest(
        key.mac(before, block.number, block.event_ids, block.digests), block.mac
    ):
        damage.append(f"seal {block.number} does not follow from the one before: changed or reordered")
    for event_id, digest in zip_longest(block.event_ids, block.digests[: len(block.event_ids)]):
        if event_id not in found:
            damage.append(f"event {event_id} is removed")
        elif key and not key.has_sealed(found[event_id], digest or b""):
            damage.append(f"event {event_id} is changed")
    return damage
