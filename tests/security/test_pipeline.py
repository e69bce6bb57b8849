"""All requests of a worker use one connection to Redis: each gets its own answer, none is counted twice, and
none passes uncounted because the connection is full, cut or has wrong bytes in it."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import uvloop

from persistence import embedded
from security.availability import UNAVAILABLE, BusyError
from security.counters import CounterStore
from security.pipeline import MAX_IN_FLIGHT
from tests.support.relay import Relay, relayed

KEY = "requests:user:somebody"


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Valkey for this module alone."""
    folder = tmp_path_factory.mktemp("valkey")
    with embedded.start(folder, postgres=False) as servers:
        yield servers.redis_url
    embedded.discard(folder)


@pytest.fixture(autouse=True)
def empty(valkey: str) -> None:
    with redis.Redis.from_url(valkey) as connection:
        connection.flushall()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[CounterStore]:
    store = CounterStore.connect(url)
    async with store:
        yield store


@asynccontextmanager
async def behind(valkey: str) -> AsyncIterator[tuple[Relay, CounterStore]]:
    async with relayed(valkey) as relay, connected(relay.url) as store:
        yield relay, store


async def outcomes(*asked: "asyncio.Task[Any]") -> list[Any]:
    return await asyncio.gather(*asked, return_exceptions=True)


def echoes(store: CounterStore, words: range) -> list["asyncio.Task[Any]"]:
    return [asyncio.create_task(store.execute("ECHO", word)) for word in words]


def counts(store: CounterStore, number: int) -> list["asyncio.Task[Any]"]:
    return [asyncio.create_task(store.count_request(KEY, 60_000)) for _ in range(number)]


def counted(valkey: str) -> int:
    with redis.Redis.from_url(valkey) as connection:
        return int(connection.get(KEY) or 0)


def said(words: range) -> list[bytes]:
    return [str(word).encode() for word in words]


@pytest.mark.parametrize("pieces", [1, 7, 65536])
def test_each_redis_command_gets_its_own_answer(valkey: str, pieces: int) -> None:
    """Even if the answers come in pieces of any size."""

    async def run() -> tuple[list[Any], int]:
        async with behind(valkey) as (relay, store):
            relay.pieces = pieces
            return await outcomes(*echoes(store, range(400))), len(relay.wires)

    answers, connections = asyncio.run(run())
    assert answers == said(range(400))
    assert connections == 1, "they waited for one connection, and shared it"


def test_the_answer_to_a_cancelled_redis_command_goes_to_no_other(valkey: str) -> None:
    async def run() -> list[Any]:
        async with behind(valkey) as (relay, store):
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
        async with behind(valkey) as (relay, store):
            await store.count_request(KEY, 60_000)
            relay.hold()
            asked = counts(store, MAX_IN_FLIGHT)
            await asyncio.sleep(0)
            for _ in range(3):
                with pytest.raises(BusyError):
                    await store.count_request(KEY, 60_000)
            relay.let_go()
            assert [count for count, _ in await asyncio.gather(*asked)] == [*range(2, MAX_IN_FLIGHT + 2)]
            assert (await store.count_request(KEY, 60_000))[0] == MAX_IN_FLIGHT + 2

    asyncio.run(run())
    assert counted(valkey) == MAX_IN_FLIGHT + 2


def test_redis_commands_beyond_the_most_that_wait_for_a_connection_are_busy(valkey: str) -> None:
    async def run() -> list[Any]:
        async with behind(valkey) as (_, store):
            return await outcomes(*counts(store, MAX_IN_FLIGHT + 50))

    busy = [answer for answer in asyncio.run(run()) if isinstance(answer, BusyError)]
    assert (len(busy), counted(valkey)) == (50, MAX_IN_FLIGHT)


def test_flushed_redis_scripts_are_loaded_again(valkey: str) -> None:
    """A script that Redis does not have has not run, so every request is counted once."""

    async def run() -> list[Any]:
        async with behind(valkey) as (_, store):
            asked = []
            for _ in range(20):
                asked += counts(store, 20)
                await store.execute("SCRIPT", "FLUSH")
            return await outcomes(*asked)

    assert sorted(count for count, _ in asyncio.run(run())) == [*range(1, 401)]


