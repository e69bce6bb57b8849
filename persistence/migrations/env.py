"""Alembic's entry: `medisecure migrate` hands over its engine, the plain `alembic` command reads
DATABASE_URL."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from persistence.migrations.commands import create_engine
from persistence.models import Base

LOCK_KEY = 0x6D656469  # any constant
TRY_LOCK = text("SELECT pg_try_advisory_xact_lock(:lock)").bindparams(lock=LOCK_KEY)


def migrate(connection: Connection) -> None:
    context.configure(
        connection=connection, target_metadata=Base.metadata, compare_type=True, compare_server_default=True
    )
    with context.begin_transaction():
        context.run_migrations()


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
        await connection.run_sync(migrate)
    await engine.dispose()


asyncio.run(run())
