"""Commands to a Redis over the connection that all requests share, many at the same time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import redis

from security.counters import CounterStore
from tests.support.relay import Relay, relayed

KEY = "requests:user:somebody"


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[CounterStore]:
    store = CounterStore.connect(url)
    async with store:
        yield store


@asynccontextmanager
async def relayed_store(valkey: str) -> AsyncIterator[tuple[Relay, CounterStore]]:
    async with relayed(valkey) as relay, connected(relay.url) as store:
        yield relay, store


async def outcomes(*asked: "asyncio.Task[Any]") -> list[Any]:
    return await asyncio.gather(*asked, return_exceptions=True)


def echoes(store: CounterStore, words: range) -> list["asyncio.Task[Any]"]:
    return [asyncio.create_task(store.execute("ECHO", word)) for word in words]


def count_requests(store: CounterStore, number: int) -> list["asyncio.Task[Any]"]:
    return [asyncio.create_task(store.count_request(KEY, 60_000)) for _ in range(number)]


def count_in(valkey: str) -> int:
    with redis.Redis.from_url(valkey) as connection:
        return int(connection.get(KEY) or 0)


def said(words: range) -> list[bytes]:
    return [str(word).encode() for word in words]
