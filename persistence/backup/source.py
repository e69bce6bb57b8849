"""What a backup asks the live database, and a restore the restored one."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg

from persistence.backup import BackupError
from persistence.postgres.connector import Connector

# From which nothing is ever deleted, so that a later state has as many rows or more.
COUNTED = ("users", "patients", "appointments", "medical_records", "audit_events", "audit_seals")
# Where a row is that has left one of these; counted with them, in one snapshot.
MOVED_TO = {"patients": "merged_patients", "medical_records": "record_retractions"}
FACTS = """
    SELECT current_setting('server_version') AS version,
           current_setting('server_version_num')::int / 10000 AS major,
           current_database() AS database,
           (SELECT rolname FROM pg_roles WHERE oid = 10) AS superuser,
           (SELECT system_identifier::text FROM pg_control_system()) AS system,
           (SELECT max(version_num) FROM alembic_version) AS revision,
           clock_timestamp() AS now
"""
HEAD = "SELECT number, mac FROM audit_seals ORDER BY number DESC LIMIT 1"
EMPTY = """
    SELECT NOT EXISTS (SELECT FROM pg_class JOIN pg_namespace AS space ON space.oid = relnamespace
                       WHERE nspname !~ '^pg_' AND nspname <> 'information_schema')
"""
END_SESSIONS = "UPDATE sessions SET ended_at = now() WHERE ended_at IS NULL"
Row = Any  # asyncpg.Record, which has no types


class Facts(NamedTuple):
    version: str
    major: int
    database: str
    superuser: str
    system: str
    revision: str
    now: datetime


class Session:
    """One connection, which stays open while programs run beside it."""

    def __init__(self, runner: asyncio.Runner, connection: asyncpg.Connection) -> None:
        self.runner = runner
        self.connection = connection

    def rows(self, sql: str, *values: object) -> list[Row]:
        return list(self.runner.run(self.connection.fetch(sql, *values)))

    def value(self, sql: str, *values: object) -> Any:  # of whatever type the statement has
        return self.runner.run(self.connection.fetchval(sql, *values))

    def execute(self, sql: str) -> None:
        self.runner.run(self.connection.execute(sql))

    def facts(self) -> Facts:
        [row] = self.rows(FACTS)
        return Facts(*row)

    def trail_head(self) -> str:
        """As `medisecure verify-audit` prints it."""
        for row in self.rows(HEAD):
            return f"{row['number']}:{row['mac'].hex()}"
        return "0:"

    def count_rows(self) -> dict[str, int]:
        return {table: self.count_rows_of(table) for table in COUNTED}

    def count_rows_of(self, table: str) -> int:
        tables = [table]
        moved_to = MOVED_TO.get(table)
        if moved_to and self.value("SELECT to_regclass($1) IS NOT NULL", moved_to):  # not in an old backup
            tables.append(moved_to)
        counts = (f"(SELECT count(*) FROM {one})" for one in tables)  # noqa: S608 - ours
        return int(self.value(f"SELECT {' + '.join(counts)}"))

    def is_empty(self) -> bool:
        return bool(self.value(EMPTY))


@contextmanager
def connected(url: str) -> Iterator[Session]:
    """Raises what Connector raises."""
    with asyncio.Runner() as runner:
        connection = runner.run(Connector(url, None)())
        try:
            yield Session(runner, connection)
        finally:
            if not connection.is_closed():
                runner.run(connection.close())


def require_replication(url: str) -> None:
    """BackupError: this role, or this way to the server, may not replicate; the message says why."""

    async def ask() -> None:
        dsn = url.replace("postgresql+asyncpg://", "postgresql://", 1)
        connection = await asyncpg.connect(dsn, timeout=5, server_settings={"replication": "true"})
        connection.terminate()  # it understands none of what a closing driver says

    try:
        asyncio.run(ask())
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise BackupError(str(error).partition("\n")[0] or "no connection") from error
