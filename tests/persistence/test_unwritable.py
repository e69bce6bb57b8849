"""A PostgreSQL that answers and stores nothing. tests/reliability does it to real servers, under load."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import httpx
import pytest

from persistence.postgres.connector import Connector
from persistence.postgres.database import Database
from persistence.postgres.pool import Pool
from persistence.sessions import Sessions
from tests.support.client import Browser
from tests.support.factories import chart
from tests.support.service import Backend, Service

NO_ROOM = """
    CREATE FUNCTION find_no_room() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$
"""


@pytest.fixture(scope="module")
def cookies(populated: tuple[Backend, dict[str, dict[str, str]], float]) -> dict[str, dict[str, str]]:
    return populated[1]


@contextmanager
def unseen(backend: Backend) -> Iterator[Service]:
    """On a database in which nobody was seen lately, so that the next request has that to note."""
    backend.sql("UPDATE sessions SET last_seen_at = now() - interval '1 hour'")
    with Service(backend, backend.settings()) as service:
        yield service


def degraded(service: Service) -> Any:
    ready = httpx.get(f"{service.url}/health/ready")
    assert ready.status_code == 200
    return ready.json()["degraded"]


def refusal(ask: Callable[[], httpx.Response]) -> tuple[int, bool]:
    answer = ask()
    return answer.status_code, "retry-after" in answer.headers


def test_where_nothing_can_be_stored_what_leaves_no_event_is_answered(
    backend: Backend, cookies: dict[str, dict[str, str]]
) -> None:
    own = backend.copy()
    name = own.sql("SELECT current_database() AS name")[0]["name"]
    own.sql("UPDATE sessions SET last_seen_at = now() - interval '1 hour'")
    own.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with Service(own, own.settings()) as service:
        doctor = Browser(service.url, dict(cookies["doctor"]))
        assert doctor.get("/api/doctors").status_code == 200
        assert refusal(lambda: doctor.get("/api/patients")) == (503, True)
        assert degraded(service) == ["database_read_only"]


def test_a_full_disk_is_told_until_something_is_stored_again(
    backend: Backend, cookies: dict[str, dict[str, str]]
) -> None:
    own = backend.copy()
    own.sql(NO_ROOM)
    own.sql("CREATE TRIGGER full_disk BEFORE INSERT ON patients EXECUTE FUNCTION find_no_room()")
    with unseen(own) as service:
        staff = Browser(service.url, dict(cookies["staff"]))
        assert degraded(service) == []
        assert refusal(lambda: staff.post("/api/patients", chart())) == (503, True)
        assert degraded(service) == ["database_full"]
        own.sql("DROP TRIGGER full_disk ON patients")
        assert staff.post("/api/patients", chart()).status_code == 201
        assert degraded(service) == []


def test_what_else_keeps_a_caller_from_being_seen_is_a_defect(backend: Backend) -> None:
    own = backend.copy()
    own.sql("UPDATE sessions SET last_seen_at = now() - interval '1 hour'")
    own.sql("ALTER TABLE sessions ADD CHECK (last_seen_at < now()) NOT VALID")
    [session] = own.sql("SELECT id FROM sessions LIMIT 1")

    async def find() -> None:
        async with Database(own.database_url) as database:
            with pytest.raises(asyncpg.CheckViolationError):
                await Sessions(database.reader, None).find(session["id"])

    asyncio.run(find())


@pytest.mark.parametrize(("hosts", "is_kept"), [(1, True), (2, False)])
def test_a_server_that_only_reads_is_left_where_there_is_another(
    servers: Backend, hosts: int, is_kept: bool
) -> None:
    start, folder = servers.database_url.split("?host=")

    async def main() -> bool:
        pool = Pool(Connector(f"{start}?host={','.join([folder] * hosts)}", 30), 1)
        connection = await pool.acquire()
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError) as raised:
            await connection.execute("BEGIN READ ONLY; CREATE TABLE refused ()")
        await connection.execute("ROLLBACK")
        pool.release(connection, raised.value)
        is_idle = bool(pool.idle)
        await pool.close()
        return is_idle

    assert asyncio.run(main()) is is_kept
