"""A PgBouncer beside each PostgreSQL, and DATABASE_URL names both: the standby is promoted."""

import asyncio
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from persistence import embedded
from persistence.embedded.folders import postgres_home
from persistence.embedded.processes import ServerGroup
from persistence.postgres.connector import Connector, NoConnectionError
from tests.external.pooler import start_pgbouncer
from tests.reliability.servers import Standby

HEALING_SECONDS = 30


async def is_standby(connection: asyncpg.Connection) -> bool:
    """Whether it leads to the server that was a standby at first."""
    try:
        name: str = await connection.fetchval("SELECT current_setting('cluster_name')")
        await connection.execute("CREATE TEMPORARY TABLE written ()")
    finally:
        await connection.close()
    return name == "standby"


def test_the_pooler_of_the_promoted_standby_is_found(tmp_path: Path) -> None:
    """Both poolers go on to let clients in, and to tell what they have heard of their servers before."""
    folder = tmp_path / "primary"
    with ExitStack() as cleanup:
        cleanup.callback(embedded.discard, folder)
        primary = cleanup.enter_context(embedded.start(folder, redis=False, durable=False))
        group = cleanup.enter_context(ServerGroup())
        (tmp_path / "standby").mkdir()
        standby = Standby(postgres_home(tmp_path / "standby", cleanup), group, cluster_name="standby")
        standby.copy(primary.database_url)
        standby.start()
        cleanup.callback(standby.stop)
        poolers = []
        for name, url in (("one", primary.database_url), ("two", standby.url)):
            (tmp_path / name).mkdir()
            poolers.append(cleanup.enter_context(start_pgbouncer(tmp_path / name, url, "transaction")))
        places = ",".join(urlsplit(url).netloc.rpartition("@")[2] for url in reversed(poolers))
        connector = Connector(f"postgresql://postgres@{places}/medisecure", 30)
        asyncio.run(find(connector, standby=False))
        primary.stop()
        standby.sql("SELECT pg_promote()")
        asyncio.run(find(connector, standby=True))


async def find(connector: Connector, *, standby: bool) -> None:
    deadline = time.monotonic() + HEALING_SECONDS
    while time.monotonic() < deadline:
        with suppress(NoConnectionError, OSError, asyncpg.PostgresError):
            assert await is_standby(await connector()) is standby
            return
        await asyncio.sleep(0.2)
    raise AssertionError("no connection")
