"""A transaction beside the service's own, whose locks stop requests at a known point."""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import asyncpg

from tests.support.service import Backend

WAITING = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


@contextmanager
def transaction(backend: Backend) -> Iterator[Callable[..., Any]]:
    """Gives what runs a statement in it; it is stored when the block ends."""
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(backend.database_url))
        try:
            runner.run(connection.execute("BEGIN"))
            yield lambda statement, *args: runner.run(connection.execute(statement, *args))
            runner.run(connection.execute("COMMIT"))
        finally:
            runner.run(connection.close())


def until_they_wait(backend: Backend, *requests: Future[Any]) -> None:
    """Return once each of these requests waits for a lock, or is done."""
    while backend.sql(WAITING)[0][0] < sum(not request.done() for request in requests):
        time.sleep(0.02)
