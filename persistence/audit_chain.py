"""Seals over the audit trail, so that a changed, removed or reordered row is seen.

Events are inserted unchained: nothing makes their writers wait for each other. Every few seconds a sealer
takes what was committed since the last seal, and appends a seal: the events' ids, an HMAC-SHA-256 of each
event, and a MAC over these and the seal before. What the next seal covers, and that nobody appends anything
else, is for two functions in the database (migration 0005); the key never goes there. Of several sealers the
first wins. What follows is the unsealed tail. That the newest seals themselves were cut off shows only to
someone who noted the head elsewhere: `verify` gives it, and takes an earlier one.
"""

import asyncio
import hmac
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import zip_longest
from typing import NamedTuple, TypedDict
from uuid import UUID

import msgspec
from msgspec import Raw, Struct
from sqlalchemy import BigInteger, Boolean, LargeBinary, Text, bindparam, cast, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY

from persistence.models import AuditEvent, AuditSeal
from persistence.postgres.background import repeat
from persistence.postgres.database import Database, Source, Transaction
from persistence.postgres.declared import columns_of
from persistence.postgres.statements import NOTHING, Nothing, Query, Statement

SEAL_INTERVAL_SECONDS = 2.0
LATE_SECONDS = 60.0  # an event that is unsealed for longer is worth a warning
MAX_SEALED_EVENTS = 5000  # in a seal, not counting the rest of the last transaction in it


class Block(NamedTuple):
    """What the next seal covers. `begins_anew`: it is the first after a restore of the database."""

    number: int
    previous: bytes
    ids: list[int]
    begins_anew: bool


class Appended(NamedTuple):
    """`is_ours`: no other sealer was first."""

    is_ours: bool


class SealedRow(NamedTuple):
    """An event with all that its digest is over, which is every column but xid; that one a restore of the
    database may change. The lists are JSON: Python need not read and write hundreds of ids."""

    id: int
    at: datetime
    user_id: UUID | None
    email: str | None
    role: str | None
    session_id: UUID | None
    action: str
    outcome: str
    patient_id: UUID | None
    target_id: UUID | None
    target_ids: str
    patient_ids: str
    address: str
    request_id: UUID


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


class WaitingRow(NamedTuple):
    """The age of the first event behind the newest seal."""

    age: timedelta


class TailRow(NamedTuple):
    """`age`: of the oldest event that is in no seal."""

    unsealed: int
    age: timedelta | None


class Most(TypedDict):
    most: int


class NewSeal(TypedDict):
    number: int
    digests: list[bytes]
    key_id: str
    mac: bytes


class EventIds(TypedDict):
    ids: list[int]


class After(TypedDict):
    after: int