@pytest.mark.parametrize("after", [0, 3, 50])
def test_a_redis_command_that_may_have_run_is_not_repeated(valkey: str, after: int) -> None:
    """The connection ends in the middle of an answer. Commands whose answer came have it; the others are
    busy, because Redis is there."""

    async def run() -> tuple[list[Any], int, int]:
        async with behind(valkey) as (relay, store):
            await store.count_request(KEY, 60_000)
            relay.hold()
            asked = counts(store, 30)
            await relay.until_held(30 * 10)
            relay.cut(after)
            answers = await outcomes(*asked)
            return answers, (await store.count_request(KEY, 60_000))[0], len(relay.wires)

    answers, last, connections = asyncio.run(run())
    arrived = [answer for answer in answers if not isinstance(answer, BusyError)]
    assert [count for count, _ in arrived] == [*range(2, 2 + len(arrived))]
    assert len(arrived) == after // len(b"*2\r\n:2\r\n:59999\r\n")
    assert last == 32
    assert connections == 3, "the first, the probe's, and the next"


@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x03\x00\x02\x02\x28"])
def test_bytes_that_are_no_redis_answer_end_the_connection(valkey: str, words: bytes) -> None:
    """What comes after them could be the answer to any command."""

    async def run() -> None:
        async with behind(valkey) as (relay, store):
            await store.execute("ECHO", "first")
            relay.hold()
            asked = echoes(store, range(5))
            await relay.until_held(5)
            relay.say(words)
            assert {type(answer) for answer in await outcomes(*asked)} == {BusyError}
            assert await asyncio.gather(*echoes(store, range(5))) == said(range(5))

    asyncio.run(run())


def test_a_redis_answer_to_no_command_ends_the_connection(valkey: str) -> None:
    """The next command would get it as its own."""

    async def run() -> None:
        async with behind(valkey) as (relay, store):
            await store.execute("ECHO", "first")
            relay.say(b"+OK\r\n")
            await asyncio.sleep(0.1)
            assert await asyncio.gather(*echoes(store, range(5))) == said(range(5))
            assert len(relay.wires) == 2

    asyncio.run(run())


def test_a_redis_that_answers_on_another_connection_only_is_busy(valkey: str) -> None:
    """Only this connection is dead, as behind a firewall that has forgotten it."""

    async def run() -> None:
        async with behind(valkey) as (relay, store):
            await store.count_request(KEY, 60_000)
            relay.hold()
            answers = await outcomes(*counts(store, 10))
            assert {type(answer) for answer in answers} == {BusyError}
            assert (await store.count_request(KEY, 60_000))[0] == 12

    asyncio.run(run())


def test_a_slow_redis_answer_is_waited_for(valkey: str) -> None:
    async def run() -> list[Any]:
        async with behind(valkey) as (relay, store):
            await store.execute("ECHO", "first")
            relay.delay = 0.9
            return await outcomes(*echoes(store, range(20)))

    assert asyncio.run(run()) == said(range(20))


def test_a_redis_that_answers_on_no_connection_is_away_until_it_answers(valkey: str) -> None:
    """A stalled server. The first and the last command in flight fail at the same time."""

    async def run() -> None:
        async with behind(valkey) as (_, store):
            await store.count_request(KEY, 60_000)
            with stalled(valkey):
                first = counts(store, 10)
                await asyncio.sleep(0.4)
                for answer in await outcomes(*first, *counts(store, 10)):
                    assert isinstance(answer, UNAVAILABLE), answer
                for answer in await outcomes(*counts(store, 10)):
                    assert isinstance(answer, UNAVAILABLE), answer
            await store.count_request(KEY, 60_000)

    asyncio.run(run())


@contextmanager
def stalled(valkey: str) -> Iterator[None]:
    """The process of the server is stopped, and continues at the end of the block."""
    with redis.Redis.from_url(valkey) as connection:
        process = int(connection.info("server")["process_id"])
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def test_redis_answers_that_came_while_the_event_loop_was_full_are_read(valkey: str) -> None:
    async def run() -> list[Any]:
        async with behind(valkey) as (_, store):
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
        async with behind(valkey) as (_, store):
            await store.execute("SET", "big", b"x" * 5_000_000)
            big = asyncio.create_task(store.execute("GET", "big"))
            return await outcomes(*echoes(store, range(5)), big, *echoes(store, range(5)))

    answers = asyncio.run(run())
    assert [len(answer) for answer in answers] == [*[1] * 5, 5_000_000, *[1] * 5]


