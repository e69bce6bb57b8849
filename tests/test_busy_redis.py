"""Redis that is slow, or whose connections are all taken, is not Redis away: nobody passes uncounted, and
what is not answered in time is 503."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import uuid4

import pytest
import redis

from persistence import embedded
from security.admission import Admission
from security.counters import BusyError, CounterStore
from security.login_attempts import LoginAttempts
from tests.client import Browser
from tests.factories import PASSWORD, World
from tests.service import Backend, Service

ME = "/api/users/me"


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[str]:
    """The URL of a server of the test's own."""
    running = embedded.start(tmp_path, postgres=False)
    yield running.redis_url
    running.stop()
    embedded.discard(tmp_path)


@asynccontextmanager
async def slowly(url: str, seconds: float) -> AsyncIterator[str]:
    """The server behind a line that delays its answers."""

    async def carry(client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        reader, writer = await asyncio.open_unix_connection(url.removeprefix("unix://"))

        async def back() -> None:
            while chunk := await reader.read(65536):
                await asyncio.sleep(seconds)
                answer.write(chunk)

        task = asyncio.create_task(back())
        with suppress(ConnectionError):
            while chunk := await client.read(65536):
                writer.write(chunk)
        task.cancel()
        writer.close()
        answer.close()

    server = await asyncio.start_server(carry, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


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


@pytest.mark.parametrize("delay", [0.05, 0.2, 0.4])
def test_of_a_burst_over_a_slow_redis_nothing_passes_uncounted(
    backend: Backend, world: World, valkey: str, delay: float
) -> None:
    """Fifty connections are soon busy; the rest wait for half a second, and are then told to come back."""

    async def burst() -> list[tuple[int, dict[str, str]]]:
        async with slowly(valkey, delay) as url:
            settings = Backend(backend.database_url, url).settings(rate_limit_per_minute=100)
            service = await asyncio.to_thread(Service(backend, settings).__enter__)
            try:
                browser = service.browser(dict(world.patient.cookies))
                return await asyncio.gather(*[ask(service, browser, ME) for _ in range(700)])
            finally:
                await asyncio.to_thread(service.__exit__)

    answers = asyncio.run(burst())
    statuses = Counter(status for status, _ in answers)
    assert statuses.keys() <= {200, 429, 503}, statuses
    assert statuses[200] <= 100, statuses
    assert statuses[503] > 0, statuses
    for status, headers in answers:
        assert status == 503 or "ratelimit-limit" in headers
        assert status == 200 or int(headers["retry-after"]) >= 1


def test_one_that_does_not_answer_is_away(backend: Backend, valkey: str) -> None:
    """Whoever is signed in goes on, uncounted, as with one that is down."""
    own = Backend(backend.database_url, valkey)
    with Service(own, own.settings()) as service, redis.Redis.from_url(valkey) as connection:
        browser = signed_in(service)
        connection.execute_command("CLIENT", "PAUSE", "8000", "ALL")
        answer = browser.get(ME)
        assert answer.status_code == 200
        assert "ratelimit-limit" not in answer.headers
        assert service.browser().login("patient@test.example", PASSWORD).status_code == 503


@asynccontextmanager
async def without_a_free_connection(url: str) -> AsyncIterator[CounterStore]:
    store = CounterStore.connect(url)
    async with store:
        waiting = [asyncio.create_task(occupy(store, number)) for number in range(50)]
        await asyncio.to_thread(until_they_wait, url)
        yield store
        for task in waiting:
            task.cancel()


async def occupy(store: CounterStore, number: int) -> None:
    """Hold a connection until something is pushed to the list of this number."""
    connection = await store._redis.connection_pool.get_connection()
    try:
        await connection.send_command("BLPOP", f"never:{number}", 0)
        await connection.read_response(timeout=60)
    finally:
        await store._redis.connection_pool.release(connection)


def until_they_wait(url: str) -> None:
    with redis.Redis.from_url(url) as connection:
        while int(connection.info("clients")["blocked_clients"]) < 50:
            time.sleep(0.02)


async def nobody(_: object) -> None: ...


def test_every_use_of_a_full_pool_is_busy_and_not_away(valkey: str) -> None:
    async def run() -> None:
        async with without_a_free_connection(valkey) as store:
            admission = Admission(store, nobody, limit=100, tombstone=900)
            attempts = LoginAttempts(store, 5, 900, 300)
            session = uuid4()
            for use in (
                admission.count("requests:address:192.0.2.1"),
                admission.known([f"session:{session}", "requests:user:x"], session),
                attempts.take("a@b.c", "192.0.2.1"),
                store.bury_session(session, 900),
            ):
                with pytest.raises(BusyError):
                    await use
            assert admission.away_until == 0
            await store.ping()

    asyncio.run(run())


def test_a_session_is_buried_once_a_connection_is_free(valkey: str) -> None:
    """The end of a session does not fail for a moment without one."""
    session = uuid4()

    async def run() -> None:
        async with without_a_free_connection(valkey) as store:
            ending = asyncio.create_task(Admission(store, nobody, limit=1, tombstone=900).end([session]))
            await asyncio.sleep(0.6)
            assert not ending.done()
            with redis.Redis.from_url(valkey) as connection:
                connection.rpush("never:0", "a connection is free")
            await ending

    asyncio.run(run())
    with redis.Redis.from_url(valkey) as connection:
        assert connection.get(f"session:{session}") == b"ended"
