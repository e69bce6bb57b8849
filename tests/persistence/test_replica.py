"""Which replica is near enough to be asked, and that the primary answers in any other case."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from time import monotonic
from typing import NamedTuple, TypeVar

import pytest
from sqlalchemy import text

from persistence import embedded
from persistence.embedded.folders import postgres_home
from persistence.embedded.processes import ServerGroup
from persistence.postgres.connector import Connector
from persistence.postgres.database import Reader
from persistence.postgres.pool import Pool
from persistence.postgres.replica import MAX_LAG_SECONDS, NearReader, Replica
from persistence.postgres.statements import NOTHING, Nothing, Query
from tests.reliability.servers import Standby
from tests.support.running import free_port, wait_until
from tests.support.service import Backend

pytestmark = pytest.mark.slow

NOBODY = f"postgresql://postgres@127.0.0.1:{free_port()}/medisecure"
T = TypeVar("T")


class Recovering(NamedTuple):
    """What a replica says of itself."""

    recovering: bool


WHO = Query(Recovering, Nothing, text("SELECT pg_is_in_recovery() AS recovering"))
FAILS_ON_REPLICA = Query(
    Recovering,
    Nothing,
    text(
        "SELECT CASE WHEN pg_is_in_recovery() THEN 1 / (random() < 0)::int = 1 ELSE false END AS recovering"
    ),
)


async def is_by_replica(reader: Reader, query: Query[Nothing, Recovering] = WHO) -> bool:
    [row] = await reader.rows(query, NOTHING)
    return row.recovering


class Servers(NamedTuple):
    primary: Backend
    standby: Standby
    clone: Standby  # promoted, so that it goes another way


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("primary")
    with ExitStack() as cleanup:
        cleanup.callback(embedded.discard, folder)
        running = cleanup.enter_context(embedded.start(folder, redis=False, durable=False))
        group = cleanup.enter_context(ServerGroup())
        copies = []
        for name in ("standby", "clone"):
            copy = Standby(postgres_home(tmp_path_factory.mktemp(name), cleanup), group)
            copy.copy(running.database_url)
            copy.start()
            cleanup.callback(copy.stop)
            copies.append(copy)
        copies[1].sql("SELECT pg_promote()")
        primary = Backend(running.database_url, "")
        primary.sql("CREATE TABLE filled AS SELECT generate_series(1, 10000)")
        wait_until(
            lambda: copies[0].sql("SELECT to_regclass('filled') AS name")[0]["name"] is not None,
            "the standby",
        )
        yield Servers(primary, *copies)


def with_replica(url: str, primary: str, use: Callable[[Replica], Awaitable[T]]) -> T:
    async def run() -> T:
        pool = Pool(Connector(primary, 30), 2)
        replica = Replica(url, Reader(pool), size=1)
        try:
            return await use(replica)
        finally:
            await replica.close()
            await pool.close()

    return asyncio.run(run())


async def look(replica: Replica) -> str:
    """Again where a machine that does something else as well took too long."""
    while (trouble := (await replica.look())[1]) == "it does not answer (TimeoutError)":
        pass
    return trouble


async def look_twice(replica: Replica) -> str:
    await replica.look()
    await asyncio.sleep(MAX_LAG_SECONDS * 0.75)
    return (await replica.look())[1]


def test_a_replica_that_follows_is_near(trio: Servers) -> None:
    assert with_replica(trio.standby.url, trio.primary.database_url, look) == ""


def test_a_server_that_must_not_be_asked_is_told_apart(trio: Servers, servers: Backend) -> None:
    for url, primary, trouble in (
        (trio.primary.database_url, trio.primary.database_url, "it is not a replica"),
        (trio.clone.url, trio.primary.database_url, "it is not a replica"),
        (trio.standby.url, servers.database_url, "it is a replica of another database"),
        (trio.standby.url, trio.clone.url, "it has replayed what the primary does not have"),
        (NOBODY, trio.primary.database_url, "it does not answer (ConnectionRefusedError)"),
    ):
        assert with_replica(url, primary, look) == trouble


def test_a_replica_that_is_held_up_is_late(trio: Servers) -> None:
    trio.standby.hold_replay()
    try:
        trio.primary.sql("CREATE TABLE unseen ()")
        assert with_replica(trio.standby.url, trio.primary.database_url, look_twice) == "it is late"
    finally:
        trio.standby.go_on()


def test_the_primary_answers_what_the_replica_cannot(trio: Servers) -> None:
    async def use(replica: Replica) -> None:
        position, _ = await replica.look()
        await replica.wait_until_replayed()
        near, beyond = NearReader(replica, position), NearReader(replica, position * 2)
        assert await is_by_replica(near)
        assert not await is_by_replica(beyond)
        assert not await is_by_replica(near, FAILS_ON_REPLICA)
        taken = await replica.pool.acquire()
        assert not await is_by_replica(near)
        replica.pool.release(taken)
        assert await is_by_replica(near)
        assert (replica.answered, replica.passed_on) == (2, 3)

    with_replica(trio.standby.url, trio.primary.database_url, use)


def test_nobody_is_asked_while_the_primary_cannot_say_how_far_it_is(trio: Servers) -> None:
    async def use(replica: Replica) -> None:
        replica.is_near = True
        with pytest.raises(OSError, match="Connect"):
            await replica.look()
        assert not replica.is_near
        assert replica.nearest(0) is None

    with_replica(trio.standby.url, NOBODY, use)


def test_a_write_is_held_for_as_long_as_a_replica_may_be_late(trio: Servers) -> None:
    """Where this instance cannot reach it, another may."""

    async def use(replica: Replica) -> float:
        began_at = monotonic()
        await replica.wait_until_replayed()
        return monotonic() - began_at

    assert with_replica(NOBODY, trio.primary.database_url, use) >= MAX_LAG_SECONDS
    assert with_replica(trio.standby.url, trio.primary.database_url, use) < MAX_LAG_SECONDS