# Of one snapshot, so that the block which is computed is the block which is appended.
SNAPSHOT = Statement(Nothing, text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
NEXT = Query(Block, Most, text("SELECT number, previous, ids, begins_anew FROM next_audit_seal(:most)"))
APPENDING = func.append_audit_seal(
    MAX_SEALED_EVENTS,
    bindparam("number", type_=BigInteger),
    bindparam("digests", type_=ARRAY(LargeBinary)),
    bindparam("key_id", type_=Text),
    bindparam("mac", type_=LargeBinary),
    type_=Boolean,
)
APPEND = Query(Appended, NewSeal, select(APPENDING.label("is_ours")))
SEALED_COLUMNS = tuple(column for column in AuditEvent.__table__.columns if column.name != "xid")
LISTS = tuple(column.name for column in SEALED_COLUMNS if isinstance(column.type, ARRAY))
EVENTS = Query(
    SealedRow,
    EventIds,
    select(
        *(
            cast(func.array_to_json(column), Text).label(column.name) if column.name in LISTS else column
            for column in SEALED_COLUMNS
        )
    ).where(AuditEvent.id == func.any(bindparam("ids", type_=ARRAY(BigInteger)))),
)
WAITING = text(
    """
    WITH last AS (SELECT until_xid, within_id, after_id FROM audit_seals ORDER BY number DESC LIMIT 1)
    SELECT now() - event.at AS age FROM audit_events AS event
    WHERE (event.xid, event.id) > (coalesce((SELECT until_xid FROM last), 0),
                                   coalesce((SELECT within_id FROM last), 0))
      AND event.id > coalesce((SELECT after_id FROM last), 0)
    ORDER BY event.xid, event.id LIMIT 1
    """
)
FIRST_WAITING = Query(WaitingRow, Nothing, WAITING)
SEALED = select(func.unnest(AuditSeal.event_ids).label("id")).subquery()

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

    def digest(self, event: SealedRow) -> bytes:
        lists = {name: Raw(getattr(event, name).encode()) for name in LISTS}
        values = list({**event._asdict(), **lists}.values())
        return hmac.digest(self.secret, msgspec.json.encode(values), sha256)

    def mac(self, before: bytes, number: int, event_ids: Sequence[int], digests: Sequence[bytes]) -> bytes:
        block = msgspec.json.encode([before.hex(), number, list(event_ids), [d.hex() for d in digests]])
        return hmac.digest(self.secret, block, sha256)


async def seal(transaction: Transaction, key: Key) -> int:
    """Append one seal over what is committed and unsealed, in a transaction that has done nothing else.
    Returns how many events it covers, 0 also where another sealer was first. No event is in two seals."""
    await transaction.run(SNAPSHOT, NOTHING)
    [block] = await transaction.rows(NEXT, Most(most=MAX_SEALED_EVENTS))
    if not block.ids and not block.begins_anew:
        return 0
    events = {event.id: event for event in await transaction.rows(EVENTS, EventIds(ids=block.ids))}
    digests = []
    for done, id in enumerate(block.ids):
        if done % 100 == 0:
            await asyncio.sleep(0)  # requests go on meanwhile
        digests.append(key.digest(events[id]))
    mac = key.mac(block.previous, block.number, block.ids, digests)
    seal = NewSeal(number=block.number, digests=digests, key_id=key.id, mac=mac)
    [appended] = await transaction.rows(APPEND, seal)
    return len(digests) if appended.is_ours else 0


async def seal_periodically(database: Database, key: Key) -> None:
    """Seal for as long as the service runs, and say in the log where that cannot be done."""

    async def act() -> tuple[bool, str]:
        async with database.transaction() as transaction:
            sealed = await seal(transaction, key)
        trouble = "" if sealed else describe_delay(await waiting_seconds(database.reader))
        return sealed >= MAX_SEALED_EVENTS, trouble

    await repeat(act, SEAL_INTERVAL_SECONDS, log, "The audit trail could not be sealed: %s")


async def waiting_seconds(source: Source) -> float:
    """The age of the first event behind the newest seal, 0 where there is none."""
    first = await source.first(FIRST_WAITING, NOTHING)
    return first.age.total_seconds() if first else 0.0


def describe_delay(seconds: float) -> str:
    if seconds < LATE_SECONDS:
        return ""
    return f"an event waits for {seconds:.0f} s; does a transaction stay open (pg_stat_activity)?"


class Report(Struct):
    """What `verify` found: in `damage`, what does not stand as it was written; in `not_given`, what nobody
    can check without a key that was not given."""

    sealed: int = 0
    seals: int = 0
    unsealed: int = 0
    oldest_unsealed_seconds: float = 0.0
    head: str = "0:"
    damage: list[str] = []
    not_given: list[str] = []

    @property
    def problems(self) -> list[str]:
        return [*self.damage, *self.not_given]


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
    [tail] = await source.rows(TAIL, NOTHING)
    report.unsealed = tail.unsealed
    report.oldest_unsealed_seconds = tail.age.total_seconds() if tail.age else 0.0
    return report


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
        elif key and not hmac.compare_digest(key.digest(found[event_id]), digest or b""):
            damage.append(f"event {event_id} is changed")
    return damage
