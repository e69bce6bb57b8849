"""The connection to Redis that all requests share, when it is cut, gets wrong bytes, or Redis is away: a
command is never repeated that may have run, and none waits for ever."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import uvloop

from persistence import embedded
from security.availability import UNAVAILABLE, BusyError
from security.counters import CounterStore
from security.pipeline import PING
from tests.support.redis_store import (
    KEY,
    connected,
    count_requests,
    echoes,
    outcomes,
    relayed_store,
    said,
)


@pytest.mark.parametrize("after", [0, 3, 50])
def test_a_redis_command_that_may_have_run_is_not_repeated(valkey: str, after: int) -> None:
    """The connection ends in the middle of an answer. Commands whose answer came have it; the others are
    busy, because Redis is there."""

    async def run() -> tuple[list[Any], int, int]:
        async with relayed_store(valkey) as (relay, store):
            await store.count_request(KEY, 60_000)
            relay.hold()
            asked = count_requests(store, 30)
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
        async with relayed_store(valkey) as (relay, store):
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
        async with relayed_store(valkey) as (relay, store):
            await store.execute("ECHO", "first")
            relay.say(b"+OK\r\n")
            await asyncio.sleep(0.1)
            assert await asyncio.gather(*echoes(store, range(5))) == said(range(5))
            assert len(relay.wires) == 2

    asyncio.run(run())


@pytest.mark.slow
def test_a_redis_that_answers_on_another_connection_only_is_busy(valkey: str) -> None:
    """Only this connection is dead, as behind a firewall that has forgotten it."""

    async def run() -> None:
        async with relayed_store(valkey) as (relay, store):
            await store.count_request(KEY, 60_000)
            relay.hold()
            answers = await outcomes(*count_requests(store, 10))
            assert {type(answer) for answer in answers} == {BusyError}
            assert (await store.count_request(KEY, 60_000))[0] == 12

    asyncio.run(run())


@pytest.mark.slow
def test_a_redis_that_answers_on_no_connection_is_away_until_it_answers(valkey: str) -> None:
    """A stalled server. The first and the last command in flight fail at the same time."""

    async def run() -> None:
        async with relayed_store(valkey) as (_, store):
            await store.count_request(KEY, 60_000)
            with stalled(valkey):
                first = count_requests(store, 10)
                await asyncio.sleep(0.4)
                for answer in await outcomes(*first, *count_requests(store, 10)):
                    assert isinstance(answer, UNAVAILABLE), answer
                for answer in await outcomes(*count_requests(store, 10)):
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_commands_during_a_restart_of_redis_are_answered_or_refused(tmp_path: Path) -> None:
    """Each gets an answer or one of the two errors; none waits for ever."""

    async def keep_asking(store: CounterStore, stop: asyncio.Event) -> list[Any]:
        answers = []
        while not stop.is_set():
            answers += await outcomes(*count_requests(store, 1))
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


def test_a_redis_whose_handshake_is_of_another_kind_is_away() -> None:
    """What is no map, where one with the version of the protocol must come."""

    async def say_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            while await reader.read(1000):
                writer.write(b":1\r\n")

    async def ask() -> None:
        server = await asyncio.start_server(say_one, "127.0.0.1", 0)
        async with (
            server,
            connected(f"redis://:secret@127.0.0.1:{server.sockets[0].getsockname()[1]}") as store,
        ):
            store.pipeline.abandon()  # there is nothing to give up yet
            with pytest.raises(redis.ConnectionError, match="No handshake of a Redis"):
                await store.pipeline.connect()

    asyncio.run(ask())


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


def test_a_redis_that_says_too_much_while_it_connects_is_not_used() -> None:
    """Its next answer would be to another command."""

    chats: list[asyncio.Task[Any] | None] = []

    async def chat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        chats.append(asyncio.current_task())
        with closing(writer):
            while await reader.read(1000):
                writer.write(b"%0\r\n" + b"+OK\r\n" * 50)

    async def ask() -> None:
        server = await asyncio.start_server(chat, "127.0.0.1", 0)
        async with server, connected(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}") as store:
            with pytest.raises((*UNAVAILABLE, BusyError)):
                await store.count_request(KEY, 60_000)
        await asyncio.gather(*filter(None, chats), return_exceptions=True)

    asyncio.run(ask())


def test_a_redis_connection_is_pinged_only_if_it_is_idle_and_open(valkey: str) -> None:
    async def run() -> None:
        async with relayed_store(valkey) as (relay, store):
            await store.execute("ECHO", "first")
            protocol = store.pipeline.protocol
            assert protocol
            relay.hold()
            asked = echoes(store, range(1))
            await relay.until_held(1)
            protocol.ping_every(600)
            assert len(protocol.in_flight) == 1, "an answer is on its way: the connection is in use"
            relay.let_go()
            await outcomes(*asked)
            protocol.transport.abort()
            protocol.ping_every(600)
            assert not protocol.in_flight
            with pytest.raises(redis.ConnectionError, match="The connection was lost"):
                protocol.send(PING)

    asyncio.run(run())
