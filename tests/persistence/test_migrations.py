"""The migrations, on both PostgreSQLs that the wheels bring: there, back and there again; and several
processes that migrate at once."""

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from alembic.script import ScriptDirectory
from alembic.util import CommandError

import persistence
from persistence import embedded
from persistence.migrations.commands import commands, create_engine
from persistence.migrations.refolding import print_progress
from persistence.migrations.revisions import HERE, revisions
from persistence.models import Base
from tests.support.command import COMMAND, SCRIPTS, environment, medisecure
from tests.support.service import Backend

pytestmark = pytest.mark.slow

REPOSITORY = Path(persistence.__file__).parents[1]
LOCK = 0x6D656469  # of persistence/migrations/env.py

RELATIONS = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
TYPES = (
    "SELECT typname FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typtype IN ('e', 'd', 'r')"
)
FUNCTIONS = "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
# What makes a schema: columns, constraints with their definitions, indexes, and the values of closed sets.
SCHEMA = """
SELECT format('%s.%s %s %s %s %s', table_name, column_name, udt_name, is_nullable, column_default,
              collation_name)
  FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
  WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND table_name <> 'alembic_version'
UNION ALL
SELECT format('%s %s: %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
  FROM pg_constraint
  WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'alembic_version'
    AND contype <> 'n'
UNION ALL
SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'
UNION ALL
SELECT format('%s: %s', enumtypid::regtype, string_agg(enumlabel, ', ' ORDER BY enumsortorder))
  FROM pg_enum GROUP BY enumtypid
ORDER BY 1
"""
PERSON = (
    "INSERT INTO users (id, email, password_hash, name, role, status, sort_name, search_text) VALUES "
    "(gen_random_uuid(), 'a@example.com', 'none', 'Ada', 'admin', 'active', 'ada', 'ada')"
)


@pytest.fixture(scope="module", params=[18, 16])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """PostgreSQL 18, that of the other tests, and a 16."""
    with ExitStack() as ending:
        if request.param == 18:
            yield request.getfixturevalue("servers")
            return
        folder = tmp_path_factory.mktemp("postgresql-16")
        ending.callback(embedded.discard, folder)
        servers = ending.enter_context(
            embedded.start(folder, redis=False, durable=False, version=request.param)
        )
        yield Backend(servers.database_url, "")


@pytest.fixture
def empty(server: Backend) -> Backend:
    """A database with nothing in it."""
    name = f"empty_{uuid4().hex}"
    server.sql(f"CREATE DATABASE {name}")
    return Backend(server.database_url.replace("/medisecure?", f"/{name}?"), "")


def column(backend: Backend, query: str) -> list[str]:
    return [row[0] for row in backend.sql(query)]


def test_migrations_run_up_down_and_up_again(server: Backend, empty: Backend) -> None:
    assert column(empty, "SHOW server_version")[0].split(".")[0] in {"16", "18"}
    assert column(empty, RELATIONS) == []
    alembic = commands(empty.database_url)

    alembic.upgrade()
    made = column(empty, SCHEMA)
    assert {"users", "sessions", "patients", "appointments", "medical_records"} <= set(
        column(empty, RELATIONS)
    )
    alembic.check()

    alembic.downgrade("base")
    assert column(empty, RELATIONS) == ["alembic_version", "alembic_version_pkc"]
    assert column(empty, "SELECT version_num FROM alembic_version") == []
    assert column(empty, TYPES) == []
    assert column(empty, FUNCTIONS) == []

    alembic.upgrade()
    assert column(empty, SCHEMA) == made


def test_the_migrations_make_what_the_models_say(server: Backend, empty: Backend) -> None:
    """Alembic's own check does not look at exclusion and check constraints, nor into indexes on
    expressions; so compare with what the models alone make."""
    name = f"models_{uuid4().hex}"
    server.sql(f"CREATE DATABASE {name}")
    modelled = Backend(server.database_url.replace("/medisecure?", f"/{name}?"), "")

    async def create() -> None:
        engine = create_engine(modelled.database_url)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        await engine.dispose()

    asyncio.run(create())
    commands(empty.database_url).upgrade()
    migrated = column(empty, SCHEMA)
    assert migrated == column(modelled, SCHEMA)
    assert sum("EXCLUDE USING gist" in line for line in migrated) == 2


