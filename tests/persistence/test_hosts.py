"""Several hosts in DATABASE_URL."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from persistence.postgres.connector import Connector, NoConnectionError
from persistence.postgres.database_url import each_host
from tests.support.service import Backend

ANY = "target_session_attrs=any"  # which one is wanted, the connector asks itself


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://u:p%40@a/db", ["postgresql://u:p%40@a/db"]),
        (
            "postgresql://u:p%40@a:1,[::1]:2/db?sslmode=require",
            [f"postgresql://u:p%40@{host}/db?sslmode=require&{ANY}" for host in ("a:1", "[::1]:2")],
        ),
        (
            "postgresql://u@/db?host=/a,/b&port=1,2&target_session_attrs=read-write",
            [f"postgresql://u@/db?host=%2F{host}&port={port}&{ANY}" for host, port in (("a", 1), ("b", 2))],
        ),
        ("postgresql://u@a,b/db?port=1,2,3", ["postgresql://u@a,b/db?port=1,2,3"]),  # which asyncpg refuses
        (
            "postgresql://u@a,b/db?target_session_attrs=prefer-standby",  # all must be looked at
            ["postgresql://u@a,b/db?target_session_attrs=prefer-standby"],
        ),
    ],
)
def test_each_host_has_a_url_of_its_own(url: str, hosts: list[str]) -> None:
    assert each_host(url) == hosts


@pytest.fixture
def silent() -> Iterator[int]:
    """A port at which connections are taken, and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_host_that_says_nothing_leaves_time_for_the_next_which_is_asked_first_then(
    servers: Backend, silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("persistence.postgres.connector.MAX_CONNECT_SECONDS", 2.0)
    folder = servers.database_url.split("host=")[1]
    hosts = f"host=127.0.0.1,{folder}&port={silent},5432"
    connector = Connector(f"postgresql://postgres@/medisecure?{hosts}", None)

    async def main() -> None:
        connection = await connector()
        await connection.close()
        assert folder.replace("/", "%2F") in connector.hosts[0]
        assert str(silent) in connector.hosts[1]

    asyncio.run(main())


@pytest.fixture(scope="module")
def reading(servers: Backend) -> str:
    """The URL of a role for which the server only reads."""
    servers.sql("CREATE ROLE reading LOGIN")
    servers.sql("ALTER ROLE reading SET default_transaction_read_only = on")
    return servers.as_role("reading").database_url


def test_a_host_that_only_reads_is_not_taken_for_one_that_writes(reading: str) -> None:
    with pytest.raises(NoConnectionError, match="target_session_attrs") as raised:
        asyncio.run(Connector(f"{reading}&target_session_attrs=read-write", None)())
    assert not raised.value.lasting


@pytest.mark.parametrize(
    ("options", "is_taken"),
    [
        ("", False),
        ("&target_session_attrs=read-write", False),
        ("&target_session_attrs=primary", True),
        ("&target_session_attrs=any", True),
    ],
)
def test_of_several_hosts_the_one_that_writes_is_wanted(reading: str, options: str, is_taken: bool) -> None:
    """If the URL does not say otherwise; a standby would be kept for ever."""
    start, folder = reading.split("?host=")

    async def main() -> None:
        connection = await Connector(f"{start}?host={folder},{folder}{options}", None)()
        await connection.close()

    if is_taken:
        asyncio.run(main())
    else:
        with pytest.raises(NoConnectionError, match="target_session_attrs"):
            asyncio.run(main())
