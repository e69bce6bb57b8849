"""What the errors of PostgreSQL's driver mean to the service; each is raised by the driver itself."""

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from persistence.postgres.failures import Failure, classify, is_connection_lost
from tests.support.relay import relayed
from tests.support.service import Backend

GOODBYE = b"SFATAL\0C57P01\0Mterminating connection due to administrator command\0\0"


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


def test_a_connection_on_which_postgresql_has_said_goodbye_is_lost(servers: Backend) -> None:
    """As where its postmaster was killed, and the end of the connection has not come yet."""

    async def use_dismissed() -> BaseException:
        folder = servers.database_url.split("host=")[1]
        async with relayed(f"{folder}/.s.PGSQL.5432") as relay:
            connection = await asyncpg.connect(
                host="127.0.0.1", port=relay.port, user="postgres", database="medisecure"
            )
            relay.say(b"E" + (len(GOODBYE) + 4).to_bytes(4, "big") + GOODBYE)
            await asyncio.sleep(0.1)
            with pytest.raises(asyncpg.InternalClientError) as raised:
                await connection.fetchval("SELECT 1")
            connection.terminate()
            error: BaseException = raised.value
            return error

    error = asyncio.run(use_dismissed())
    assert is_connection_lost(error)
    assert classify(error) is Failure.UNAVAILABLE
