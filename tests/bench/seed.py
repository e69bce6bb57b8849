"""Fills an empty database with a made-up clinic: `python -m tests.bench.seed`.

From the environment: DATABASE_URL, and how many there shall be, SEED_PATIENTS, SEED_DOCTORS,
SEED_APPOINTMENTS, SEED_RECORDS and SEED_EVENTS of the audit trail, which is sealed with AUDIT_KEY or
SECRET_KEY. All accounts (admin@example.com,
staff0@…, doctor0@…, patient0@…) have the password of clinic.py. A million charts take minutes: the rows go
in by COPY, before there is an index.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice

import asyncpg

from persistence.audit_chain import Key, seal
from persistence.migrations.commands import commands
from persistence.postgres.database import Database
from persistence.postgres.folding import Keys
from tests.bench.clinic import ACCOUNT, APPOINTMENT, CHART, EVENT, RECORD, Clinic, Row
from tests.support.service import KEY

TABLES = ("patients", "appointments", "medical_records", "audit_events")  # the big ones
COUNTED = ("users", "patients", "appointments", "medical_records")
OURS = Key.of(KEY)
BATCH = 50_000  # rows of one COPY: a trigger for each statement keeps that many in memory
# What each row would be entered or looked up in, in the order in which it can be made again.
CONSTRAINTS = """
    SELECT conrelid::regclass::text AS "table", quote_ident(conname) AS name,
           pg_get_constraintdef(oid) AS made
    FROM pg_constraint WHERE contype IN ('p', 'u', 'x', 'f')
    AND (conrelid = ANY ($1::regclass[]) OR contype = 'f' AND confrelid = ANY ($1::regclass[]))
    ORDER BY position(contype IN 'puxf'), conrelid
"""
INDEXES = """
    SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS made
    FROM pg_index WHERE indrelid = ANY ($1::regclass[])
    AND indexrelid NOT IN (SELECT conindid FROM pg_constraint WHERE conindid <> 0) ORDER BY indrelid
"""


@asynccontextmanager
async def without_indexes(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """The big tables take rows with neither index nor key; all are made again at the end."""
    constraints = await connection.fetch(CONSTRAINTS, TABLES)
    indexes = await connection.fetch(INDEXES, TABLES)
    for index in indexes:
        await connection.execute(f"DROP INDEX {index['name']}")
    for one in reversed(constraints):
        await connection.execute(f"ALTER TABLE {one['table']} DROP CONSTRAINT {one['name']}")
    yield
    for one in constraints:
        await connection.execute(f"ALTER TABLE {one['table']} ADD CONSTRAINT {one['name']} {one['made']}")
    for index in indexes:
        await connection.execute(index["made"])


@asynccontextmanager
async def uncounted(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """The triggers that count and note each new row rest; at the end all rows are counted at once."""
    for table in COUNTED:
        await connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER {table}_count_new")
    yield
    for table in COUNTED:
        await connection.execute(f"ALTER TABLE {table} ENABLE TRIGGER {table}_count_new")
    await connection.execute("DELETE FROM counted_lists")
    while await connection.fetchval("SELECT fold_counts(1)"):
        pass


def batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, BATCH)):
        yield batch


async def load(
    connection: asyncpg.Connection, table: str, columns: Sequence[str], rows: Iterable[Row]
) -> None:
    for batch in batches(rows):
        await connection.copy_records_to_table(table, columns=columns, records=batch)


async def fill(url: str, clinic: Clinic, key: Key | None = OURS) -> None:
    """Load `clinic` into the migrated, empty database, as years of use and a vacuum would leave it. Without
    a key the trail is not sealed."""
    connection = await asyncpg.connect(url)
    try:
        # COPY under synchronous_commit = off leaves pages that VACUUM cannot call all-visible yet, and an
        # index-only scan would read the table all the same.
        await connection.execute("SET synchronous_commit = on; SET maintenance_work_mem = '512MB'")
        keys = Keys.__annotations__
        async with uncounted(connection), without_indexes(connection):
            await load(connection, "users", [*ACCOUNT, *keys], clinic.accounts())
            await load(connection, "patients", [*CHART, *keys], clinic.charts())
            await load(connection, "appointments", APPOINTMENT, clinic.visits())
            await load(connection, "medical_records", RECORD, clinic.findings())
            await load(connection, "audit_events", EVENT, clinic.trail())
        if key:
            await seal_all(url, key)
        await connection.execute("VACUUM (ANALYZE)")
    finally:
        await connection.close()


async def seal_all(url: str, key: Key) -> None:
    """Else the service has years of the trail to seal when it starts."""
    async with Database(url, command_timeout=None) as database:
        sealed = 1
        while sealed:
            async with database.transaction() as transaction:
                sealed = await seal(transaction, key)


def make(url: str, clinic: Clinic, key: Key = OURS) -> None:
    """As `fill`, of a database in which nothing is yet."""
    commands(url).upgrade()
    asyncio.run(fill(url, clinic, key))


def size(name: str, default: int) -> int:
    return int(os.environ.get(f"SEED_{name}", default))


def main() -> None:
    begun = time.monotonic()
    charts = size("PATIENTS", 10_000)
    clinic = Clinic(
        patients=charts,
        doctors=size("DOCTORS", 200),
        appointments=size("APPOINTMENTS", 5 * charts),
        records=size("RECORDS", charts),
        events=size("EVENTS", charts),
    )
    key = os.environ.get("AUDIT_KEY") or os.environ.get("SECRET_KEY") or KEY
    make(os.environ["DATABASE_URL"], clinic, Key.of(key))
    print(f"{charts:,} charts in {time.monotonic() - begun:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
