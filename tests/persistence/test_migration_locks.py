"""Migrations run while the clinic works: what squawk says of the SQL that they send, and how they wait."""

import asyncio
import io
import subprocess
import threading
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory
from sqlalchemy.exc import DBAPIError

import persistence
from persistence.migrations.commands import commands
from persistence.migrations.revisions import HERE
from tests.support.command import SCRIPTS
from tests.support.service import Backend

CONFIG = Path(persistence.__file__).parents[1] / ".squawk.toml"
# Of before the rule, and why each may stay: it was run on every database there is.
OLD = {
    "0001": "made the tables, in a database that nobody used yet",
    "0002": "made the tables of the trail; its one index is of a new table",
    "0003": "looks at tables that are small: sessions live a week, and there is a seal each minute",
    "0004": "adds a column with a constant default, then writes the rows of linked charts, once",
    "0005": "checks the trail once: seconds for a million events, while nobody writes",
    "0006": "makes functions only",
    "0007": "writes the rows of odd e-mails only, once",
    "0008": "adds triggers in a moment; the counting goes on later",
    "0009": "makes functions only",
    "0010": "waits for a second for each lock, and tries again; indexes are built concurrently",
}
MIGRATIONS = {script.revision: script for script in ScriptDirectory(str(HERE)).walk_revisions()}


def statements_of(script: Script) -> str:
    """The SQL of the migration, as `alembic upgrade --sql` prints it."""
    config = Config(output_buffer=(printed := io.StringIO()))
    config.set_main_option("script_location", str(HERE))
    command.upgrade(config, f"{script.down_revision or 'base'}:{script.revision}", sql=True)
    return printed.getvalue()


def complaints_about(sql: str) -> str:
    """What squawk says; nothing, if nothing is wrong."""
    linted = subprocess.run(
        [SCRIPTS / "squawk", "--config", CONFIG, "--stdin-filepath", "migration.sql"],
        input=sql,
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if linted.returncode == 0 else linted.stdout + linted.stderr


def test_no_migration_stops_a_running_clinic_or_breaks_the_release_before() -> None:
    """contract: "every migration is expand, then contract"."""
    new = sorted(MIGRATIONS.keys() - OLD.keys())
    complaints = {revision: complaints_about(statements_of(MIGRATIONS[revision])) for revision in new}
    assert not any(complaints.values()), "\n".join(complaints.values())


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("ALTER TABLE users ADD COLUMN nick text", "require-lock-timeout"),
        ("CREATE INDEX users_phone_idx ON users (phone)", "require-concurrent-index-creation"),
        ("ALTER TABLE users ADD COLUMN nick text NOT NULL", "adding-required-field"),
        ("ALTER TABLE users ADD CONSTRAINT ck CHECK (phone <> '')", "constraint-missing-not-valid"),
        ("ALTER TABLE users ALTER COLUMN phone SET NOT NULL", "adding-not-nullable-field"),
        ("ALTER TABLE users ALTER COLUMN phone TYPE varchar(20)", "changing-column-type"),
        ("ALTER TABLE users DROP COLUMN phone", "ban-drop-column"),
        ("ALTER TABLE users RENAME COLUMN phone TO telephone", "renaming-column"),
        ("ALTER TABLE users RENAME TO people", "renaming-table"),
        ("DROP TABLE sessions", "ban-drop-table"),
        ("DROP FUNCTION next_audit_seal", "ban-drop-function"),
        ("DROP TYPE gender", "ban-drop-type"),
    ],
)
def test_the_lint_of_migrations_finds_what_stops_a_clinic(statement: str, rule: str) -> None:
    assert rule in complaints_about(f"BEGIN;\n{statement};\nCOMMIT;\n")


def test_the_lint_of_migrations_has_a_reason_for_each_one_before_it() -> None:
    assert sorted(OLD) == [f"{number:04}" for number in range(1, len(OLD) + 1)]
    assert "CREATE TABLE sessions" in statements_of(MIGRATIONS["0001"])  # so the SQL can be printed at all


@pytest.mark.slow
def test_a_migration_that_gets_no_lock_lets_others_work_and_tries_again(servers: Backend) -> None:
    """Somebody reads charts for long, which keeps the migration waiting, and nobody else."""
    backend = at_revision(servers, "0003")
    database = backend.sql("SELECT current_database()")[0][0]
    backend.sql(f"ALTER DATABASE {database} SET lock_timeout = '200ms'")
    upgrading = threading.Thread(target=commands(backend.database_url).upgrade, args=["0004"])

    async def read_charts_for_long() -> None:
        reader = await asyncpg.connect(backend.database_url)
        other = await asyncpg.connect(backend.database_url)
        async with reader.transaction():
            await reader.execute("SELECT FROM patients")
            upgrading.start()
            for _ in range(10):
                await asyncio.sleep(0.2)
                await other.execute("SET lock_timeout = '10s'; SELECT FROM patients")
            assert upgrading.is_alive()
        await reader.close()
        await other.close()

    asyncio.run(read_charts_for_long())
    upgrading.join()
    assert revision_of(backend) == "0004"


@pytest.mark.slow
def test_a_migration_that_fails_leaves_what_the_one_before_it_made(servers: Backend) -> None:
    backend = at_revision(servers, "0002")
    backend.sql("DROP TABLE patients CASCADE")
    with pytest.raises(DBAPIError, match="patients"):
        commands(backend.database_url).upgrade("0004")
    assert revision_of(backend) == "0003"


def at_revision(servers: Backend, revision: str) -> Backend:
    backend = servers.copy()
    commands(backend.database_url).downgrade(revision)
    return backend


def revision_of(backend: Backend) -> str:
    [row] = backend.sql("SELECT version_num FROM alembic_version")
    return str(row["version_num"])
