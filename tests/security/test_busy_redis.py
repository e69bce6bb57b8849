"""A Redis that is slow, or whose connection is full, does not count as away: no request passes uncounted, and
one that is not answered in time is 503."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
import redis

from security.admission import Admission
from security.availability import BusyError
from security.counters import CounterStore
from security.pipeline import MAX_IN_FLIGHT
from tests.support.client import Browser
from tests.support.factories import PASSWORD, World
from tests.support.relay import Relay, relayed
from tests.support.service import Backend, Service

pytestmark = pytest.mark.slow

ME = "/api/users/me"


async def ask(service: Service, browser: Browser, path: str) -> tuple[int, dict[str, str]]:
    """The status and headers of a GET on a connection of its own."""
    host, port = service.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    cookie = f"access_token={browser.cookies['access_token']}"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nCookie: {cookie}\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().splitlines()
    writer.close()
    return int(head[0].split()[1]), dict(line.split(": ", 1) for line in head[1:] if line)


def signed_in(service: Service) -> Browser:
    browser = service.browser()
    assert browser.login("patient@test.example", PASSWORD).status_code == 200
    return browser


@asynccontextmanager
async def served(backend: Backend, url: str) -> AsyncIterator[Service]:
    settings = Backend(backend.database_url, url).settings(rate_limit_per_minute=100)
    service = await asyncio.to_thread(Service(backend, settings).__enter__)
    try:
        yield service
    finally:
        await asyncio.to_thread(service.__exit__)


@pytest.mark.parametrize("delay", [0.05, 0.2, 0.4])
def test_no_request_of_a_burst_passes_uncounted_while_redis_is_slow(
    backend: Backend, world: World, valkey: str, delay: float
) -> None:
    async def burst() -> list[tuple[int, dict[str, str]]]:
        async with relayed(valkey) as relay, served(backend, relay.url) as service:
            relay.delay = delay
            browser = service.browser(dict(world.patient.cookies))
            return await asyncio.gather(*[ask(service, browser, ME) for _ in range(700)])

    answers = asyncio.run(burst())
    statuses = Counter(status for status, _ in answers)
    assert statuses.keys() <= {200, 429, 503}, statuses
    assert statuses[200] <= 100, statuses
    for status, headers in answers:
        assert status == 503 or "ratelimit-limit" in headers
        assert status == 200 or int(headers["retry-after"]) >= 1


def test_a_request_that_redis_answers_too_late_is_503_and_counted(
    backend: Backend, world: World, valkey: str
) -> None:
    """The next request uses a new connection."""

    async def run() -> None:
        async with relayed(valkey) as relay, served(backend, relay.url) as service:
            browser = service.browser(dict(world.patient.cookies))
            assert (await ask(service, browser, ME))[0] == 200
            relay.hold()
            for status, headers in await asyncio.gather(*[ask(service, browser, ME) for _ in range(50)]):
                assert (status, headers["retry-after"]) == (503, "1")
            status, headers = await ask(service, browser, ME)
            assert (status, headers["ratelimit-remaining"]) == (200, "48")

    asyncio.run(run())


def test_a_redis_that_does_not_answer_at_all_is_away(backend: Backend, valkey: str) -> None:
    """People sign in and work on as if it were down, and each process counts for itself."""
    own = Backend(backend.database_url, valkey)
    with Service(own, own.settings()) as service, redis.Redis.from_url(valkey) as connection:
        browser = signed_in(service)
        connection.execute_command("CLIENT", "PAUSE", "4000", "ALL")
        answer = browser.get(ME)
        assert answer.status_code == 200
        assert answer.headers["ratelimit-remaining"] == "999999"
        assert service.browser().login("patient@test.example", PASSWORD).status_code == 200


@asynccontextmanager
async def full(url: str) -> AsyncIterator[tuple[Relay, CounterStore]]:
    """A store with as many commands in flight as are allowed."""
    async with relayed(url) as relay:
        store = CounterStore.connect(relay.url)
        async with store:
            await store.count_request("requests:user:x", 60_000)
            relay.hold()
            asked = [
                asyncio.create_task(store.count_request("requests:user:x", 60_000))
                for _ in range(MAX_IN_FLIGHT)
            ]
            await asyncio.sleep(0)
            yield relay, store
            relay.let_go()
            await asyncio.gather(*asked)


async def nobody(_: object) -> None: ...


def test_every_use_of_a_full_redis_connection_is_busy_and_not_away(valkey: str) -> None:
    async def run() -> None:
        async with full(valkey) as (_, store):
            admission = Admission(store, nobody, limit=100, tombstone_seconds=900)
            session = uuid4()
            for use in (
                admission.count_request("requests:address:192.0.2.1"),
                admission.look_up([f"session:{session}", "requests:user:x"], session),
                store.copy_attempts([]),
                store.write_tombstone(session, 900),
            ):
                with pytest.raises(BusyError):
                    await use
            assert not store.outage.is_on
            assert await store.probe.is_available()

    asyncio.run(run())


def test_a_tombstone_is_written_once_the_redis_connection_has_room(valkey: str) -> None:
    """Ending a session waits for room, and does not fail."""
    session = uuid4()

    async def run() -> None:
        async with full(valkey) as (relay, store):
            ending = asyncio.create_task(
                Admission(store, nobody, limit=1, tombstone_seconds=900).end_sessions([session])
            )
            await asyncio.sleep(0.6)
            assert not ending.done()
            relay.let_go()
            await ending

    asyncio.run(run())
    with redis.Redis.from_url(valkey) as connection:
        assert connection.get(f"session:{session}") == b"ended"
