"""Two instances that migrate at once, from before each revision, on a clinic with data."""

import asyncio

import asyncpg
import pytest
from alembic.script import ScriptDirectory

from persistence.migrations.commands import commands
from persistence.migrations.revisions import HERE
from tests.persistence.test_migrations import LOCK, SCHEMA, column
from tests.support.command import COMMAND, environment
from tests.support.factories import World
from tests.support.service import Backend, Service

pytestmark = pytest.mark.slow

BEFORE = [script.down_revision or "base" for script in ScriptDirectory(str(HERE)).walk_revisions()]
TABLES = ("users", "patients", "appointments", "medical_records", "audit_events")
WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE query ~ 'pg_try_advisory_xact_lock|ROLLBACK' "
    "AND pid <> pg_backend_pid() AND datname = current_database()"
)


@pytest.fixture(scope="module")
def filled(backend: Backend, populated: tuple[Backend, dict[str, dict[str, str]], float]) -> Backend:
    """A clinic that nobody uses any more."""
    with Service(backend, backend.settings()) as service:
        world = World(service, {name: service.browser(dict(jar)) for name, jar in populated[1].items()})
        world.link(world.chart()["id"], world.patient)
        world.record(world.appointment()["patientId"])
    return backend


def rows(backend: Backend) -> dict[str, int]:
    """How many are in each table that is there."""
    there = [table for table in TABLES if backend.sql("SELECT to_regclass($1)", table)[0][0]]
    return {table: backend.sql(f"SELECT count(*) FROM {table}")[0][0] for table in there}


async def race(url: str) -> list[int]:
    """The exit statuses of two `medisecure migrate`, let go once both wait at the door."""
    doorkeeper = await asyncpg.connect(url)
    await doorkeeper.execute(f"SELECT pg_advisory_lock({LOCK})")
    settings = environment(DATABASE_URL=url)
    processes = [await asyncio.create_subprocess_exec(COMMAND, "migrate", env=settings) for _ in range(2)]
    async with asyncio.timeout(180):
        while await doorkeeper.fetchval(WAITING) < 2:
            assert [process.returncode for process in processes] == [None, None]
            await asyncio.sleep(0.05)
    await doorkeeper.close()
    return [await process.wait() for process in processes]


@pytest.mark.parametrize("revision", BEFORE)
def test_two_instances_may_race_in_every_migration(revision: str, filled: Backend) -> None:
    """contract: "safe to run from several instances at once"."""
    schema = column(filled, SCHEMA)
    backend = filled.copy()
    commands(backend.database_url).downgrade(revision)
    kept = rows(backend)
    assert asyncio.run(race(backend.database_url)) == [0, 0]
    assert column(backend, SCHEMA) == schema
    assert rows(backend) == dict.fromkeys(TABLES, 0) | kept
    assert column(backend, "SELECT id FROM patients WHERE trigrams IS NULL") == []
    commands(backend.database_url).check()
