"""Until when a request waits for PostgreSQL."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import uuid4

import pytest

from api.http.auditing import command_event
from persistence.audit import Action, Journal
from persistence.postgres import deadline
from persistence.postgres.database import Database, Reader
from persistence.postgres.deadline import seconds_left, start_clock, stop_clock
from tests.support.service import Backend
from tests.support.statements import SLEEP, Seconds, run_sql


async def sleep(database: Database) -> None:
    await database.reader.run(SLEEP, Seconds(seconds=60))


async def lock_twice(database: Database) -> None:
    async with database.transaction() as holder, database.transaction() as waiting:
        await holder.lock(1)
        await waiting.lock(1)


async def wait_for_a_connection(database: Database) -> None:
    async with database.transaction() as first, database.transaction() as second:
        await first.lock(1)
        database.writes.size = 1
        await second.lock(2)


async def wait_for_the_journal(database: Database) -> None:
    journal = Journal(Reader(database.journal))
    async with database.transaction() as holder:
        await run_sql(holder, "LOCK TABLE audit_events")
        try:
            await journal.write(command_event(Action.ACCOUNT_CREATE, uuid4()))
        finally:
            assert journal.writer is not None
            await journal.writer


@pytest.mark.parametrize("wait", [sleep, lock_twice, wait_for_a_connection, wait_for_the_journal])
def test_a_request_waits_for_postgresql_until_its_deadline(
    servers: Backend, monkeypatch: pytest.MonkeyPatch, wait: Callable[[Database], Awaitable[None]]
) -> None:
    monkeypatch.setattr(deadline, "REQUEST_SECONDS", 0.3)

    async def main() -> None:
        async with Database(servers.database_url) as database:
            start_clock()
            with pytest.raises(TimeoutError):
                await wait(database)

    asyncio.run(asyncio.wait_for(main(), 30))


def test_waiting_for_the_client_does_not_count() -> None:
    async def wait() -> float:
        start_clock()
        before = seconds_left()
        stop_clock(5)
        after = seconds_left()
        assert before is not None
        assert after is not None
        return after - before

    assert 4 < asyncio.run(wait()) <= 5


def test_what_no_request_waits_for_has_no_deadline() -> None:
    async def background() -> float | None:
        stop_clock(5)
        return seconds_left()

    assert asyncio.run(background()) is None
