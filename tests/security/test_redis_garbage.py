"""What answers in the place of Redis, or junk in it, counts as an outage (decision 0037): PostgreSQL is
asked, and the connection is given up, because the next answer may belong to another command."""

import asyncio
from uuid import UUID, uuid4

import pytest
import redis
from redis.exceptions import InvalidResponse

from security import availability
from security.admission import Admission, Count
from security.availability import UNAVAILABLE, Outage, is_answering
from security.counters import CounterStore, session_key
from security.fences import Fences
from security.pipeline import MAX_IN_FLIGHT
from security.roles import Caller, Role
from tests.support.redis_store import connected, relayed_store
from tests.support.relay import relayed
from tests.support.running import wait_until

CALLER = Caller(uuid4(), "ada@example.com", Role.ADMIN, uuid4())
KEYS = [session_key(CALLER.session_id), f"requests:user:{CALLER.id}"]
WORDS = [
    b"+OK\r\n",
    b"*0\r\n",
    b":1\r\n",
    b"*3\r\n$5\r\nended\r\n$3\r\none\r\n:60000\r\n",
    b"*3\r\n:7\r\n:1\r\n:60000\r\n",
]


async def find_session(session_id: UUID) -> Caller:
    return CALLER


@pytest.mark.parametrize("words", WORDS)
def test_an_answer_of_another_kind_ends_the_connection(valkey: str, words: bytes) -> None:
    async def run() -> None:
        async with relayed_store(valkey) as (relay, store):
            assert await store.count_request("requests:user:x", 60_000)
            protocol = store.pipeline.protocol
            relay.instead = words
            for passage in (None, Fences(store).passage("x", writes=True, changes_access=False)):
                with pytest.raises(InvalidResponse):
                    await store.look_up_session(KEYS, 60_000, passage)
                if passage is None:
                    assert protocol is not None
                    assert protocol.transport.is_closing()
                    relay.instead = b""
                    await store.count_request("requests:user:x", 60_000)
                    relay.instead = words

    asyncio.run(run())


@pytest.mark.parametrize("words", WORDS)
def test_a_handshake_of_another_kind_is_an_outage(valkey: str, words: bytes) -> None:
    async def run() -> None:
        async with relayed(valkey) as relay:
            relay.instead = words
            async with connected(relay.url) as store:
                for _ in range(2):
                    with pytest.raises(UNAVAILABLE):
                        await store.count_request("requests:user:x", 60_000)
                assert not await store.is_working()
                assert not await asyncio.to_thread(is_answering, relay.url) or words == b"+OK\r\n"
                relay.instead = b""
                assert await store.is_working()

    asyncio.run(run())


def test_junk_in_the_place_of_a_session_is_an_outage_until_redis_is_asked_again(valkey: str) -> None:
    with redis.Redis.from_url(valkey) as connection:
        connection.set(KEYS[0], "junk")

    async def run() -> None:
        async with connected(valkey) as store:
            admission = Admission(store, find_session, limit=5, tombstone_seconds=900)
            assert await admission.look_up(KEYS, CALLER.session_id) == (CALLER, Count(1, 5, 60, 60))
            assert store.outage.is_on
            assert await admission.look_up(KEYS, CALLER.session_id) == (CALLER, Count(2, 5, 60, 60))
            await asyncio.to_thread(forget_junk)
            await asyncio.to_thread(wait_until, lambda: not store.outage.is_on, "the end of the outage")
            assert (await admission.look_up(KEYS, CALLER.session_id))[0] == CALLER

    def forget_junk() -> None:
        with redis.Redis.from_url(valkey) as connection:
            connection.delete(KEYS[0])

    asyncio.run(run())


def test_a_redis_that_is_full_of_commands_works(valkey: str) -> None:
    """It is busy, and not away."""

    async def run() -> None:
        async with relayed_store(valkey) as (relay, store):
            await store.count_request("requests:user:x", 60_000)
            relay.hold()
            tasks = [asyncio.create_task(store.execute("PING")) for _ in range(MAX_IN_FLIGHT)]
            await asyncio.sleep(0)
            assert await store.is_working()
            relay.let_go()
            await asyncio.gather(*tasks)

    asyncio.run(run())


def test_only_the_first_who_finds_redis_away_begins_the_outage() -> None:
    async def run() -> None:
        store = CounterStore.connect("redis://localhost:1")
        async with store:
            answers = [store.outage.ask(lambda: store.count_request("x", 1)) for _ in range(5)]
            assert await asyncio.gather(*answers) == [None] * 5
            watching = store.outage.watching
            assert await store.outage.ask(lambda: store.count_request("x", 1)) is None
            assert store.outage.watching is watching
            await asyncio.sleep(1.2)  # it asks, and goes on
            assert store.outage.is_on

    asyncio.run(run())


def test_an_outage_ends_although_the_question_failed_in_a_way_that_nobody_foresaw(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise the process would count for itself until it is started again."""
    monkeypatch.setattr(availability, "RETRY_SECONDS", 0.01)
    answers = iter([None, False, True])

    async def is_working() -> bool:
        answer = next(answers)
        if answer is None:
            raise RuntimeError
        return answer

    async def run() -> None:
        outage = Outage(is_working)
        outage.begin(OSError())
        assert outage.watching
        await outage.watching
        assert not outage.is_on

    asyncio.run(run())
