"""Seals over the audit trail, so that a changed, removed or reordered row is seen.

Events are inserted unchained: nothing makes their writers wait for each other. Every few seconds one
sealer (an advisory lock lets one be) takes what was committed since the last seal, and appends a seal: the
events' ids, an HMAC-SHA-256 of each event, and a MAC over these and the seal before. What follows is the
unsealed tail. That the newest seals themselves were cut off shows only to someone who noted the head
elsewhere: `verify` gives it, and takes an earlier one.
"""

import asyncio
import hmac
import logging
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import BigInteger, bindparam, func, insert, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import SQLAlchemyError

from persistence.database import AnyRow, Database, Source, Transaction
from persistence.models import AuditEvent, AuditSeal

EVERY = 2.0  # seconds between two looks for something to seal
MOST = 5000  # events in a seal
LOCK = text("SELECT pg_try_advisory_xact_lock(7165498721)")
XMIN = text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
LAST = (
    select(AuditSeal.number, AuditSeal.mac, AuditSeal.until_xid, AuditSeal.after_id)
    .order_by(AuditSeal.number.desc())
    .limit(1)
)
SEALED_COLUMNS = tuple(column for column in AuditEvent.__table__.columns if column.name != "xid")
# Transactions below `until` are all over, so that no row can still appear among those that a seal covers.
# A seal takes a transaction whole, however many rows it wrote, so that the next one can begin after it.
UNSEALED = (
    select(*SEALED_COLUMNS, AuditEvent.xid)
    .where(
        AuditEvent.xid >= bindparam("since", type_=BigInteger),
        AuditEvent.xid < bindparam("until", type_=BigInteger),
        AuditEvent.id > bindparam("after", type_=BigInteger),
    )
    .order_by(AuditEvent.xid)
    .fetch(MOST, with_ties=True)
)
# A database restored from a dump counts its transactions from a lower number again, and what was restored
# says nothing in the new count. But ids go on: every restored one is below every new one. So the first seal
# there covers what the dump brought unsealed, and those after it begin anew, above RESTORED. That is the
# newest row which was sealed before, or which no transaction of this server can have written yet.
RESTORED = text(
    """
    SELECT greatest(
        (SELECT max(id) FROM (SELECT unnest(event_ids) AS id FROM audit_seals) AS sealed),
        (SELECT max(id) FROM audit_events
         WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint),
        0)
    """
)
SEALED = select(func.unnest(AuditSeal.event_ids).label("id")).subquery()
LEFT_BEHIND = (
    select(*SEALED_COLUMNS)
    .outerjoin(SEALED, SEALED.c.id == AuditEvent.id)  # for PostgreSQL a hash join, unlike NOT IN
    .where(SEALED.c.id.is_(None), AuditEvent.id <= bindparam("restored", type_=BigInteger))
    .order_by(AuditEvent.id)
    .limit(MOST)
)

log = logging.getLogger("medisecure.audit")


class Key(Struct, frozen=True):
    """A key and what a seal calls it."""

    secret: bytes

    @classmethod
    def of(cls, text: str) -> "Key":
        return cls(hmac.digest(text.encode(), b"medisecure audit trail", sha256))

    @property
    def id(self) -> str:
        return hmac.digest(self.secret, b"id", sha256).hex()[:16]

    def digest(self, event: AnyRow) -> bytes:
        """Over every column but xid, which a restore of the database may change."""
        return hmac.digest(self.secret, msgspec.json.encode(list(event)[: len(SEALED_COLUMNS)]), sha256)

    def mac(self, before: bytes, number: int, event_ids: Sequence[int], digests: Sequence[bytes]) -> bytes:
        block = msgspec.json.encode([before.hex(), number, list(event_ids), [d.hex() for d in digests]])
        return hmac.digest(self.secret, block, sha256)


