"""`medisecure serve`: what it refuses to start with, how it listens, and its workers. What it asks of its
servers is in test_database_checks.py and test_redis_checks.py."""

import resource
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.command import Refusal, create_admin, medisecure, settings_of
from tests.support.factories import PASSWORD
from tests.support.running import Running, is_running, serving, wait_until
from tests.support.service import Backend

pytestmark = pytest.mark.slow

SECRET = "hush-hush-0123456789-0123456789-0123456789"
GOOD_KEY = "`python3 -c 'import secrets; print(secrets.token_urlsafe(48))'`"
REFUSALS = {
    "a missing key": ({"SECRET_KEY": ""}, f"The environment lacks SECRET_KEY, which {GOOD_KEY} makes"),
    "a short key": (
        {"SECRET_KEY": "hush-hush"},
        f"SECRET_KEY is shorter than 32 bytes; {GOOD_KEY} makes a good one",
    ),
    "the sample key": (
        {"SECRET_KEY": "your-secret-key-min-32-chars"},
        f"SECRET_KEY is the sample of the documentation; {GOOD_KEY} makes a good one",
    ),
    "another algorithm": ({"ALGORITHM": "none"}, "ALGORITHM must be one of HS256, HS384, HS512"),
    "administrators for everyone": (
        {"AUTO_APPROVE_ROLES": "patient,admin"},
        "AUTO_APPROVE_ROLES must not contain admin: anyone could register as an administrator",
    ),
    "any origin": (
        {"CORS_ORIGINS": "*"},
        "CORS_ORIGINS must be origins such as https://clinic.example, separated by commas; "
        "a wildcard cannot go with cookies",
    ),
}


SOUND = {
    "DATABASE_URL": "postgresql://user:hush-hush@localhost/x",
    "REDIS_URL": "redis://localhost",
    "SECRET_KEY": SECRET,
}


@pytest.mark.parametrize("what", REFUSALS)
def test_serve_refuses_what_is_not_safe_and_tells_what_to_do(refusal: Refusal, what: str) -> None:
    changes, message = REFUSALS[what]
    nowhere = "192.0.2.1"  # an address of no machine, so that it ends even if it does not refuse
    refused = refusal("serve", "--host", nowhere, **{**SOUND, **changes})
    assert refused == f"medisecure: {message}"
    assert "hush-hush" not in refused
    assert "your-secret-key" not in refused


def test_a_refusal_of_serve_is_a_line_on_stderr_and_exit_status_1() -> None:
    refused = medisecure("serve", **{**SOUND, "SECRET_KEY": "hush-hush"})
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert refused.stderr == (
        f"medisecure: SECRET_KEY is shorter than 32 bytes; {GOOD_KEY} makes a good one\n"
    )


@pytest.fixture(scope="module")
def admin(servers: Backend) -> Backend:
    """A database whose only account is ada@clinic.example, the administrator."""
    backend = servers.copy()
    create_admin(backend.database_url, "ada@clinic.example", "Ada Admin", PASSWORD)
    return backend


def assert_stops(production: Running) -> None:
    processes = production.children()
    assert production.stop(signal.SIGTERM) in {0, -signal.SIGTERM}
    wait_until(lambda: not any(map(is_running, processes)), "the end of the workers")


def test_ctrl_c_ends_serve_in_good_order(tmp_path: Path, admin: Backend) -> None:
    with serving(tmp_path, **settings_of(admin, SECRET_KEY=SECRET)) as production:
        production.wait_until_ready()
        assert production.stop(signal.SIGINT) == 0
        assert "Traceback" not in production.printed()


@pytest.fixture
def few_files() -> Iterator[int]:
    """A process begins with 256 open files, as many systems have it with 1,024; how many it may take."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    yield limits[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_serve_takes_the_open_files_that_the_system_lets_it_have(
    tmp_path: Path, admin: Backend, few_files: int, workers: str
) -> None:
    with serving(tmp_path, "--workers", workers, **settings_of(admin, SECRET_KEY=SECRET)) as production:
        production.wait_until_ready()
        for process in [psutil.Process(production.process.pid), *production.children()]:
            soft, _ = process.rlimit(psutil.RLIMIT_NOFILE)
            assert soft == (65536 if few_files == resource.RLIM_INFINITY else min(few_files, 65536))


def test_serve_with_two_workers(tmp_path: Path, admin: Backend) -> None:
    with serving(tmp_path, "--workers", "2", **settings_of(admin, SECRET_KEY=SECRET)) as production:
        production.wait_until_ready()
        workers = [child for child in production.children() if "spawn_main" in " ".join(child.cmdline())]
        assert len(workers) == 2
        browser = production.browser("ada@clinic.example", PASSWORD)
        for _ in range(20):  # on new connections, which fall to either worker
            assert httpx.get(f"{production.url}/health/live").json() == {"status": "ok"}
            assert browser.me()["role"] == "admin"
        port = int(production.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(b"this is not HTTP\r\n\r\n")
            answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.endswith(b'{"detail":"Invalid HTTP request"}')
        assert_stops(production)
        assert "hush-hush" not in production.printed()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_serve_on_every_address_of_ipv4_and_ipv6(tmp_path: Path, admin: Backend, workers: str) -> None:
    """`--host ::`; an IPv4 peer is that IPv4 address to the trail, and to TRUSTED_PROXIES."""
    settings = settings_of(admin, TRUSTED_PROXIES="127.0.0.1", LOGIN_ATTEMPTS="99")
    with serving(tmp_path, "--host", "::", "--workers", workers, **settings) as production:
        production.wait_until_ready()
        port = production.url.rpartition(":")[2]
        refused = medisecure("serve", "--host", "::", "--port", port, "--workers", workers, **settings)
        assert refused.returncode == 1
        assert f"cannot listen on :: at port {port} (Address already in use); try" in refused.stderr
        for host, forwarded, address in [
            ("127.0.0.1", {}, "127.0.0.1"),
            ("[::1]", {"x-forwarded-for": "198.51.100.7"}, "::1"),
            ("127.0.0.1", {"x-forwarded-for": "198.51.100.7"}, "198.51.100.7"),
            ("127.0.0.1", {"x-forwarded-for": "::ffff:198.51.100.8"}, "198.51.100.8"),
        ]:
            url = f"http://{host}:{port}/api/auth/login"
            wrong = {"email": "ada@clinic.example", "password": "not hers"}
            assert httpx.post(url, json=wrong, headers=forwarded).status_code == 401
            [row] = admin.sql("SELECT address FROM audit_events ORDER BY at DESC LIMIT 1")
            assert row["address"] == address
        assert_stops(production)


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("192.0.2.1", "Cannot assign requested address"),
        ("no.such.host.invalid", ""),
        ("-" * 70, ""),
        ("a..b", "it is no name of a host"),
    ],
)
def test_serve_says_where_it_cannot_listen_and_why(admin: Backend, host: str, reason: str) -> None:
    refused = medisecure("serve", f"--host={host}", "--port", "0", **settings_of(admin))
    assert refused.returncode == 1
    assert f"medisecure: cannot listen on {host} at port 0 ({reason}" in refused.stderr
    assert "Traceback" not in refused.stderr
