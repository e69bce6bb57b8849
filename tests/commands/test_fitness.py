"""Servers that cannot carry the service are refused at the start, with what to do, and never called ready;
those that are only away are waited for."""

import asyncio
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import redis

from api.commands.checks import UnreachableError, find_problem
from persistence import embedded
from persistence.embedded.valkey import find_program
from tests.commands.test_commands import Running, started, until
from tests.support.command import medisecure
from tests.support.factories import PASSWORD, registration
from tests.support.service import KEY, Backend, Service

RIGHTS = "medisecure migrate --grant-to"


def objection_to(backend: Backend, workers: int = 1) -> str:
    return str(asyncio.run(find_problem(backend.settings(), workers)))


def environment(backend: Backend) -> dict[str, str]:
    return {"DATABASE_URL": backend.database_url, "REDIS_URL": backend.redis_url, "SECRET_KEY": KEY}


def another(servers: Backend, options: str = "") -> Backend:
    """A new database, with no tables in it."""
    name = f"other_{uuid4().hex}"
    servers.sql(f"CREATE DATABASE {name} {options}")
    return Backend(servers.database_url.replace("/medisecure?", f"/{name}?"), servers.redis_url)


def name_of(backend: Backend) -> str:
    return str(backend.sql("SELECT current_database()")[0][0])


# PostgreSQL


def test_a_database_that_has_no_place_for_every_name(servers: Backend) -> None:
    latin = another(servers, "ENCODING latin1 TEMPLATE template0 LOCALE 'C'")
    assert objection_to(latin).startswith("the database holds text in LATIN1")
    migrated = medisecure("migrate", DATABASE_URL=latin.database_url)
    assert migrated.returncode == 1
    assert migrated.stderr.startswith("medisecure: the database holds text in LATIN1")
    assert latin.sql("SELECT 1 FROM pg_tables WHERE schemaname = 'public'") == []


def test_a_server_that_takes_no_writes(servers: Backend) -> None:
    """As a standby says of itself too."""
    reading = servers.copy()
    reading.sql(f"ALTER DATABASE {name_of(reading)} SET default_transaction_read_only = on")
    assert "takes no writes" in objection_to(reading)


def test_a_server_that_is_too_old(servers: Backend) -> None:
    """It says so in `current_setting`, which here another schema's function answers."""
    old = another(servers)
    old.sql("CREATE SCHEMA old")
    old.sql(
        "CREATE FUNCTION old.current_setting(name text) RETURNS text LANGUAGE sql AS $$ SELECT CASE name "
        "WHEN 'server_version' THEN '14.9' WHEN 'server_version_num' THEN '140009' "
        "ELSE pg_catalog.current_setting(name) END $$"
    )
    old.sql(f"ALTER DATABASE {name_of(old)} SET search_path = old, public, pg_catalog")
    assert objection_to(old) == "PostgreSQL 14.9 is too old; the service needs 15 or newer"


def test_fewer_connections_than_the_service_may_open(servers: Backend) -> None:
    copy = servers.copy()
    role = f"few_{uuid4().hex[:12]}"
    copy.sql(f"CREATE ROLE {role} LOGIN SUPERUSER CONNECTION LIMIT 30")
    few = Backend(copy.database_url.replace("postgres@", f"{role}@"), copy.redis_url)
    assert objection_to(few) == "None"
    assert objection_to(few, workers=2).startswith(
        "PostgreSQL allows 30 connections, and the service may need 44"
    )
    copy.sql(f"DROP ROLE {role}")


@pytest.fixture
def role(servers: Backend) -> Iterator[tuple[Backend, Backend]]:
    """A database as its owner sees it, and as a role does that may do what the service needs."""
    owner, name = servers.copy(), f"app_{uuid4().hex[:12]}"
    owner.sql(f"CREATE ROLE {name} LOGIN")
    granted = medisecure("migrate", "--grant-to", name, **environment(owner))
    assert granted.returncode == 0, granted.stderr
    yield owner, Backend(owner.database_url.replace("postgres@", f"{name}@"), owner.redis_url)
    owner.sql(f"DROP OWNED BY {name}")
    owner.sql(f"DROP ROLE {name}")


@pytest.mark.parametrize(
    ("revoked", "lacking"),
    [
        ("INSERT, UPDATE ON sessions", "INSERT, UPDATE on sessions"),
        ("SELECT ON users", "SELECT on users"),
        ("INSERT ON audit_events", "INSERT on audit_events"),
        ("SELECT ON alembic_version", "SELECT on alembic_version"),
    ],
)
def test_a_role_without_its_rights(role: tuple[Backend, Backend], revoked: str, lacking: str) -> None:
    owner, app = role
    name = app.sql("SELECT current_user")[0][0]
    with Service(app, app.settings()) as service:
        assert service.browser().get("/health/ready").status_code == 200
        owner.sql(f"REVOKE {revoked} FROM {name}")
        unready = service.browser().get("/health/ready")
        assert unready.status_code == 503
        assert "retry-after" in unready.headers
        assert lacking.split()[-1] not in unready.text
        assert service.browser().get("/health/live").status_code == 200
    assert objection_to(app) == (
        f"the database's role {name} lacks {lacking}; as the owner run `{RIGHTS} {name}`"
    )


