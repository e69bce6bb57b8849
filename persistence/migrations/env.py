"""Alembic's entry: `medisecure migrate` hands over its engine, the plain `alembic` command reads
DATABASE_URL. With `--sql` it prints the statements and needs no database."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

import persistence.backup.proofs
import persistence.calendar_tables
import persistence.change_tables
import persistence.history_tables
import persistence.idempotency
import persistence.merge_tables
import persistence.record_tables
import persistence.schedule_tables  # noqa: F401 - the tables that are declared there
from persistence.counter_tables import counts
from persistence.migrations.commands import create_engine
from persistence.migrations.locks import is_lock_refused

LOCK_KEY = 0x6D656469  # any constant
TRY_LOCK = text("SELECT pg_try_advisory_xact_lock(:lock)").bindparams(lock=LOCK_KEY)
RETRY_SECONDS = 1.0  # between two attempts to get a lock; those who waited meanwhile get theirs
log = logging.getLogger("medisecure.migrate")


def print_statements() -> None:
    context.configure(dialect_name="postgresql", literal_binds=True, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


def migrate(connection: Connection) -> None:
    """Each migration in a transaction of its own, so that it holds its locks for its own time only."""
    context.configure(
        connection=connection,
        target_metadata=counts.metadata,
        compare_type=True,
        compare_server_default=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def migrate_patiently(connection: AsyncConnection) -> None:
    """Run the migration again whose lock was not free (limit_locks), for as long as that takes."""
    has_told = False
    while True:
        try:
            await connection.run_sync(migrate)
            break
        except DBAPIError as error:
            if not is_lock_refused(error):
                raise
        await connection.rollback()
        if not has_told:
            log.warning("A migration waits for a lock that a long transaction holds; it tries again")
            has_told = True
        await asyncio.sleep(RETRY_SECONDS)


@asynccontextmanager
async def hold_lock(engine: AsyncEngine) -> AsyncIterator[None]:
    """Several instances may migrate at once; the later ones find it done. They ask again and again: one that
    waited inside a statement would have a snapshot, and CREATE INDEX CONCURRENTLY waits for every older one.
    A connection of its own holds the lock, because migrations commit several times."""
    async with engine.connect() as connection:
        while not await connection.scalar(TRY_LOCK):
            await connection.rollback()
            await asyncio.sleep(0.2)
        await connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        yield


async def run() -> None:
    engine = getattr(context.config, "engine", None)
    if engine is None:
        engine = create_engine(os.environ["DATABASE_URL"])
    async with hold_lock(engine), engine.connect() as connection:
        await migrate_patiently(connection)
    await engine.dispose()


if context.is_offline_mode():
    print_statements()
else:
    asyncio.run(run())
