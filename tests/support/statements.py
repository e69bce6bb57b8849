"""SQL that a test writes for itself."""

from typing import NamedTuple, TypedDict

from sqlalchemy import text

from persistence.postgres.database import Source
from persistence.postgres.statements import NOTHING, Nothing, Query, Statement


class Pid(NamedTuple):
    pid: int


class Seconds(TypedDict):
    seconds: float


PID = Query(Pid, Nothing, text("SELECT pg_backend_pid() AS pid"))
SLEEP = Statement(Seconds, text("SELECT pg_sleep(:seconds)"))


async def run_sql(source: Source, sql: str) -> None:
    await source.run(Statement(Nothing, text(sql)), NOTHING)


async def pid(source: Source) -> int:
    """Of the process of PostgreSQL's that answers."""
    [row] = await source.rows(PID, NOTHING)
    return row.pid