def test_a_redis_push_is_no_answer(valkey: str) -> None:
    """RESP3, here about keys that change."""

    async def run() -> list[Any]:
        async with behind(valkey) as (_, store):
            await store.execute("CLIENT", "TRACKING", "ON", "BCAST")
            with redis.Redis.from_url(valkey) as connection:
                for number in range(20):
                    connection.set(f"changed:{number}", 1)
            return await outcomes(*echoes(store, range(20)))

    assert asyncio.run(run()) == said(range(20))


def test_a_redis_error_is_the_answer_to_its_own_command_only(valkey: str) -> None:
    async def run() -> list[Any]:
        async with behind(valkey) as (_, store):
            wrong = asyncio.create_task(store.execute("NO-SUCH-COMMAND"))
            return await outcomes(*echoes(store, range(3)), wrong, *echoes(store, range(3)))

    answers = asyncio.run(run())
    assert answers[:3] == answers[4:] == said(range(3))
    assert isinstance(answers[3], redis.ResponseError)


def test_commands_after_a_restart_of_redis_do_not_fail(tmp_path: Path) -> None:
    async def run() -> None:
        servers = await asyncio.to_thread(embedded.start, tmp_path, postgres=False)
        async with connected(servers.redis_url) as store:
            for _ in range(3):
                assert (await store.count_request(KEY, 60_000))[0] == 1
                await asyncio.to_thread(servers.stop)
                servers = await asyncio.to_thread(embedded.start, tmp_path, postgres=False)
        await asyncio.to_thread(servers.stop)

    asyncio.run(run())
    embedded.discard(tmp_path)


def test_commands_during_a_restart_of_redis_are_answered_or_refused(tmp_path: Path) -> None:
    """Each gets an answer or one of the two errors; none waits for ever."""

    async def keep_asking(store: CounterStore, stop: asyncio.Event) -> list[Any]:
        answers = []
        while not stop.is_set():
            answers += await outcomes(*counts(store, 1))
            await asyncio.sleep(0.001)
        return answers

    async def run() -> list[Any]:
        servers = await asyncio.to_thread(embedded.start, tmp_path, postgres=False)
        async with connected(servers.redis_url) as store:
            stop = asyncio.Event()
            asking = [asyncio.create_task(keep_asking(store, stop)) for _ in range(20)]
            for _ in range(2):
                await asyncio.sleep(0.3)
                await asyncio.to_thread(servers.stop)
                servers = await asyncio.to_thread(embedded.start, tmp_path, postgres=False)
            await asyncio.sleep(0.3)
            stop.set()
            answers = [answer for answers in await asyncio.gather(*asking) for answer in answers]
            assert await store.count_request(KEY, 60_000)
        await asyncio.to_thread(servers.stop)
        return answers

    answers = asyncio.run(run())
    embedded.discard(tmp_path)
    assert {type(answer) for answer in answers if not isinstance(answer, UNAVAILABLE)} <= {tuple, BusyError}


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_redis_that_disconnects_during_the_handshake_is_away(run: Callable[[Any], None]) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"%0\r\n")
        writer.close()

    async def ask() -> None:
        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        async with server, connected(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}") as store:
            for _ in range(30):
                with pytest.raises(UNAVAILABLE):
                    await store.count_request(KEY, 60_000)

    run(ask())


def test_a_changed_redis_password_is_an_error_at_the_next_connection(valkey: str) -> None:
    """The open connection goes on. A new one is refused, and that is not BusyError."""

    async def run() -> None:
        with redis.Redis.from_url(valkey) as admin:
            admin.execute_command("ACL", "SETUSER", "clinic", "on", ">old", "~*", "+@all")
            async with connected(f"{valkey}?db=3&username=clinic&password=old&client_name=us") as store:
                await store.execute("SET", "where", "in 3")
                assert await store.execute("ACL", "WHOAMI") == b"clinic"
                assert await store.execute("CLIENT", "GETNAME") == b"us"
                admin.execute_command("ACL", "SETUSER", "clinic", "resetpass", ">new")
                await store.execute("ECHO", "still here")
                admin.client_kill_filter(_type="normal", skipme=True)
                await asyncio.sleep(0.05)
                with pytest.raises(redis.ConnectionError, match="invalid username-password"):
                    await store.execute("ECHO", "again")
        with redis.Redis.from_url(f"{valkey}?db=3") as other:
            assert other.get("where") == b"in 3"

    asyncio.run(run())


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
