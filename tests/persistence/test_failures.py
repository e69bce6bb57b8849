"""What the errors of PostgreSQL's driver mean to the service; each is raised by the driver itself."""

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from persistence.postgres.failures import Failure, classify
from tests.support.service import Backend


async def use_closed(connection: asyncpg.Connection) -> None:
    await connection.close()
    await connection.execute("SELECT 1")


async def misuse(connection: asyncpg.Connection) -> None:
    await connection.fetchval("SELECT $1::int")


async def send_unstorable(connection: asyncpg.Connection) -> None:
    await connection.fetchval("SELECT $1::text", "\0")


@pytest.mark.parametrize(
    ("act", "failure"),
    [
        (use_closed, Failure.UNAVAILABLE),
        (misuse, Failure.UNKNOWN),
        (send_unstorable, Failure.UNSTORABLE),
    ],
)
def test_an_error_of_the_driver_is_classified(
    servers: Backend, act: Callable[[asyncpg.Connection], Awaitable[None]], failure: Failure
) -> None:
    async def fail() -> Failure | None:
        connection = await asyncpg.connect(servers.database_url)
        try:
            await act(connection)
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            return classify(error)
        finally:
            await connection.close()
        return None

    assert asyncio.run(fail()) is failure
