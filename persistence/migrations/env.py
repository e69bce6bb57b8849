"""Alembic's entry: `medisecure migrate` hands over its engine, the plain `alembic` command reads
DATABASE_URL."""

import asyncio
import os

from alembic import context
from sqlalchemy import Connection, text

from persistence.migration import create_engine
from persistence.models import Base

LOCK = 0x6D656469  # any constant: several instances may migrate at once, the later ones find it done


def migrate(connection: Connection) -> None:
    context.configure(
        connection=connection, target_metadata=Base.metadata, compare_type=True, compare_server_default=True
    )
    with context.begin_transaction():
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        context.run_migrations()


async def run() -> None:
    engine = getattr(context.config, "engine", None)
    if engine is None:
        engine = create_engine(os.environ["DATABASE_URL"])
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


asyncio.run(run())
