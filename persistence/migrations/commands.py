"""Alembic's commands through advanced-alchemy, with our engine and the migrations of this package."""

import asyncio
from typing import Any

from advanced_alchemy.alembic.commands import AlembicCommands
from advanced_alchemy.config import AlembicAsyncConfig, SQLAlchemyAsyncConfig
from alembic.util import CommandError
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from persistence.migrations.refolding import refold, spell_names
from persistence.migrations.revisions import HERE, UnknownRevisionError
from persistence.postgres.connector import Connector


def create_engine(url: str) -> AsyncEngine:
    """SQLAlchemy's engine, which Alembic needs, for a plain `postgresql://` URL. asyncpg reads the URL
    itself, so that everything libpq takes (sslmode, a socket folder as host, several hosts) means what it
    means to psql. No statement has a time-out."""
    connector = Connector(url, command_timeout=None)

    def adapt(connection: Any, _record: object) -> None:  # Any: of SQLAlchemy's adapter, without types
        """SQLAlchemy has options for both of these, but of a whole engine."""
        if connector.is_pooled:
            connection._prepared_statement_cache = None
            connection._prepared_statement_name_func = str  # "", the unnamed one

    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connector,
        hide_parameters=True,  # an error must not carry medical text into a log
        poolclass=NullPool,
    )
    event.listen(engine.sync_engine, "connect", adapt, insert=True)
    return engine


def commands(url: str) -> AlembicCommands:
    """upgrade(), downgrade(), check() … for the database at `url`. Several instances may upgrade at once;
    the later ones wait, and an index takes its time, so nothing here has a time-out."""
    return AlembicCommands(
        SQLAlchemyAsyncConfig(
            engine_instance=create_engine(url),
            alembic_config=AlembicAsyncConfig(
                script_location=str(HERE), version_table_name="alembic_version"
            ),
        )
    )


def upgrade(url: str) -> None:
    """And once more what instances of an older release have written since. UnknownRevisionError: the database
    is not one of this release."""
    try:
        commands(url).upgrade()
    except CommandError as error:
        raise UnknownRevisionError(str(error)) from error
    asyncio.run(refold_keys(url))


async def refold_keys(url: str) -> None:
    engine = create_engine(url)
    async with engine.connect() as connection:
        committing = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await committing.run_sync(refold)
        await committing.run_sync(spell_names)
    await engine.dispose()
