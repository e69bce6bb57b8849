"""Which backup was proven by a restore, and when: noted by `medisecure drill`, read by every instance."""

import logging
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import BigInteger, Column, Double, Identity, Table, Text, func, select

from persistence.backup import BackupError
from persistence.backup.source import connected
from persistence.models import Base, Instant
from persistence.postgres.background import repeat
from persistence.postgres.database import Reader
from persistence.postgres.failures import DATABASE_ERRORS, first_line_of
from persistence.postgres.statements import NOTHING, Nothing, Query

ADD = """
    INSERT INTO backup_proofs (name, kind, holds_until, rpo_seconds, rto_seconds) VALUES ($1, $2, $3, $4, $5)
"""

LOOK_INTERVAL_SECONDS = 60.0
log = logging.getLogger("medisecure.backup")


backup_proofs = Table(
    "backup_proofs",
    Base.metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("proven_at", Instant, nullable=False, server_default=func.now()),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("holds_until", Instant, nullable=False),
    Column("rpo_seconds", Double, nullable=False),
    Column("rto_seconds", Double, nullable=False),
)


class Proof(NamedTuple):
    """`holds_until`: what was committed before is in the backup."""

    name: str
    kind: str
    holds_until: datetime
    rpo_seconds: float
    rto_seconds: float


def record_proof(url: str, proof: Proof) -> None:
    """Raises BackupError."""
    try:
        with connected(url) as session:
            session.rows(ADD, *proof)
    except (OSError, *DATABASE_ERRORS) as error:
        raise BackupError(first_line_of(error)) from error


class NewestRow(NamedTuple):
    holds_until: datetime | None


HOLDS_UNTIL = func.max(backup_proofs.c.holds_until).label("holds_until")
NEWEST = Query(NewestRow, Nothing, select(HOLDS_UNTIL))


class ProvenBackup:
    """What a process of the service knows of proven backups, as of a minute ago or less: no request waits
    for it."""

    holds_until: datetime | None = None  # None: none was ever proven, or nobody has looked yet

    @property
    def age_seconds(self) -> int | None:
        if self.holds_until is None:
            return None
        return max(0, int((datetime.now(UTC) - self.holds_until).total_seconds()))

    async def look(self, reader: Reader) -> None:
        [newest] = await reader.rows(NEWEST, NOTHING)
        self.holds_until = newest.holds_until

    async def look_periodically(self, reader: Reader) -> None:
        async def act() -> tuple[bool, str]:
            await self.look(reader)
            return False, ""

        await repeat(act, LOOK_INTERVAL_SECONDS, log, "The last proof of a backup could not be read: %s")
