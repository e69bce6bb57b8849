"""Which row came of a request that its client had given an `Idempotency-Key`, for 24 hours.

A key is claimed in the transaction of the row, before anything else of it. Whoever comes with the same key
waits there for the end of that transaction, and then finds the row's id or, where it was rolled back, the key
free. No copy of what was sent or answered is stored: an answer is made of the row as it is.
"""

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, TypedDict
from uuid import UUID

from sqlalchemy import (
    Index,
    Interval,
    LargeBinary,
    Uuid,
    bindparam,
    delete,
    func,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from persistence.models import Base, Instant
from persistence.postgres.background import repeat
from persistence.postgres.database import Reader, Source, Transaction
from persistence.postgres.statements import NOTHING, IdRow, Nothing, Query, Statement

PURGE_INTERVAL_SECONDS = 60.0
log = logging.getLogger("medisecure.idempotency")


class IdempotencyKey(Base):
    """`key` and `fingerprint` are digests under a key of the service (security/fingerprints.py): of what the
    client chose, and of the request. Refers to no other table, so that no claim waits for a lock there."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index("idempotency_keys_claimed_idx", "claimed_at"),)

    user_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    key: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary)
    row_id: Mapped[UUID] = mapped_column(Uuid)
    claimed_at: Mapped[datetime] = mapped_column(Instant, server_default=func.clock_timestamp())


class Claim(NamedTuple):
    """What an earlier request has stored."""

    row_id: UUID
    fingerprint: bytes


class OfKey(TypedDict):
    """`keys`: digests of one key, under each key of the service that may have made them."""

    user: UUID
    keys: list[bytes]


class NewClaim(OfKey):
    """`key`: the first of `keys`."""

    key: bytes
    fingerprint: bytes
    row: UUID


# Another transaction that claims the same key is waited for. The clock is PostgreSQL's, which all share.
CLAIM_SQL = text(
    """
    INSERT INTO idempotency_keys AS stored (user_id, key, fingerprint, row_id)
    SELECT CAST(:user AS uuid), CAST(:key AS bytea), CAST(:fingerprint AS bytea), CAST(:row AS uuid)
    WHERE NOT EXISTS (
        SELECT FROM idempotency_keys
        WHERE user_id = CAST(:user AS uuid) AND key = ANY (CAST(:keys AS bytea[]))
          AND key <> CAST(:key AS bytea) AND claimed_at > clock_timestamp() - interval '24 hours')
    ON CONFLICT (user_id, key) DO UPDATE
    SET fingerprint = excluded.fingerprint, row_id = excluded.row_id, claimed_at = excluded.claimed_at
    WHERE stored.claimed_at <= clock_timestamp() - interval '24 hours'
    RETURNING row_id AS id
    """
)
CLAIM = Query(IdRow, NewClaim, CLAIM_SQL)
STORED = Query(
    Claim,
    OfKey,
    select(IdempotencyKey.row_id, IdempotencyKey.fingerprint)
    .where(
        IdempotencyKey.user_id == bindparam("user"),
        IdempotencyKey.key == func.any(bindparam("keys", type_=ARRAY(LargeBinary))),
    )
    .order_by(IdempotencyKey.claimed_at.desc())
    .limit(1),
)
# A minute later than it counts, so that what a request has just met is still there when it reads it.
IS_OVER = IdempotencyKey.claimed_at < func.clock_timestamp() - literal_column("interval '24:01'", Interval)
PURGE = Statement(Nothing, delete(IdempotencyKey).where(IS_OVER))


async def claim(
    transaction: Transaction, user_id: UUID, keys: Sequence[bytes], fingerprint: bytes, row_id: UUID
) -> Claim | None:
    """Claim the user's key for the row that this transaction is going to store, if it does: a handler may
    refuse until its end. Returns what an earlier request has stored under the key, None where it was free."""
    transaction.commits_late = True
    parameters = NewClaim(user=user_id, keys=list(keys), key=keys[0], fingerprint=fingerprint, row=row_id)
    if await transaction.rows(CLAIM, parameters):
        return None
    return await find(transaction, user_id, keys)


async def find(source: Source, user_id: UUID, keys: Sequence[bytes]) -> Claim | None:
    """What is stored under the user's key, and may be older than it counts."""
    return await source.first(STORED, OfKey(user=user_id, keys=list(keys)))


async def purge_periodically(reader: Reader) -> None:
    """For as long as the service runs. `reader`: of the primary."""

    async def act() -> tuple[bool, str]:
        await reader.run(PURGE, NOTHING)
        return False, ""

    await repeat(act, PURGE_INTERVAL_SECONDS, log, "Lapsed idempotency keys could not be deleted: %s")
