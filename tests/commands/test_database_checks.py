"""What `serve`, `dev` and `migrate` ask of PostgreSQL before they start (api/commands/checks.py);
/health/ready asks for the tables and the rights again."""

import asyncio
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest

from api.commands.checks import ask_database, first_problem
from persistence.fitness import NEEDED
from persistence.migrations.revisions import is_behind
from persistence.models import Base
from persistence.postgres.database import Database
from tests.support.command import Refusal, find_problem_of, granted_role, medisecure, settings_of
from tests.support.service import Backend, Service
from tests.support.statements import run_sql


def name_of(backend: Backend) -> str:
    return str(backend.sql("SELECT current_database()")[0][0])


@pytest.mark.slow
def test_serve_and_migrate_refuse_a_database_that_is_not_utf8(new_database: Callable[..., Backend]) -> None:
    latin = new_database("ENCODING latin1 TEMPLATE template0 LOCALE 'C'")
    assert find_problem_of(latin).startswith("the database holds text in LATIN1")
    refused = medisecure("migrate", DATABASE_URL=latin.database_url)
    assert refused.returncode == 1
    assert refused.stderr.startswith("medisecure: the database holds text in LATIN1")
    assert latin.sql("SELECT 1 FROM pg_tables WHERE schemaname = 'public'") == []


def test_serve_refuses_a_postgresql_that_takes_no_writes(migrated: Backend) -> None:
    """A standby says the same of itself."""
    migrated.sql(f"ALTER DATABASE {name_of(migrated)} SET default_transaction_read_only = on")
    assert "takes no writes" in find_problem_of(migrated)


def test_serve_refuses_a_postgresql_that_is_too_old(unmigrated: Backend) -> None:
    """`current_setting` says how old it is; here a function of another schema answers in its place."""
    unmigrated.sql("CREATE SCHEMA old")
    unmigrated.sql(
        "CREATE FUNCTION old.current_setting(name text) RETURNS text LANGUAGE sql AS $$ SELECT CASE name "
        "WHEN 'server_version' THEN '14.9' WHEN 'server_version_num' THEN '140009' "
        "ELSE pg_catalog.current_setting(name) END $$"
    )
    unmigrated.sql(f"ALTER DATABASE {name_of(unmigrated)} SET search_path = old, public, pg_catalog")
    assert find_problem_of(unmigrated) == "PostgreSQL 14.9 is too old; the service needs 15 or newer"


def test_serve_refuses_a_role_with_too_few_connections(migrated: Backend) -> None:
    role = f"few_{uuid4().hex[:12]}"
    migrated.sql(f"CREATE ROLE {role} LOGIN SUPERUSER CONNECTION LIMIT 30")
    few = migrated.as_role(role)
    assert find_problem_of(few) == ""
    assert find_problem_of(few, workers=2).startswith(
        "PostgreSQL allows 30 connections, and the service may need 44"
    )
    migrated.sql(f"DROP ROLE {role}")


@pytest.fixture
def app(migrated: Backend) -> Iterator[Backend]:
    """The database `migrated`, as a role sees it that may do what the service needs."""
    with granted_role(migrated) as app:
        yield app


@pytest.mark.slow
@pytest.mark.parametrize(
    ("revoked", "lacking"),
    [
        ("INSERT, UPDATE ON sessions", "INSERT, UPDATE on sessions"),
        ("SELECT ON users", "SELECT on users"),
        ("INSERT ON audit_events", "INSERT on audit_events"),
        ("SELECT ON alembic_version", "SELECT on alembic_version"),
    ],
)
def test_a_role_that_lacks_a_right_is_refused_and_not_ready(
    migrated: Backend, app: Backend, revoked: str, lacking: str
) -> None:
    name = app.sql("SELECT current_user")[0][0]
    with Service(app, app.settings()) as service:
        assert service.browser().get("/health/ready").status_code == 200
        migrated.sql(f"REVOKE {revoked} FROM {name}")
        unready = service.browser().get("/health/ready")
        assert unready.status_code == 503
        assert "retry-after" in unready.headers
        assert lacking.split()[-1] not in unready.text
        assert service.browser().get("/health/live").status_code == 200
    assert find_problem_of(app) == (
        f"the database's role {name} lacks {lacking}; as the owner run `medisecure migrate --grant-to {name}`"
    )


