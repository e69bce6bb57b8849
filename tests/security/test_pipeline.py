"""All requests of a worker use one connection to Redis: each gets its own answer, none is counted twice, and
none passes uncounted because the connection is full, cut or has wrong bytes in it."""

import asyncio
import time
from typing import Any

import pytest
import redis

from security.availability import BusyError
from security.pipeline import MAX_IN_FLIGHT
from tests.support.redis_store import (
    KEY,
    connected,
    count_in,
    count_requests,
    echoes,
    outcomes,
    relayed_store,
    said,
)
from tests.support.relay import relayed


@pytest.mark.parametrize("pieces", [1, 7, 65536])
def test_each_redis_command_gets_its_own_answer(valkey: str, pieces: int) -> None:
    """Even if the answers come in pieces of any size."""

    async def run() -> tuple[list[Any], int]:
        async with relayed_store(valkey) as (relay, store):
            relay.pieces = pieces
            return await outcomes(*echoes(store, range(100))), len(relay.wires)

    answers, connections = asyncio.run(run())
    assert answers == said(range(100))
    assert connections == 1, "they waited for one connection, and shared it"


def test_the_answer_to_a_cancelled_redis_command_goes_to_no_other(valkey: str) -> None:
    async def run() -> list[Any]:
        async with relayed_store(valkey) as (relay, store):
            await store.execute("ECHO", "first")
            relay.hold()
            asked = echoes(store, range(100))
            await relay.until_held(100)
            for task in asked[::3]:
                task.cancel()
            await asyncio.sleep(0)
            asked += echoes(store, range(100, 200))
            relay.let_go()
            return await outcomes(*asked)

    for answer, expected in zip(asyncio.run(run()), said(range(200)), strict=True):
        assert isinstance(answer, asyncio.CancelledError) or answer == expected


def test_redis_commands_beyond_the_most_in_flight_are_busy_and_not_sent(valkey: str) -> None:
    async def run() -> None:
        async with relayed_store(valkey) as (relay, store):
            await store.count_request(KEY, 60_000)
            relay.hold()
            asked = count_requests(store, MAX_IN_FLIGHT)
            await asyncio.sleep(0)
            for _ in range(3):
                with pytest.raises(BusyError):
                    await store.count_request(KEY, 60_000)
            relay.let_go()
            assert [count for count, _ in await asyncio.gather(*asked)] == [*range(2, MAX_IN_FLIGHT + 2)]
            assert (await store.count_request(KEY, 60_000))[0] == MAX_IN_FLIGHT + 2

    asyncio.run(run())
    assert count_in(valkey) == MAX_IN_FLIGHT + 2


def test_redis_commands_beyond_the_most_that_wait_for_a_connection_are_busy(valkey: str) -> None:
    async def run() -> list[Any]:
        async with relayed_store(valkey) as (_, store):
            return await outcomes(*count_requests(store, MAX_IN_FLIGHT + 50))

    busy = [answer for answer in asyncio.run(run()) if isinstance(answer, BusyError)]
    assert (len(busy), count_in(valkey)) == (50, MAX_IN_FLIGHT)


def test_flushed_redis_scripts_are_loaded_again(valkey: str) -> None:
    """A script that Redis does not have has not run, so every request is counted once."""

    async def run() -> list[Any]:
        async with relayed_store(valkey) as (_, store):
            asked = []
            for _ in range(20):
                asked += count_requests(store, 20)
                await store.execute("SCRIPT", "FLUSH")
            return await outcomes(*asked)

    assert sorted(count for count, _ in asyncio.run(run())) == [*range(1, 401)]


@pytest.mark.slow
def test_a_slow_redis_answer_is_waited_for(valkey: str) -> None:
    async def run() -> list[Any]:
        async with relayed_store(valkey) as (relay, store):
            await store.execute("ECHO", "first")
            relay.delay = 0.9
            return await outcomes(*echoes(store, range(20)))

    assert asyncio.run(run()) == said(range(20))


@pytest.mark.slow
def test_redis_answers_that_came_while_the_event_loop_was_full_are_read(valkey: str) -> None:
    async def run() -> list[Any]:
        async with relayed_store(valkey) as (_, store):
            await store.execute("ECHO", "first")
            asked = echoes(store, range(5))
            await asyncio.sleep(0)
            stall()
            return await outcomes(*asked)

    assert asyncio.run(run()) == said(range(5))


def stall() -> None:
    time.sleep(2.5)


def test_a_big_redis_answer_between_small_ones_is_read(valkey: str) -> None:
    async def run() -> list[Any]:
        async with relayed_store(valkey) as (_, store):
            await store.execute("SET", "big", b"x" * 5_000_000)
            big = asyncio.create_task(store.execute("GET", "big"))
            return await outcomes(*echoes(store, range(5)), big, *echoes(store, range(5)))

    answers = asyncio.run(run())
    assert [len(answer) for answer in answers] == [*[1] * 5, 5_000_000, *[1] * 5]


def test_a_redis_push_is_no_answer(valkey: str) -> None:
    """RESP3, here about keys that change."""

    async def run() -> list[Any]:
        async with relayed_store(valkey) as (_, store):
            await store.execute("CLIENT", "TRACKING", "ON", "BCAST")
            with redis.Redis.from_url(valkey) as connection:
                for number in range(20):
                    connection.set(f"changed:{number}", 1)
            return await outcomes(*echoes(store, range(20)))

    assert asyncio.run(run()) == said(range(20))


def test_a_redis_error_is_the_answer_to_its_own_command_only(valkey: str) -> None:
    async def run() -> list[Any]:
        async with relayed_store(valkey) as (_, store):
            wrong = asyncio.create_task(store.execute("NO-SUCH-COMMAND"))
            return await outcomes(*echoes(store, range(3)), wrong, *echoes(store, range(3)))

    answers = asyncio.run(run())
    assert answers[:3] == answers[4:] == said(range(3))
    assert isinstance(answers[3], redis.ResponseError)


@pytest.mark.slow
def test_an_idle_redis_connection_is_pinged_as_the_url_says(valkey: str) -> None:
    async def run() -> int:
        async with connected(f"{valkey}?health_check_interval=1") as store:
            await store.execute("ECHO", "first")
            before = pings(valkey)
            await asyncio.sleep(2.2)
            return pings(valkey) - before

    assert asyncio.run(run()) >= 2


def pings(valkey: str) -> int:
    with redis.Redis.from_url(valkey) as connection:
        return int(connection.info("commandstats").get("cmdstat_ping", {"calls": 0})["calls"])


def test_a_closed_store_leaves_no_connection_and_no_waiting_command(valkey: str) -> None:
    async def run() -> list[Any]:
        async with relayed(valkey) as relay:
            async with connected(relay.url) as store:
                await store.execute("ECHO", "first")
                relay.hold()
                asked = echoes(store, range(3))
                await relay.until_held(3)
            answers = await outcomes(*asked)
            assert len(relay.wires) <= 2
            return answers

    for answer in asyncio.run(run()):
        assert isinstance(answer, BusyError)
    with redis.Redis.from_url(valkey) as connection:
        assert len(connection.client_list(_type="normal")) == 1
