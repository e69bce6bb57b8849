"""Alembic's commands through advanced-alchemy, with our engine and the migrations of this package."""

from functools import cache
from pathlib import Path

from advanced_alchemy.alembic.commands import AlembicCommands
from advanced_alchemy.config import AlembicAsyncConfig, SQLAlchemyAsyncConfig
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.pool import NullPool

from persistence.database import Reader, create_engine

HERE = Path(__file__).parent / "migrations"


def commands(url: str) -> AlembicCommands:
    """upgrade(), downgrade(), check() … for the database at `url`. Several instances may upgrade at once;
    the later ones wait, and an index takes its time, so nothing here has a time-out."""
    return AlembicCommands(
        SQLAlchemyAsyncConfig(
            engine_instance=create_engine(url, command_timeout=None, poolclass=NullPool),
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