def test_charts_that_were_linked_before_the_upgrade_are_known(empty: Backend) -> None:
    """Those that are, and those of which the trail says so; a refused link is none."""
    alembic = commands(empty.database_url)
    alembic.upgrade("0003")
    empty.sql(PERSON)
    names = ["linked", "by event", "by undoing", "refused", "never"]
    for name in names:
        empty.sql(
            "INSERT INTO patients (id, user_id, name, email, phone, date_of_birth, gender, address, "
            "sort_name, search_text) SELECT gen_random_uuid(), CASE WHEN $1 = 'linked' THEN id END, $1, '', "
            "'', '2000-01-01', 'other', '', '', '' FROM users",
            name,
        )
    for name, action, outcome in (
        ("by event", "patient.link", "success"),
        ("by undoing", "patient.unlink", "success"),
        ("refused", "patient.link", "refused"),
        ("never", "patient.read", "success"),
    ):
        empty.sql(
            "INSERT INTO audit_events (at, action, outcome, patient_id, target_id, target_ids, patient_ids, "
            "address, request_id) SELECT now(), $2, $3, id, gen_random_uuid(), '{}', ARRAY[id], 'x', "
            "gen_random_uuid() FROM patients WHERE name = $1",
            name,
            action,
            outcome,
        )
    alembic.upgrade()
    known = column(empty, "SELECT name FROM patients WHERE ever_linked ORDER BY name")
    assert known == ["by event", "by undoing", "linked"]


def test_emails_become_what_the_service_compares(empty: Backend) -> None:
    """NFC, where no other account has that; of several the oldest. A chart's loses the white space around."""
    alembic = commands(empty.database_url)
    alembic.upgrade("0006")
    first, second, third = "jose\u0301@x.example", "a\u0301\u0323@x.example", "a\u0323\u0301@x.example"
    for account in (first, second, third, "e\u0301@x.example", "\u00e9@x.example"):
        empty.sql(PERSON.replace("a@example.com", account))
    empty.sql(
        "INSERT INTO patients (id, name, email, phone, date_of_birth, gender, address, sort_name, "
        "search_text) VALUES (gen_random_uuid(), 'x', E' a@b.c\\t', '1', '2000-01-01', 'other', 'x', '', '')"
    )
    alembic.upgrade()
    assert set(column(empty, "SELECT email FROM users")) == {
        "jos\u00e9@x.example",
        "\u1ea1\u0301@x.example",
        third,
        "e\u0301@x.example",
        "\u00e9@x.example",
    }
    assert column(empty, "SELECT email FROM patients") == ["a@b.c"]


CHART = (
    "INSERT INTO patients (id, name, email, phone, date_of_birth, gender, address, sort_name, search_text) "
    "VALUES (gen_random_uuid(), $1, '\u00e4@x.example', '+1 (2) 3', '2000-01-01', 'other', 'x', lower($1), "
    "lower($1) || U&'\\FFFF' || '\u00e4@x.example' || U&'\\FFFF' || '+1 (2) 3')"
)  # as releases before 0010 store it
KEYS = "SELECT format('%s %s', sort_name, cardinality(trigrams) > 10) FROM patients ORDER BY 1"
WORDS = "SELECT name FROM patients WHERE search_text LIKE '%' || $1 || '%' ORDER BY name"


def names(backend: Backend, word: str) -> list[str]:
    return [row[0] for row in backend.sql(WORDS, word)]


def test_migrating_makes_the_search_keys_of_every_row_anew(empty: Backend) -> None:
    """Of every row; an older release that still runs finds them as it did, and what it stores from then on is
    made anew by the next `medisecure migrate`."""
    alembic = commands(empty.database_url)
    alembic.upgrade("0009")
    empty.sql(PERSON.replace("'ada', 'ada'", "'\u00e1da', '\u00e1da'").replace("'Ada'", "'\u00c1da'"))
    for name in ("\u00c9mile", "Zoe"):
        empty.sql(CHART, name)
    alembic.upgrade()
    assert column(empty, KEYS) == ["emile t", "zoe t"]
    assert column(empty, "SELECT sort_name FROM users") == ["ada"]
    for word in ("emile", "\u00e9mile"):  # the latter as before
        assert names(empty, word) == ["\u00c9mile"]
    assert names(empty, "+123") == names(empty, "a@x") == ["Zoe", "\u00c9mile"]

    empty.sql(CHART, "\u00c1ngel")
    empty.sql(
        "UPDATE patients SET name = '\u00d6zge', sort_name = '\u00f6zge', search_text = '\u00f6zge' "
        "WHERE name = 'Zoe'"
    )
    assert column(empty, "SELECT name FROM patients WHERE trigrams IS NULL") == []
    assert names(empty, "\u00f6zge") == ["\u00d6zge"]
    migrated = medisecure("migrate", DATABASE_URL=empty.database_url)
    assert migrated.returncode == 0, migrated.stderr
    assert column(empty, KEYS) == ["angel t", "emile t", "ozge t"]
    assert names(empty, "+123") == ["\u00c1ngel", "\u00c9mile", "\u00d6zge"]


