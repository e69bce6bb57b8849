"""The pool of connections: who gets one, who waits, and what becomes of one that something happened to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from threading import Thread
from typing import Any

import asyncpg
import pytest

from persistence.postgres import pool as pools
from persistence.postgres.connector import Connector
from persistence.postgres.database import Reader
from persistence.postgres.deadline import fail_waiting
from persistence.postgres.failures import PoolTimeoutError
from persistence.postgres.pool import Pool
from persistence.postgres.statements import NOTHING
from tests.support.service import Backend
from tests.support.statements import PID, SLEEP, Seconds, pid, run_sql


@asynccontextmanager
async def opened(backend: Backend, size: int, **options: Any) -> AsyncIterator[Pool]:
    pool = Pool(Connector(backend.database_url, **{"command_timeout": 30, **options}), size)
    try:
        yield pool
    finally:
        await pool.close()


@asynccontextmanager
async def used(pool: Pool) -> AsyncIterator[None]:
    """One of its connections is in use meanwhile."""
    connection = await pool.acquire()
    yield
    pool.release(connection)


def test_connections_are_used_again_and_never_more_than_its_size(backend: Backend) -> None:
    async def main() -> None:
        async with opened(backend, 3) as pool:
            reader = Reader(pool)
            assert len({await pid(reader) for _ in range(5)}) == 1
            pids = await asyncio.gather(*(pid(reader) for _ in range(40)))
            assert len(set(pids)) <= 3
            assert (pool.opened, len(pool.idle)) == (len(set(pids)), len(set(pids)))

    asyncio.run(main())


def test_waiting_too_long_for_a_connection_raises_a_time_out(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "MAX_WAIT_SECONDS", 0.05)

    async def main() -> None:
        async with opened(backend, 1) as pool:
            async with used(pool):
                with pytest.raises(PoolTimeoutError):
                    await pool.acquire()
            assert await pid(Reader(pool)) > 0

    asyncio.run(main())


def test_the_request_that_waits_longest_gets_the_next_connection(backend: Backend) -> None:
    order: list[int] = []

    async def use(pool: Pool, number: int) -> None:
        async with used(pool):
            order.append(number)

    async def main() -> None:
        async with opened(backend, 1) as pool:
            async with used(pool):
                waiting = [asyncio.create_task(use(pool, number)) for number in range(5)]
                await asyncio.sleep(0)
            await asyncio.gather(*waiting)

    asyncio.run(main())
    assert order == [0, 1, 2, 3, 4]


def test_a_cancelled_statement_costs_its_connection_and_stops_in_postgresql(backend: Backend) -> None:
    async def main() -> None:
        async with opened(backend, 1) as pool:
            reader = Reader(pool)
            before = await pid(reader)
            asking = asyncio.create_task(reader.run(SLEEP, Seconds(seconds=60)))
            await asyncio.sleep(0.1)
            asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking
            assert await pid(reader) != before

    asyncio.run(main())
    sleeping = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE state = 'active' AND query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()"
    )
    assert backend.sql(sleeping)[0][0] == 0


@pytest.mark.parametrize("is_handed_over", [False, True])
def test_a_cancelled_wait_takes_no_connection(backend: Backend, is_handed_over: bool) -> None:
    """Also where a connection was handed over in the same moment."""

    async def main() -> None:
        async with opened(backend, 1) as pool:
            connection = await pool.acquire()
            waiting = asyncio.create_task(pool.acquire())
            await asyncio.sleep(0)
            if is_handed_over:
                pool.release(connection)
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await waiting
            if not is_handed_over:
                pool.release(connection)
            assert (pool.opened, len(pool.idle)) == (1, 1)

    asyncio.run(main())


def test_who_leaves_while_a_connection_is_asked_whether_it_lives_takes_nothing_along(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "TRUSTED_SECONDS", 0.0)

    async def main() -> None:
        async with opened(backend, 1) as pool:
            await pid(Reader(pool))
            taking = asyncio.create_task(pool.acquire(alive=True))
            await asyncio.sleep(0)
            taking.cancel()
            with suppress(asyncio.CancelledError):
                await taking
            assert pool.opened == 0
            assert await asyncio.wait_for(pid(Reader(pool)), 5) > 0

    asyncio.run(main())


def test_who_leaves_while_a_connection_is_opened_leaves_none_behind(backend: Backend) -> None:
    taking: asyncio.Task[Any]

    class Leaving(Connector):
        made: Any = None

        async def open(self, host: str, seconds: float) -> Any:
            self.made = await super().open(host, seconds)
            taking.cancel()
            return self.made

    connector = Leaving(backend.database_url, 30)
    pool = Pool(connector, 1)

    async def main() -> None:
        nonlocal taking
        taking = asyncio.create_task(pool.acquire())
        with suppress(asyncio.CancelledError):
            await taking
        assert connector.made.is_closed()
        assert pool.opened == 0

    asyncio.run(main())


def test_whether_there_is_a_pooler_is_not_guessed(backend: Backend) -> None:
    """Behind one, a statement may run under a transaction's isolation that is not ours."""

    async def main() -> None:
        async with opened(backend, 1) as pool:
            assert pool.connector.is_pooled is None
            await pid(Reader(pool))
            assert pool.connector.is_pooled is False

    asyncio.run(main())