def test_a_role_that_does_not_see_the_tables(role: tuple[Backend, Backend]) -> None:
    owner, app = role
    owner.sql(f"REVOKE USAGE ON SCHEMA public FROM public, {app.sql('SELECT current_user')[0][0]}")
    assert "lacks USAGE on the schema public" in objection_to(app)


def test_a_database_without_tables_is_not_ready(servers: Backend) -> None:
    empty = another(servers)
    assert objection_to(empty).endswith("run `medisecure migrate` first")
    with Service(empty, empty.settings()) as service:
        assert service.browser().get("/health/ready").status_code == 503


def test_certificates_that_are_none(servers: Backend) -> None:
    url = f"postgresql://somebody@127.0.0.1:1/medisecure?sslmode=verify-ca&sslrootcert={__file__}"
    assert objection_to(Backend(url, servers.redis_url)) == (
        "the database cannot be used: TLS: NO_CERTIFICATE_OR_CRL_FOUND"
    )


# Redis


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of one whose configuration may be spoilt."""
    folder = tmp_path_factory.mktemp("valkey")
    with embedded.start(folder, postgres=False) as servers:
        yield servers.redis_url
    embedded.discard(folder)


Configure = Callable[["redis.Redis"], object]
SPOILT: dict[str, tuple[Configure, Configure, str]] = {
    "a replica": (
        lambda server: server.execute_command("REPLICAOF", "127.0.0.1", "1"),
        lambda server: server.execute_command("REPLICAOF", "NO", "ONE"),
        "read only replica",
    ),
    "no scripts": (
        lambda server: server.execute_command("ACL", "SETUSER", "default", "-@scripting"),
        lambda server: server.execute_command("ACL", "SETUSER", "default", "+@all"),
        "let the user run EVAL, EVALSHA and SCRIPT",
    ),
    "no command of a script": (
        lambda server: server.execute_command("ACL", "SETUSER", "default", "-pexpire", "-expire"),
        lambda server: server.execute_command("ACL", "SETUSER", "default", "+@all"),
        "let the user run all that scripts run",
    ),
    "other keys": (
        lambda server: server.execute_command("ACL", "SETUSER", "default", "resetkeys", "~clinic:*"),
        lambda server: server.execute_command("ACL", "SETUSER", "default", "allkeys"),
        "on the keys login:*, requests:* and session:*",
    ),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_redis_that_cannot_do_what_the_service_needs(servers: Backend, valkey: str, what: str) -> None:
    """Nobody could sign in there: the start is refused, and a running service is not ready."""
    spoil, mend, said = SPOILT[what]
    backend = Backend(servers.copy().database_url, valkey)
    person = registration()
    with Service(backend, backend.settings()) as service, backend.redis as server:
        anyone = service.browser()
        assert anyone.post("/api/auth/register", person).status_code == 201
        assert anyone.get("/health/ready").status_code == 200
        spoil(server)
        try:
            refused = objection_to(backend)
            assert refused.startswith("Redis cannot do what the service needs: ")
            assert said in refused
            assert anyone.get("/health/ready").status_code == 503
            assert anyone.get("/health/live").status_code == 200
            assert anyone.login(person["email"], PASSWORD).status_code == 503
        finally:
            mend(server)
        assert anyone.get("/health/ready").status_code == 200
    assert objection_to(backend) == "None"


def test_a_redis_that_wants_a_password(servers: Backend, valkey: str) -> None:
    path = valkey.removeprefix("unix://")
    with redis.Redis.from_url(valkey) as server:
        server.config_set("requirepass", "hush-hush")
        try:
            for url in (valkey, f"unix://:another@{path}"):
                refused = objection_to(Backend(servers.database_url, url))
                assert refused.endswith("; give REDIS_URL the user name and the password")
            assert objection_to(Backend(servers.database_url, f"unix://:hush-hush@{path}")) == "None"
        finally:
            server.config_set("requirepass", "")
    assert "name a database in REDIS_URL that it has" in objection_to(
        Backend(servers.database_url, f"{valkey}?db=99")
    )


def test_a_redis_that_says_nothing_about_itself_will_do(servers: Backend, valkey: str) -> None:
    """As managed ones do."""
    with redis.Redis.from_url(valkey) as server:
        server.execute_command("ACL", "SETUSER", "default", "-info", "-config")
        try:
            assert objection_to(Backend(servers.database_url, valkey)) == "None"
        finally:
            server.execute_command("ACL", "SETUSER", "default", "+@all")


def test_a_redis_that_drops_counters_is_warned_of(
    servers: Backend, valkey: str, caplog: pytest.LogCaptureFixture
) -> None:
    backend = Backend(servers.database_url, valkey)
    with backend.redis as server:
        server.config_set("maxmemory", "100mb")
        server.config_set("maxmemory-policy", "volatile-lru")
        try:
            assert objection_to(backend) == "None"
        finally:
            server.config_set("maxmemory-policy", "noeviction")
    assert "Redis may drop counters when it is full (volatile-lru)" in caplog.text


def test_a_full_redis_is_waited_for(servers: Backend, valkey: str) -> None:
    backend = Backend(servers.database_url, valkey)
    with backend.redis as server:
        server.config_set("maxmemory", "1")
        try:
            with pytest.raises(UnreachableError, match="used memory"):
                objection_to(backend)
        finally:
            server.config_set("maxmemory", "0")


def test_a_cluster_is_refused(servers: Backend, tmp_path: Path) -> None:
    """The keys of a script lie on several of its nodes."""
    program = find_program()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    arguments = ["--port", str(port), "--cluster-enabled", "yes", "--cluster-port", "0", "--save", ""]
    if port > 55535:  # the bus is at port + 10000 unless it is told
        arguments[5] = str(port - 10000)
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([program, *arguments], cwd=tmp_path, stdout=log, stderr=log)
    try:
        with redis.Redis(port=port) as server:

            def is_formed() -> bool:
                with suppress(redis.ConnectionError):
                    return b"cluster_state:ok" in server.execute_command("CLUSTER", "INFO")
                return False

            until(lambda: tries(server), "an answer")
            server.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            until(is_formed, "the cluster")
        refused = objection_to(Backend(servers.database_url, f"redis://127.0.0.1:{port}"))
        assert refused.endswith("; name a Redis in REDIS_URL that is no cluster")
    finally:
        process.terminate()
        process.wait(30)


def tries(server: "redis.Redis") -> bool:
    with suppress(redis.ConnectionError):
        return bool(server.ping())
    return False


def test_dev_refuses_it_too(valkey: str, tmp_path: Path) -> None:
    with redis.Redis.from_url(valkey) as server:
        server.execute_command("REPLICAOF", "127.0.0.1", "1")
        try:
            refused = medisecure("dev", "--port", "0", "--data-dir", str(tmp_path / "data"), REDIS_URL=valkey)
        finally:
            server.execute_command("REPLICAOF", "NO", "ONE")
            embedded.discard(tmp_path / "data")
    assert refused.returncode == 1
    assert refused.stderr.startswith("medisecure: Redis cannot do what the service needs: ")


# Waiting


@pytest.fixture
def stopped() -> Iterator[tuple[Path, Backend]]:
    """A folder with a migrated database, and where its servers will be again: its path is short."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"), "data")
    with embedded.start(folder) as servers:
        backend = Backend(servers.database_url, servers.redis_url)
        assert medisecure("migrate", DATABASE_URL=backend.database_url).returncode == 0
    yield folder, backend
    embedded.discard(folder)
    shutil.rmtree(folder.parent)


