"""What Redis knows of writes, so that no replica answers with what was before (decision 0046)."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import uuid4

import pytest

from api.http.near import Near
from persistence.postgres.connector import Connector
from persistence.postgres.database import Reader
from persistence.postgres.pool import Pool
from persistence.postgres.replica import Replica
from security.counters import CounterStore
from security.fences import LATE_SECONDS, LEASE_SECONDS, Fences, Passage
from tests.support.running import free_port
from tests.support.service import Backend

T = TypeVar("T")
NOWHERE = f"postgresql://postgres@127.0.0.1:{free_port()}/medisecure"


def with_fences(url: str, use: Callable[[Fences], Awaitable[T]]) -> T:
    async def run() -> T:
        store = CounterStore.connect(url)
        async with store:
            return await use(Fences(store))

    return asyncio.run(run())


async def ask(fences: Fences, user: str, *, writes: bool = False, access: bool = False) -> Passage:
    passage = fences.passage(user, writes=writes, changes_access=access)
    assert isinstance(fences.store, CounterStore)
    await fences.store.look_up_session([f"session:{uuid4()}", f"requests:user:{user}"], 60_000, passage)
    return passage


async def settle(fences: Fences, passage: Passage, position: int) -> None:
    fences.end(passage)
    await fences.settle(fences.take_ended(), position)


def test_whoever_writes_reads_on_the_primary_until_all_their_writes_are_settled(own_valkey: str) -> None:
    async def use(fences: Fences) -> None:
        user, other = uuid4().hex, uuid4().hex
        assert (await ask(fences, user)).position == 0
        first = await ask(fences, user, writes=True)
        later = await ask(fences, user, writes=True)
        assert first.is_noted
        assert later.is_noted
        assert (await ask(fences, user)).position is None
        await settle(fences, later, 2000)
        assert (await ask(fences, user)).position is None
        await settle(fences, first, 1000)
        assert (await ask(fences, user)).position == 2000
        assert (await ask(fences, other)).position == 0

    with_fences(own_valkey, use)


def test_a_redis_that_has_forgotten_is_another_one_also_to_whom_it_has_its_name_from(own_valkey: str) -> None:
    async def use(fences: Fences) -> None:
        written = await ask(fences, uuid4().hex, writes=True)
        known, met_at = fences.redis, fences.met_at
        await ask(fences, uuid4().hex)
        assert (fences.redis, fences.met_at) == (known, met_at)
        with Backend("", own_valkey).redis as redis:
            redis.flushall()
        await ask(fences, uuid4().hex)
        assert fences.met_at > met_at
        assert not written.is_noted

    with_fences(own_valkey, use)


def test_a_change_of_access_concerns_everybody(own_valkey: str) -> None:
    async def use(fences: Fences) -> None:
        change = await ask(fences, uuid4().hex, writes=True, access=True)
        assert (await ask(fences, uuid4().hex)).position is None
        await settle(fences, change, 3000)
        assert (await ask(fences, uuid4().hex)).position == 3000

    with_fences(own_valkey, use)


def test_the_note_of_a_killed_process_holds_for_a_minute(own_valkey: str) -> None:
    async def use(fences: Fences) -> None:
        user = uuid4().hex
        await ask(fences, user, writes=True)
        with Backend("", own_valkey).redis as redis:
            assert 0 < redis.pttl(f"fence:{user}:writing") <= LEASE_SECONDS * 1000
            [(note, until)] = redis.zrange(f"fence:{user}:writing", 0, -1, withscores=True)
            redis.zadd(f"fence:{user}:writing", {note: until - LEASE_SECONDS * 1000 - 1})
        assert (await ask(fences, user)).position is not None
        await ask(fences, user, writes=True)
        with Backend("", own_valkey).redis as redis:
            assert redis.zcard(f"fence:{user}:writing") == 1

    with_fences(own_valkey, use)


def test_a_write_that_redis_has_forgotten_or_that_took_long_is_not_noted(own_valkey: str) -> None:
    async def use(fences: Fences) -> None:
        write, late = [await ask(fences, uuid4().hex, writes=True) for _ in range(2)]
        late.began_at -= LATE_SECONDS
        assert write.is_noted
        assert not late.is_noted
        met_at = fences.met_at
        with Backend("", own_valkey).redis as redis:
            redis.flushall()
        await ask(fences, uuid4().hex)
        assert not write.is_noted
        assert fences.met_at > met_at

    with_fences(own_valkey, use)


def test_a_write_that_could_not_be_settled_is_settled_later(own_valkey: str) -> None:
    async def use(fences: Fences) -> None:
        user = uuid4().hex
        write, old = await ask(fences, user, writes=True), await ask(fences, user, writes=True)
        old.began_at -= LEASE_SECONDS
        unasked = fences.passage(user, writes=True, changes_access=False)
        for passage in (write, old, unasked):
            fences.end(passage)
        ended = fences.take_ended()
        assert ended == [write, old]
        away = CounterStore.connect("unix:///nowhere")
        store, fences.store = fences.store, away
        await fences.settle(ended, 1000)
        assert fences.ended == [write]
        fences.store = store
        await fences.settle(fences.take_ended(), 2000)
        with Backend("", own_valkey).redis as redis:
            assert redis.get(f"fence:{user}") == "2000"

    with_fences(own_valkey, use)


def test_writes_wait_to_be_settled_while_the_primary_is_away(own_valkey: str) -> None:
    async def use(fences: Fences) -> None:
        near = Near(Replica(NOWHERE, Reader(Pool(Connector(NOWHERE, 30), 1))), fences)
        write = await ask(fences, uuid4().hex, writes=True)
        fences.end(write)
        with pytest.raises(OSError, match="Connect"):
            await near.watch()
        assert fences.ended == [write]

    with_fences(own_valkey, use)
