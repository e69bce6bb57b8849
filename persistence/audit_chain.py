"""Seals over the audit trail, so that a changed, removed or reordered row is seen.

Events are inserted unchained: nothing makes their writers wait for each other. Every few seconds a sealer
takes what was committed since the last seal, and appends a seal: the events' ids, an HMAC-SHA-256 of each
event, and a MAC over these and the seal before. Two functions in the database (migration 0005) decide
what the next seal covers, and append nothing else; the key never goes there. Of several sealers the first
wins. Events after the newest seal are the unsealed tail. audit_verification.py looks for damage.
"""

import asyncio
import hmac
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import NamedTuple, TypedDict
from uuid import UUID

import msgspec
from msgspec import Raw, Struct
from sqlalchemy import BigInteger, Boolean, LargeBinary, Text, bindparam, cast, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY

from persistence.models import AuditEvent
from persistence.postgres.background import repeat
from persistence.postgres.database import Database, Source, Transaction
from persistence.postgres.statements import NOTHING, Nothing, Query, Statement

SEAL_INTERVAL_SECONDS = 2.0
LATE_SECONDS = 60.0  # an event that is unsealed for longer is worth a warning
MAX_WAITING = 10_000  # unsealed events that are counted
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
    content: str | None


class WaitingRow(NamedTuple):
    """How many events are behind the newest seal, up to MAX_WAITING, and the age of the oldest."""

    events: int
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
    f"""
    WITH last AS (SELECT until_xid, within_id, after_id FROM audit_seals ORDER BY number DESC LIMIT 1)
    SELECT count(*) AS events, now() - min(at) AS age FROM (
        SELECT event.at FROM audit_events AS event
        WHERE (event.xid, event.id) > (coalesce((SELECT until_xid FROM last), 0),
                                       coalesce((SELECT within_id FROM last), 0))
          AND event.id > coalesce((SELECT after_id FROM last), 0)
        ORDER BY event.xid, event.id LIMIT {MAX_WAITING}
    ) AS waiting
    """  # noqa: S608  # a constant
)
ALL_WAITING = Query(WaitingRow, Nothing, WAITING)

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
        """Without a content, as every release has made it."""
        lists = {name: Raw(getattr(event, name).encode()) for name in LISTS}
        values = list({**event._asdict(), **lists}.values())
        if event.content is None:
            values.pop()
        return hmac.digest(self.secret, msgspec.json.encode(values), sha256)

    def has_sealed(self, event: SealedRow, digest: bytes) -> bool:
        """Whether the digest is of the event. A sealer of the release before, beside a service of this one,
        has left out the content; that is a MAC under the key itself."""
        return hmac.compare_digest(self.digest(event), digest) or (
            event.content is not None
            and hmac.compare_digest(self.digest(event._replace(content=None)), digest)
        )

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
        _, waits = (0, 0.0) if sealed else await unsealed_tail(database.reader)
        return sealed >= MAX_SEALED_EVENTS, describe_delay(waits)

    await repeat(act, SEAL_INTERVAL_SECONDS, log, "The audit trail could not be sealed: %s")


async def unsealed_tail(source: Source) -> tuple[int, float]:
    """How many events are behind the newest seal, at most MAX_WAITING, and the age of the oldest in
    seconds."""
    [waiting] = await source.rows(ALL_WAITING, NOTHING)
    return waiting.events, waiting.age.total_seconds() if waiting.age else 0.0


def describe_delay(seconds: float) -> str:
    if seconds < LATE_SECONDS:
        return ""
    return f"an event waits for {seconds:.0f} s; does a transaction stay open (pg_stat_activity)?"
