"""Alembic's commands through advanced-alchemy, with our engine and the migrations of this package."""

from functools import cache
from pathlib import Path
from typing import Any

from advanced_alchemy.alembic.commands import AlembicCommands
from advanced_alchemy.config import AlembicAsyncConfig, SQLAlchemyAsyncConfig
from alembic.script import ScriptDirectory
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from persistence.connecting import Connector
from persistence.database import Reader

HERE = Path(__file__).parent / "migrations"


def create_engine(url: str) -> AsyncEngine:
    """SQLAlchemy's engine, which Alembic needs, for a plain `postgresql://` URL. asyncpg reads the URL
    itself, so that everything libpq takes (sslmode, a socket folder as host, several hosts) means what it
    means to psql. No statement has a time-out."""
    connector = Connector(url, command_timeout=None)

    def adapt(connection: Any, _record: object) -> None:
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


async def is_behind(reader: Reader) -> bool:
    """Whether a migration of ours is missing. One of a later release is no harm: instances of two releases
    share a database while an operator replaces the older ones."""
    stamped = {row[0] for row in await reader.rows(text("SELECT version_num FROM alembic_version"))}
    ours, heads = revisions()
    return not stamped or (stamped <= ours and stamped != heads)


@cache
def revisions() -> tuple[set[str], set[str]]:
    """Of this release: all, and the latest."""
    script = ScriptDirectory(str(HERE))
    return {revision.revision for revision in script.walk_revisions()}, set(script.get_heads())