async def seal(transaction: Transaction, key: Key) -> int:
    """Append one seal over what is committed and unsealed; returns how many events it covers, 0 also where
    another sealer is at work. No event is ever in two seals."""
    [(is_ours,)] = await transaction.rows(LOCK)
    if not is_ours:
        return 0
    [(until,)] = await transaction.rows(XMIN)
    last = next(iter(await transaction.rows(LAST)), None)
    number, before, since, after = 1, b"", 0, 0
    if last is not None:
        number, before, since, after = last.number + 1, last.mac, last.until_xid, last.after_id
    if since > until:
        [(restored,)] = await transaction.rows(RESTORED)
        events = await transaction.rows(LEFT_BEHIND, restored=restored)
        # Even over no event this seal is appended: it is where the new count begins.
        until, after = (since, after) if len(events) == MOST else (0, restored)
    else:
        events = await transaction.rows(UNSEALED, since=since, until=until, after=after)
        if not events:
            return 0
        if len(events) >= MOST:
            until = events[-1].xid + 1
    ids, digests = [event.id for event in events], [key.digest(event) for event in events]
    await transaction.run(
        insert(AuditSeal).values(
            number=number,
            event_ids=ids,
            until_xid=until,
            after_id=after,
            digests=digests,
            key_id=key.id,
            mac=key.mac(before, number, ids, digests),
        )
    )
    return len(events)


async def keep_sealing(database: Database, key: Key) -> None:
    """Seal for as long as the service runs."""
    while True:
        try:
            async with database.transaction() as transaction:
                sealed = await seal(transaction, key)
        except (SQLAlchemyError, OSError) as error:
            log.warning("The audit trail could not be sealed: %s", type(error).__name__)
            sealed = 0
        if sealed < MOST:
            await asyncio.sleep(EVERY)


class Report(Struct):
    """What `verify` found. `problems` is empty where every sealed row stands as it was written."""

    sealed: int
    seals: int
    unsealed: int
    oldest_unsealed_seconds: float
    head: str
    problems: list[str]


EVENTS = select(*SEALED_COLUMNS).where(AuditEvent.id == func.any(bindparam("ids", type_=ARRAY(BigInteger))))
SEALS = (
    select(*AuditSeal.__table__.columns)
    .where(AuditSeal.number > bindparam("after"))
    .order_by(AuditSeal.number)
    .limit(10)  # each may hold MOST events
)
TAIL = (
    select(func.count(), (func.now() - func.min(AuditEvent.at)).label("age"))
    .select_from(AuditEvent)
    .outerjoin(SEALED, SEALED.c.id == AuditEvent.id)
    .where(SEALED.c.id.is_(None))
)


async def verify(source: Source, keys: Sequence[Key], noted_head: str | None = None) -> Report:
    """Recompute every seal. `noted_head`: a head that an earlier run gave; it must still be in the chain."""
    known = {key.id: key for key in keys}
    report = Report(0, 0, 0, 0.0, "0:", [])
    before, number, noted = b"", 0, noted_head in (None, "0:")
    while seals := await source.rows(SEALS, after=number):
        for block in seals:
            if block.number != number + 1:
                report.problems.append(f"seals {number + 1} to {block.number - 1} are missing")
            number = block.number
            key = known.get(block.key_id)
            if key is None:
                report.problems.append(f"seal {number} is under a key that was not given ({block.key_id})")
            else:
                report.problems += await problems_in(source, key, block, before)
            before = block.mac
            report.sealed += len(block.event_ids)
            report.seals += 1
            report.head = f"{number}:{block.mac.hex()}"
            noted = noted or report.head == noted_head
    if not noted:
        report.problems.append("the noted head is not in the chain: seals were cut off or made anew")
    [(report.unsealed, age)] = await source.rows(TAIL)
    report.oldest_unsealed_seconds = age.total_seconds() if age else 0.0
    return report


async def problems_in(source: Source, key: Key, block: Any, before: bytes) -> list[str]:
    problems = []
    if not hmac.compare_digest(key.mac(before, block.number, block.event_ids, block.digests), block.mac):
        problems.append(f"seal {block.number} does not follow from the one before: changed or reordered")
    found = {event.id: event for event in await source.rows(EVENTS, ids=block.event_ids)}
    for event_id, digest in zip(block.event_ids, block.digests, strict=False):
        if event_id not in found:
            problems.append(f"event {event_id} is removed")
        elif not hmac.compare_digest(key.digest(found[event_id]), digest):
            problems.append(f"event {event_id} is changed")
    return problems