def test_search_keys_are_made_anew_while_others_write(empty: Backend) -> None:
    """A table or a row that somebody holds is waited for, and a row's keys are made of what they wrote.
    Others can write meanwhile; and after a migration that was killed two at once end it."""
    commands(empty.database_url).upgrade("0009")
    for number in range(5):
        empty.sql(CHART, f"Ren\u00e9 {number}")
    rewriting = (
        "UPDATE patients SET name = $1, sort_name = lower($1), search_text = lower($1) "
        "WHERE name = 'Ren\u00e9 3'"
    )
    settings = environment(DATABASE_URL=empty.database_url)
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'trigrams|held'"
    )

    async def interfere(name: str) -> list[int]:
        holder, other = [await asyncpg.connect(empty.database_url) for _ in range(2)]
        async with holder.transaction():
            await holder.execute(rewriting, name)
            first = await asyncio.create_subprocess_exec(COMMAND, "migrate", env=settings)
            await until(other, waiting)
            first.kill()
            await first.wait()
            processes = [
                await asyncio.create_subprocess_exec(COMMAND, "migrate", env=settings) for _ in range(2)
            ]
            free = "UPDATE patients SET phone = '+9' WHERE name = 'Zed'"
            await asyncio.wait_for(other.execute(free), timeout=30)
            await asyncio.sleep(1)
        statuses = [await process.wait() for process in processes]
        await holder.close()
        await other.close()
        return statuses

    assert asyncio.run(interfere("Zo\u00eb")) == [0, 0]
    assert column(empty, KEYS) == ["rene 0 t", "rene 1 t", "rene 2 t", "rene 4 t", "zoe t"]
    commands(empty.database_url).check()
    for number in (3, 5):
        empty.sql(CHART, f"Ren\u00e9 {number}")
    assert asyncio.run(interfere("\u00c1ngel")) == [0, 0]
    assert column(empty, KEYS)[0] == "angel t"
    stale = "SELECT name FROM patients WHERE NOT starts_with(search_text, U&'\\FFFF')"
    assert column(empty, stale) == []


async def until(connection: asyncpg.Connection, query: str) -> None:
    deadline = time.monotonic() + 60
    while not await connection.fetchval(query):
        assert time.monotonic() < deadline, query
        await asyncio.sleep(0.05)


def test_a_migrated_database_is_left_alone(empty: Backend) -> None:
    for _ in range(2):
        migrated = medisecure("migrate", DATABASE_URL=empty.database_url)
        assert migrated.returncode == 0, migrated.stderr
        empty.sql(PERSON.replace("a@example.com", f"{uuid4().hex}@example.com"))
    assert column(empty, "SELECT name FROM users") == ["Ada", "Ada"]


def test_two_processes_may_migrate_at_once(empty: Backend) -> None:
    """Hold them both at the lock, so that they meet every time and not once in a while."""
    trying = (
        "SELECT count(*) FROM pg_stat_activity WHERE query ~ 'pg_try_advisory_xact_lock|ROLLBACK' "
        "AND pid <> pg_backend_pid() AND datname = current_database()"
    )

    async def meet() -> list[int]:
        doorkeeper = await asyncpg.connect(empty.database_url)
        await doorkeeper.execute(f"SELECT pg_advisory_lock({LOCK})")
        processes = [
            await asyncio.create_subprocess_exec(
                COMMAND, "migrate", env=environment(DATABASE_URL=empty.database_url)
            )
            for _ in range(2)
        ]
        deadline = time.monotonic() + 60
        while await doorkeeper.fetchval(trying) < 2:
            assert time.monotonic() < deadline, "they do not wait for each other"
            assert [process.returncode for process in processes] == [None, None]
            await asyncio.sleep(0.05)
        await doorkeeper.close()  # opens the door
        return [await process.wait() for process in processes]

    assert asyncio.run(meet()) == [0, 0]
    commands(empty.database_url).check()


def test_the_plain_alembic_command_reads_the_same_variable(empty: Backend) -> None:
    commands(empty.database_url).upgrade()
    checked = subprocess.run(
        [SCRIPTS / "alembic", "check"],
        cwd=REPOSITORY,
        env=environment(DATABASE_URL=empty.database_url),
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    empty.sql("ALTER TABLE patients DROP COLUMN blood_type CASCADE")  # with the trigger that watches it
    with pytest.raises(CommandError, match="blood_type"):
        commands(empty.database_url).check()


def test_the_files_name_the_revisions_as_alembic_does() -> None:
    script = ScriptDirectory(str(HERE))
    ours = {revision.revision for revision in script.walk_revisions()}
    assert revisions() == (ours, set(script.get_heads()))


def test_migrating_shows_its_progress_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, ours = os.openpty()
    with os.fdopen(ours, "w") as screen:
        monkeypatch.setattr("sys.stderr", screen)
        print_progress("patients: 1,000 of 2,000", is_last=False)
        print_progress("patients: 2,000 of 2,000", is_last=True)
        shown = b""
        while not shown.endswith(b"\n"):
            shown += os.read(terminal, 1000)
        assert shown == b"\rpatients: 1,000 of 2,000\rpatients: 2,000 of 2,000\r\n"
    os.close(terminal)