def test_every_table_says_what_the_service_does_with_it() -> None:
    """Of the sealer's and the counters' own tables, functions of their owner do everything."""
    of_their_owner = {"audit_seals", "audit_count"}
    missing = "name each table in NEEDED of persistence/fitness.py, or here"
    assert set(Base.metadata.tables) - of_their_owner <= set(NEEDED), missing


@pytest.mark.slow
def test_serve_refuses_a_role_that_may_not_use_the_schema(migrated: Backend, app: Backend) -> None:
    migrated.sql(f"REVOKE USAGE ON SCHEMA public FROM public, {app.sql('SELECT current_user')[0][0]}")
    assert "lacks USAGE on the schema public" in find_problem_of(app)


def test_a_database_without_tables_is_refused_and_not_ready(unmigrated: Backend) -> None:
    assert find_problem_of(unmigrated).endswith("run `medisecure migrate` first")
    with Service(unmigrated, unmigrated.settings()) as service:
        assert service.browser().get("/health/ready").status_code == 503


def test_serve_refuses_a_file_of_certificates_that_has_none(servers: Backend) -> None:
    url = f"postgresql://somebody@127.0.0.1:1/medisecure?sslmode=verify-ca&sslrootcert={__file__}"
    assert find_problem_of(Backend(url, servers.redis_url)) == (
        "the database cannot be used: TLS: NO_CERTIFICATE_OR_CRL_FOUND"
    )


@pytest.mark.slow
def test_serve_refuses_passwords_that_everyone_knows(migrated: Backend) -> None:
    settings = settings_of(migrated)
    assert medisecure("load-demo", "--yes-known-passwords", **settings).returncode == 0
    refused = medisecure("serve", "--port", "0", **settings)
    assert refused.returncode == 1
    assert "admin@example.com" in refused.stderr
    assert "set-password" in refused.stderr


def test_serve_refuses_a_time_zone_that_postgresql_does_not_know(migrated: Backend) -> None:
    problem = find_problem_of(migrated, clinic_timezone="localtime")
    assert "does not know the time zone localtime" in problem


@pytest.mark.slow
def test_serve_refuses_a_database_that_lacks_a_migration_and_not_one_that_is_ahead(migrated: Backend) -> None:
    settings = settings_of(migrated)
    [[head]] = migrated.sql("SELECT version_num FROM alembic_version")
    for older in ("UPDATE alembic_version SET version_num = '0001'", "DELETE FROM alembic_version"):
        migrated.sql(older)
        refused = medisecure("serve", "--port", "0", **settings)
        assert refused.returncode == 1
        assert "run `medisecure migrate` first" in refused.stderr
    assert not asyncio.run(is_behind_after(migrated, f"INSERT INTO alembic_version VALUES ('{head}')"))
    assert not asyncio.run(
        is_behind_after(migrated, "UPDATE alembic_version SET version_num = 'of_next_year'")
    )


async def is_behind_after(backend: Backend, statement: str) -> bool:
    database = Database(backend.database_url)
    try:
        async with database.transaction() as transaction:
            await run_sql(transaction, statement)
        return await is_behind(database.reader)
    finally:
        await database.close()


def test_migrate_refuses_a_database_of_a_later_release(migrated: Backend, refusal: Refusal) -> None:
    migrated.sql("UPDATE alembic_version SET version_num = '9999'")
    refused = refusal("migrate", DATABASE_URL=migrated.database_url)
    assert refused.startswith("medisecure: the database is not one of this release: ")
    assert migrated.sql("SELECT version_num FROM alembic_version") == [("9999",)]


def test_a_check_that_postgresql_refuses_is_a_problem(migrated: Backend) -> None:
    async def ask_too_much(database: Database) -> None:
        await run_sql(database.reader, "SELECT 1 / 0")

    problem = asyncio.run(ask_database(migrated.database_url, ask_too_much))
    assert problem == "the database cannot be used: division by zero"


def test_a_defect_of_a_check_is_not_hidden() -> None:
    async def fail() -> None:
        raise LookupError("a defect")

    async def find_nothing() -> None:
        return None

    with pytest.raises(LookupError, match="a defect"):
        asyncio.run(first_problem(find_nothing(), fail()))
