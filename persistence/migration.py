"""Alembic's commands through advanced-alchemy, with our engine and the migrations of this package."""

from pathlib import Path

from advanced_alchemy.alembic.commands import AlembicCommands
from advanced_alchemy.config import AlembicAsyncConfig, SQLAlchemyAsyncConfig
from sqlalchemy.pool import NullPool

from persistence.database import create_engine

HERE = Path(__file__).parent / "migrations"


def commands(url: str) -> AlembicCommands:
    """upgrade(), downgrade(), check() … for the database at `url`. Several instances may upgrade at once."""
    return AlembicCommands(
        SQLAlchemyAsyncConfig(
            engine_instance=create_engine(url, poolclass=NullPool),
            alembic_config=AlembicAsyncConfig(
                script_location=str(HERE), version_table_name="alembic_version"
            ),
        )
    )