def test_a_statement_that_times_out_closes_its_connection(backend: Backend) -> None:
    async def main() -> None:
        async with opened(backend, 1, command_timeout=0.2) as pool:
            reader = Reader(pool)
            before = await pid(reader)
            with pytest.raises(TimeoutError):
                await reader.run(SLEEP, Seconds(seconds=60))
            assert await pid(reader) != before

    asyncio.run(main())


def test_a_refused_statement_keeps_its_connection(backend: Backend) -> None:
    async def main() -> None:
        async with opened(backend, 1) as pool:
            reader = Reader(pool)
            before = await pid(reader)
            for _ in range(3):
                with pytest.raises(Exception, match="division by zero"):
                    await run_sql(reader, "SELECT 1 / 0")
            assert await pid(reader) == before

    asyncio.run(main())


def test_waiting_ends_where_the_connection_that_was_waited_for_dies(backend: Backend) -> None:
    async def main() -> None:
        async with opened(backend, 1) as pool:
            connection = await pool.acquire()
            waiting = asyncio.create_task(pid(Reader(pool)))
            await asyncio.sleep(0)
            connection.terminate()
            pool.release(connection)
            assert await asyncio.wait_for(waiting, 5) > 0
            assert pool.opened == 1

    asyncio.run(main())


def test_no_room_is_lost_to_connections_that_cannot_be_opened(backend: Backend) -> None:
    async def main() -> None:
        url = backend.database_url.replace("postgres@", "nobody@")
        pool = Pool(Connector(url, 30), 1)
        for _ in range(3):
            with pytest.raises(ConnectionError):
                await pool.acquire()
        assert pool.opened == 0

    asyncio.run(main())


def test_a_statement_that_must_not_be_sent_twice_gets_a_live_connection(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended while nobody looked: the driver has not noticed."""
    monkeypatch.setattr(pools, "TRUSTED_SECONDS", 0.0)

    async def main() -> None:
        async with opened(backend, 1) as pool:
            reader = Reader(pool)
            before = await pid(reader)
            ending = Thread(target=backend.sql, args=("SELECT pg_terminate_backend($1, 5000)", before))
            ending.start()
            ending.join()  # the event loop stands still meanwhile
            assert not pool.idle[0][0].is_closed()
            [record] = await reader.once(PID, NOTHING, alive=True)
            assert record["pid"] != before

    asyncio.run(main())


def test_a_connection_that_comes_at_the_last_moment_is_not_lost() -> None:
    """It was handed over, and then the time to wait for it ended."""

    async def main() -> str:
        turn = asyncio.get_running_loop().create_future()
        turn.set_result("a connection")
        fail_waiting(turn)
        return str(await turn)

    assert asyncio.run(main()) == "a connection"


def test_a_connection_in_a_failed_transaction_is_no_lost_one(backend: Backend) -> None:
    """Somebody left it so: that is a defect, which another connection would hide."""

    async def main() -> None:
        async with opened(backend, 1) as pool:
            connection = await pool.acquire()
            with suppress(asyncpg.PostgresError):
                await connection.execute("BEGIN; SELECT 1 / 0")
            try:
                with pytest.raises(asyncpg.InFailedSQLTransactionError):
                    await pools.is_usable(connection, used=0, alive=True)
            finally:
                await connection.execute("ROLLBACK")
                pool.release(connection)

    asyncio.run(main())
