"""What `serve` and `dev` ask of Redis before they start (api/commands/checks.py), and /health/ready again."""

import re
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from api.commands.checks import UnreachableError
from persistence import embedded
from persistence.embedded.valkey import find_program
from security import redis_check
from tests.support.command import find_problem_of, medisecure
from tests.support.factories import PASSWORD, registration
from tests.support.running import free_port, wait_until
from tests.support.service import Backend, Service

# By what it cannot do: the command that breaks it, the one that mends it, and what the refusal says.
BROKEN = {
    "a replica": (
        "REPLICAOF 127.0.0.1 1",
        "REPLICAOF NO ONE",
        "read only replica",
    ),
    "no scripts": (
        "ACL SETUSER default -@scripting",
        "ACL SETUSER default +@all",
        "let the user run EVAL, EVALSHA and SCRIPT",
    ),
    "no command of a script": (
        "ACL SETUSER default -pexpire -expire",
        "ACL SETUSER default +@all",
        "let the user run all that scripts run",
    ),
    "other keys": (
        "ACL SETUSER default resetkeys ~clinic:*",
        "ACL SETUSER default allkeys",
        "on the keys login:*, requests:*, session:* and fence*",
    ),
}


def configure(server: "redis.Redis", command: str) -> None:
    server.execute_command(*command.split())  # type: ignore[no-untyped-call]  # the library's


@pytest.mark.slow
@pytest.mark.parametrize("what", BROKEN)
def test_a_redis_that_lacks_what_the_service_needs_is_refused(
    servers: Backend, own_valkey: str, what: str
) -> None:
    """The start is refused there, and a running service is degraded."""
    break_it, mend, said = BROKEN[what]
    backend = Backend(servers.copy().database_url, own_valkey)
    person = registration()
    with Service(backend, backend.settings()) as service, backend.redis as server:
        anyone = service.browser()
        assert anyone.post("/api/auth/register", person).status_code == 201
        assert anyone.get("/health/ready").json()["degraded"] == []
        configure(server, break_it)
        try:
            refused = find_problem_of(backend)
            assert refused.startswith("Redis cannot do what the service needs: ")
            assert said in refused
            ready = anyone.get("/health/ready")
            assert (ready.status_code, ready.json()["degraded"]) == (200, ["redis_away"])
            assert anyone.get("/health/live").status_code == 200
            assert anyone.login(person["email"], PASSWORD).status_code == 200
        finally:
            configure(server, mend)
        assert anyone.get("/health/ready").json()["degraded"] == []
    assert find_problem_of(backend) == ""


@pytest.mark.slow
def test_a_redis_that_lacks_what_a_replica_takes_is_refused(servers: Backend, own_valkey: str) -> None:
    """The scripts of its fences are others: each request would count Redis as away, and then not."""
    backend = Backend(servers.database_url, own_valkey)
    nowhere = f"postgresql://postgres@127.0.0.1:{free_port()}/medisecure"
    fenced = backend.settings(database_read_url=nowhere)
    with backend.redis as server, Service(backend, fenced) as service:
        for command in ("zadd", "zcount", "zrem", "time"):
            configure(server, f"ACL SETUSER default -{command}")
            try:
                assert find_problem_of(backend) == ""
                refused = find_problem_of(backend, database_read_url=nowhere)
                assert "let the user run all that scripts run" in refused
                assert service.browser().get("/health/ready").json()["degraded"] == ["redis_away"]
            finally:
                configure(server, f"ACL SETUSER default +{command}")
        assert find_problem_of(backend, database_read_url=nowhere) == ""
        assert service.browser().get("/health/ready").json()["degraded"] == []


def test_serve_asks_for_the_password_that_redis_wants(servers: Backend, own_valkey: str) -> None:
    path = own_valkey.removeprefix("unix://")
    with redis.Redis.from_url(own_valkey) as server:
        server.config_set("requirepass", "hush-hush")
        try:
            for url in (own_valkey, f"unix://:another@{path}"):
                refused = find_problem_of(Backend(servers.database_url, url))
                assert refused.endswith("; give REDIS_URL the user name and the password")
            assert find_problem_of(Backend(servers.database_url, f"unix://:hush-hush@{path}")) == ""
        finally:
            server.config_set("requirepass", "")
    assert "name a database in REDIS_URL that it has" in find_problem_of(
        Backend(servers.database_url, f"{own_valkey}?db=99")
    )


def test_serve_refuses_a_redis_that_is_too_old(
    servers: Backend, own_valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is at hand, so the service asks for more than there is."""
    monkeypatch.setattr(redis_check, "MIN_VERSION", (99, 0))
    refused = find_problem_of(Backend(servers.database_url, own_valkey))
    assert re.fullmatch(r"Redis [0-9.]+ is too old; the service needs 99\.0 or newer", refused)


def test_serve_takes_a_redis_without_info(servers: Backend, own_valkey: str) -> None:
    """Managed ones often refuse INFO."""
    with redis.Redis.from_url(own_valkey) as server:
        configure(server, "ACL SETUSER default -info -config")
        try:
            assert find_problem_of(Backend(servers.database_url, own_valkey)) == ""
        finally:
            configure(server, "ACL SETUSER default +@all")


def test_serve_warns_of_a_redis_that_may_drop_counters(
    servers: Backend, own_valkey: str, caplog: pytest.LogCaptureFixture
) -> None:
    backend = Backend(servers.database_url, own_valkey)
    with backend.redis as server:
        server.config_set("maxmemory", "100mb")
        server.config_set("maxmemory-policy", "volatile-lru")
        try:
            assert find_problem_of(backend) == ""
        finally:
            server.config_set("maxmemory-policy", "noeviction")
    assert "Redis may drop counters when it is full (volatile-lru)" in caplog.text


def test_serve_waits_for_a_redis_that_is_full(servers: Backend, own_valkey: str) -> None:
    backend = Backend(servers.database_url, own_valkey)
    with backend.redis as server:
        server.config_set("maxmemory", "1")
        try:
            with pytest.raises(UnreachableError, match="used memory"):
                find_problem_of(backend)
        finally:
            server.config_set("maxmemory", "0")


@pytest.mark.slow
def test_serve_refuses_a_redis_cluster(servers: Backend, tmp_path: Path) -> None:
    """There, the keys of one script are on several nodes."""
    program, port = find_program(), free_port()
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

            wait_until(lambda: is_answering(server), "an answer")
            configure(server, "CLUSTER ADDSLOTSRANGE 0 16383")
            wait_until(is_formed, "the cluster")
        refused = find_problem_of(Backend(servers.database_url, f"redis://127.0.0.1:{port}"))
        assert refused.endswith("; name a Redis in REDIS_URL that is no cluster")
    finally:
        process.terminate()
        process.wait(30)


def is_answering(server: "redis.Redis") -> bool:
    with suppress(redis.ConnectionError):
        return bool(server.ping())
    return False


@pytest.mark.slow
def test_dev_refuses_a_redis_replica(own_valkey: str, tmp_path: Path) -> None:
    with redis.Redis.from_url(own_valkey) as server:
        configure(server, "REPLICAOF 127.0.0.1 1")
        try:
            refused = medisecure(
                "dev", "--port", "0", "--data-dir", str(tmp_path / "data"), REDIS_URL=own_valkey
            )
        finally:
            configure(server, "REPLICAOF NO ONE")
            embedded.discard(tmp_path / "data")
    assert refused.returncode == 1
    assert refused.stderr.startswith("medisecure: Redis cannot do what the service needs: ")