def serving(workers: int) -> tuple[str, tuple[str, ...]]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    return f"http://localhost:{port}", ("serve", "--port", str(port), "--workers", str(workers))


def is_alive(running: Running) -> bool:
    assert running.process.poll() is None, running.printed()
    with suppress(httpx.TransportError):
        return httpx.get(f"{running.url}/health/live").status_code == 200
    return False


@pytest.mark.parametrize("workers", [1, 2])
def test_servers_that_cannot_be_reached_are_waited_for(
    stopped: tuple[Path, Backend], tmp_path: Path, workers: int
) -> None:
    folder, backend = stopped
    url, arguments = serving(workers)
    misspelt = {"CORS_ORIGIN": "https://clinic.example"}
    with started(tmp_path / "log", *arguments, **environment(backend), **misspelt) as running:
        running.url = url
        until(lambda: is_alive(running), "an answer")
        assert "CORS_ORIGIN is no setting; perhaps CORS_ORIGINS is meant" in running.printed()
        assert httpx.get(f"{url}/health/ready").status_code == 503
        time.sleep(2)  # tries pass, and say nothing more
        lines = [line for line in running.printed().splitlines() if "Waiting for it" in line]
        assert len(lines) == 1
        assert "PostgreSQL cannot be reached: " in lines[0]
        assert "Redis cannot be reached: " in lines[0]
        with embedded.start(folder):
            until(running.is_ready, "ready")
            person = registration()
            assert running.browser().post("/api/auth/register", person).status_code == 201
            assert running.browser(person["email"], PASSWORD).me()["email"] == person["email"]
            assert running.end(signal.SIGTERM) in {0, -signal.SIGTERM}


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_checked_later_ends_the_service_all_the_same(
    stopped: tuple[Path, Backend], tmp_path: Path, workers: int
) -> None:
    folder, backend = stopped
    with embedded.start(folder):
        loaded = medisecure("load-demo", "--yes-known-passwords", DATABASE_URL=backend.database_url)
        assert loaded.returncode == 0, loaded.stderr
    url, arguments = serving(workers)
    with started(tmp_path / "log", *arguments, **environment(backend)) as running:
        running.url = url
        until(lambda: is_alive(running), "an answer")
        processes = running.children()
        with embedded.start(folder):
            assert running.process.wait(60) == 1
        last = running.printed().splitlines()[-1]
        assert last.startswith("medisecure: everyone knows the password of admin@example.com")
        until(lambda: not any(process.is_running() for process in processes), "the end of the workers")
