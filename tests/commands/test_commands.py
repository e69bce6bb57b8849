"""The command `medisecure`, as the person who types it sees it."""

import io
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest

from api.commands.main import main
from api.http.server import listen_on_loopback
from api.settings import REQUIRED_SETTINGS
from persistence import demo, embedded
from persistence.migrations.commands import commands
from tests.support.client import Browser
from tests.support.command import COMMAND, environment, medisecure
from tests.support.factories import PASSWORD, email, registration
from tests.support.service import KEY, Backend, Service

DEMO_ACCOUNTS = ["admin@example.com", "doctor@example.com", "staff@example.com", "patient@example.com"]
PATIENCE = 60  # seconds


def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE} seconds"
        time.sleep(0.02)


def runs(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def at_work_in(folder: Path) -> list[psutil.Process]:
    """Every process whose command line or working folder is in the data folder, or in root's part of it."""
    places = {str(folder), str((folder / "servers").resolve())}
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(place in text for place in places for text in [*process.cmdline(), process.cwd()]):
                found.append(process)
    return [process for process in found if runs(process)]


def names(processes: list[psutil.Process]) -> set[str]:
    return {process.name() for process in processes}


@dataclass
class Running:
    """A process of ours that serves, what it has printed, and the processes it has started."""

    process: "subprocess.Popen[bytes]"
    output: Path
    url: str = ""

    def printed(self) -> str:
        return self.output.read_text()

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.printed()
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/health/ready").status_code == 200
        return False

    def browser(self, address: str = "", password: str = demo.PASSWORD) -> Browser:
        """A browser in which the account has signed in."""
        browser = Browser(self.url)
        if address:
            answer = browser.login(address, password)
            assert answer.status_code == 200, answer.text
        return browser

    def end(self, number: signal.Signals) -> int:
        """As Ctrl-C does it: to the whole group."""
        os.killpg(self.process.pid, number)
        return self.process.wait(PATIENCE)


@contextmanager
def started(output: Path, *arguments: str, cwd: Path | None = None, **settings: str) -> Iterator[Running]:
    with open(output, "wb") as opened:
        process = subprocess.Popen(
            [COMMAND, *arguments],
            env=environment(**settings),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=opened,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    try:
        yield Running(process, output)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def dev(folder: Path, **settings: str) -> Iterator[Running]:
    """`medisecure dev` on a port of its own choice, ready."""
    output = folder.with_name(f"{uuid4().hex[:6]}.log")
    data_dir = () if folder.name == ".medisecure" else ("--data-dir", str(folder))  # or the default
    with started(output, "dev", "--port", "0", *data_dir, cwd=folder.parent, **settings) as running:

        def welcomed() -> "re.Match[str] | None":
            assert running.process.poll() is None, running.printed()
            return re.search(r"MediSecure is at (http://localhost:\d+),", running.printed())

        until(welcomed, "the welcome")
        running.url = welcomed()[1]
        until(running.is_ready, "ready")
        yield running


def figures(browser: Browser) -> dict[str, int]:
    answer = browser.get("/api/dashboard/stats")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """New data folders, discarded in the end."""
    made = []

    def folder(name: str = "data") -> Path:
        made.append(tmp_path_factory.mktemp("medisecure") / name)
        return made[-1]

    yield folder
    for each in made:
        if each.exists():
            embedded.discard(each)


@pytest.fixture(scope="module")
def running(folders: Callable[..., Path]) -> Iterator[tuple[Running, Path]]:
    """The first start on a new folder, for the tests that leave it running."""
    folder = folders(".medisecure")
    with dev(folder) as first:
        yield first, folder


@pytest.fixture(scope="module")
def folder(folders: Callable[..., Path]) -> Path:
    """A folder with the demo data in it, for the tests that start and stop."""
    folder = folders()
    loaded = medisecure("load-demo", "--data-dir", str(folder))
    assert loaded.returncode == 0, loaded.stderr
    assert demo.PASSWORD in loaded.stdout
    return folder


@pytest.fixture
def empty(servers: Backend) -> Backend:
    """An external database with nothing in it, not even tables."""
    name = f"external_{uuid4().hex}"
    servers.sql(f"CREATE DATABASE {name}")
    return Backend(servers.database_url.replace("/medisecure?", f"/{name}?"), servers.redis_url)


@pytest.fixture(scope="module")
def clinic(servers: Backend) -> Iterator[Service]:
    """An instance on an empty database, and the first administrator, made by command."""
    backend = servers.copy()
    made = medisecure(
        "create-admin",
        " Ada@Clinic.example ",
        "Ada Admin",
        stdin=f"{PASSWORD}\n",
        DATABASE_URL=backend.database_url,
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout == "ada@clinic.example is an administrator now.\n"
    with Service(backend, backend.settings()) as service:
        yield service


def urls(service: Service) -> dict[str, str]:
    return {"DATABASE_URL": service.backend.database_url, "REDIS_URL": service.backend.redis_url}


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that is refused, and give its last line on stderr. In this process, which is faster."""

    def run(*arguments: str, stdin: str = "", **settings: str) -> str:
        monkeypatch.setattr("sys.argv", ["medisecure", *arguments])
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        for name, value in {**dict.fromkeys(REQUIRED_SETTINGS, ""), **settings}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        assert shown.out == ""
        assert ended.value.code == (2 if "usage:" in shown.err else 1)
        return shown.err.splitlines()[-1]

    return run


# medisecure dev


def test_the_first_start_says_where_and_who(running):
    first, _ = running
    where, database, *who = first.printed().splitlines()
    assert where == f"MediSecure is at {first.url}, its documentation at {first.url}/docs"
    [(accounts,)] = Backend(database.removeprefix("Its database is "), "").sql("SELECT count(*) FROM users")
    assert accounts >= len(DEMO_ACCOUNTS)
    assert who == [
        f"Demo accounts, all with the password {demo.PASSWORD}:",
        *(f"  {address}" for address in DEMO_ACCOUNTS),
    ]
    page = Browser(first.url).get("/docs")
    assert page.status_code == 200
    assert "<html" in page.text


@pytest.mark.parametrize("address", DEMO_ACCOUNTS)
def test_every_demo_account_finds_something_in_every_figure(running, address):
    browser = running[0].browser(address)
    assert browser.me()["role"] == address.split("@")[0]
    shown = figures(browser)
    assert all(shown.values()), shown


def test_the_demo_patient_has_a_chart_with_appointments_and_records(running):
    patient = running[0].browser("patient@example.com")
    assert patient.get("/api/patients").json()["total"] == 1
    statuses = {one["status"] for one in patient.get("/api/appointments").json()["appointments"]}
    assert statuses == {"completed", "scheduled"}
    assert patient.get("/api/records").json()["total"] == 2


def test_the_key_is_the_folders_own_and_private(running):
    _, folder = running
    file = folder / "secret_key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(file.read_bytes()) >= 32


def test_everything_is_written_into_the_data_folder(running):
    _, folder = running
    assert [path.name for path in folder.parent.iterdir() if path.suffix != ".log"] == [folder.name]


def test_nobody_else_on_the_network_can_connect(running):
    first, _ = running
    everyone = [psutil.Process(first.process.pid), *first.children()]
    listening = {
        connection.laddr
        for process in everyone
        if runs(process)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {address.ip for address in listening} <= {"127.0.0.1", "::1"}
    assert {str(address.port) for address in listening} == {first.url.rsplit(":", 1)[1]}


def test_a_port_in_use_is_refused_before_anything_is_written(running, tmp_path):
    port = running[0].url.rsplit(":", 1)[1]
    refused = medisecure("dev", "--port", port, "--data-dir", str(tmp_path / "data"))
    assert refused.returncode == 1
    assert refused.stderr == f"medisecure: port {port} cannot be had (Address already in use); try --port\n"
    assert not (tmp_path / "data").exists()


def test_a_port_is_taken_from_the_moment_it_is_chosen():
    """Not only once the servers are up: two starts at once cannot both believe they have it."""
    sockets = listen_on_loopback(0)
    try:
        with pytest.raises(OSError, match="Address already in use"):
            listen_on_loopback(sockets[0].getsockname()[1])
    finally:
        for each in sockets:
            each.close()


def test_a_port_is_ours_on_ipv6_too_where_the_machine_has_it():
    """A browser that asks for localhost tries that one first. A machine without it has IPv4 alone to take."""
    try:
        other = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        [alone] = listen_on_loopback(0)
        with alone:
            assert alone.family == socket.AF_INET
    else:
        with other, pytest.raises(OSError, match="Address already in use"):
            listen_on_loopback(other.getsockname()[1])


def test_a_folder_in_use_is_refused(running):
    first, folder = running
    refused = medisecure("dev", "--port", "0", "--data-dir", str(folder))
    assert refused.returncode == 1
    assert refused.stderr == (
        f"medisecure: {folder} is in use by process {first.process.pid}: stop it, or choose another.\n"
    )


def test_two_instances_at_once_are_two_clinics(running, folder):
    first, _ = running
    with dev(folder) as second:
        assert second.url != first.url
        newcomer = registration(email=email())
        assert second.browser().post("/api/auth/register", newcomer).status_code == 201
        assert second.browser(newcomer["email"], PASSWORD).me()["email"] == newcomer["email"]
        assert first.browser().login(newcomer["email"], PASSWORD).status_code == 401
        assert (folder / "secret_key").read_text() != (running[1] / "secret_key").read_text()
        stranger = Browser(first.url, second.browser("admin@example.com").cookies)
        assert stranger.get("/api/users/me").status_code == 401


def test_signals_stop_everything_and_a_second_start_keeps_everything(folder):
    with dev(folder) as first:
        staff = first.browser("staff@example.com")
        renamed = staff.patch("/api/users/me", {"name": "Sam the Second"}).json()
        charts = staff.get("/api/patients").json()
        cancelled = staff.get("/api/appointments?status=scheduled").json()["appointments"][0]
        assert staff.patch(f"/api/appointments/{cancelled['id']}", {"status": "cancelled"}).status_code == 200
        shown = figures(staff)
        key = (folder / "secret_key").read_text()
        stops(first, folder, signal.SIGINT)
    with dev(folder) as second:
        assert (folder / "secret_key").read_text() == key
        returned = Browser(second.url, staff.cookies)  # the session outlives the restart
        assert returned.me() == renamed
        assert returned.get("/api/patients").json() == charts
        assert returned.get(f"/api/appointments/{cancelled['id']}").json()["status"] == "cancelled"
        assert figures(returned) == shown
        stops(second, folder, signal.SIGTERM)


def stops(running: Running, folder: Path, number: signal.Signals) -> None:
    """The signal ends all processes before the command itself, without ado."""
    children = running.children()
    assert {"postgres", "valkey-server"} <= names(children)
    assert {"postgres", "valkey-server"} <= names(at_work_in(folder))
    with httpx.Client() as idle:  # a connection kept open, as browsers do, holds nothing up
        assert idle.get(f"{running.url}/health/live").status_code == 200
        assert running.end(number) == 0
    assert not list(filter(runs, children))
    assert at_work_in(folder) == []
    assert "Traceback" not in running.printed()


def test_a_signal_during_the_first_start_leaves_nothing_behind(folders):
    folder = folders()
    arguments = ("dev", "--port", "0", "--data-dir", str(folder))
    with started(folder.with_name("interrupted.log"), *arguments) as first:
        until(lambda: "initdb" in names(first.children()), "initdb")
        assert first.end(signal.SIGTERM) == 0
        until(lambda: not at_work_in(folder), "the end of initdb")
        assert "Traceback" not in first.printed()


def test_after_kill_9_nothing_is_left_and_the_next_start_works(folder):
    with dev(folder) as first:
        patient = first.browser("patient@example.com")
        patient.patch("/api/users/me", {"phone": "+1 555 0199"})
        children = first.children()
        first.process.kill()
        until(lambda: not any(map(runs, children)), "the end of the servers")
        assert at_work_in(folder) == []
    with dev(folder) as second:
        assert Browser(second.url, patient.cookies).me()["phone"] == "+1 555 0199"


def test_a_first_start_that_was_killed_too_early_is_made_good(folders):
    """The database was made, and the key begun; tables and demo data were not."""
    folder = folders()
    embedded.start(folder).stop()
    (folder / "secret_key.new").write_text("")
    with dev(folder) as second:
        assert all(figures(second.browser("admin@example.com")).values())


def test_an_external_database_replaces_the_embedded_one_and_gets_no_demo_data(folders, empty):
    folder = folders()
    with dev(folder, DATABASE_URL=empty.database_url, REDIS_URL="") as first:
        assert "postgres" not in names(first.children())
        assert "valkey-server" in names(first.children())
        assert first.printed().splitlines() == [
            f"MediSecure is at {first.url}, its documentation at {first.url}/docs"
        ]
        assert first.browser().login("admin@example.com", demo.PASSWORD).status_code == 401
        newcomer = registration()
        assert first.browser().post("/api/auth/register", newcomer).status_code == 201
        assert [row["email"] for row in empty.sql("SELECT email FROM users")] == [newcomer["email"]]
    assert not list(folder.glob("**/PG_VERSION"))


def test_an_external_redis_replaces_the_embedded_one(folder, servers):
    address = email()
    with dev(folder, REDIS_URL=servers.redis_url, SECRET_KEY=KEY) as first:
        assert "postgres" in names(first.children())
        assert "valkey-server" not in names(first.children())
        assert first.browser().login(address, PASSWORD).status_code == 401
        with servers.redis as connection:
            assert connection.hget(f"login:attempts:{address}", "count") == "1"


def test_dev_lets_pages_of_every_local_port_in(tmp_path):
    """Contract, "Browsers": a developer's tools choose the port; beside CORS_ORIGINS, and nobody else's."""
    with dev(tmp_path / "data", CORS_ORIGINS="https://clinic.example") as running:
        staff = running.browser("staff@example.com")
        asked = {"access-control-request-method": "PATCH"}
        for origin, is_let_in in [
            ("https://clinic.example", True),
            ("http://localhost:5173", True),
            ("http://localhost:4711", True),
            ("http://localhost", True),
            ("https://localhost:4711", False),
            ("http://127.0.0.1:4711", False),
            ("http://localhost.evil.example:4711", False),
            ("http://localhost:4711@evil.example", False),
            ("http://localhost:", False),
            ("http://evil.localhost:4711", False),
            ("null", False),
        ]:
            page = {"origin": origin}
            preflight = staff.request("OPTIONS", "/api/users/me", headers={**page, **asked})
            assert preflight.status_code == (204 if is_let_in else 400), origin
            written = staff.patch("/api/users/me", {}, headers=page)
            assert written.status_code == (200 if is_let_in else 403), origin
            allowed = written.headers.get("access-control-allow-origin")
            assert allowed == (origin if is_let_in else None)


# medisecure serve

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
def test_serve_refuses_what_is_not_safe_and_tells_what_to_do(refusal, what):
    changes, message = REFUSALS[what]
    nowhere = "192.0.2.1"  # where nobody can listen, so that it ends even if it does not refuse
    refused = refusal("serve", "--host", nowhere, **{**SOUND, **changes})
    assert refused == f"medisecure: {message}"
    assert "hush-hush" not in refused
    assert "your-secret-key" not in refused


def test_a_refusal_is_a_line_on_stderr_and_exit_status_1():
    refused = medisecure("serve", **{**SOUND, "SECRET_KEY": "hush-hush"})
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert refused.stderr == (
        f"medisecure: SECRET_KEY is shorter than 32 bytes; {GOOD_KEY} makes a good one\n"
    )


def test_serve_with_two_workers(tmp_path, clinic):
    settings = {**urls(clinic), "SECRET_KEY": SECRET}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ("serve", "--port", str(port), "--workers", "2")
    with started(tmp_path / "serve.log", *arguments, **settings) as production:
        production.url = f"http://localhost:{port}"
        until(production.is_ready, "ready")
        workers = [child for child in production.children() if "spawn_main" in " ".join(child.cmdline())]
        assert len(workers) == 2
        browser = production.browser("ada@clinic.example", PASSWORD)
        for _ in range(20):  # on new connections, which fall to either worker
            assert httpx.get(f"{production.url}/health/live").json() == {"status": "ok"}
            assert browser.me()["role"] == "admin"
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
            connection.sendall(b"this is not HTTP\r\n\r\n")
            answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.endswith(b'{"detail":"Invalid HTTP request"}')
        processes = production.children()
        assert production.end(signal.SIGTERM) in {0, -signal.SIGTERM}
        until(lambda: not any(map(runs, processes)), "the end of the workers")
        assert "hush-hush" not in production.printed()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_serve_on_every_address_of_both_families(tmp_path, clinic, workers):
    """`--host ::`; an IPv4 peer is that IPv4 address to the trail, and to TRUSTED_PROXIES."""
    settings = {**urls(clinic), "SECRET_KEY": SECRET, "TRUSTED_PROXIES": "127.0.0.1", "LOGIN_ATTEMPTS": "99"}
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    arguments = ("serve", "--host", "::", "--port", str(port), "--workers", workers)
    with started(tmp_path / "serve.log", *arguments, **settings) as production:
        production.url = f"http://localhost:{port}"
        until(production.is_ready, "ready")
        refused = medisecure(*arguments, **settings)
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
            [row] = clinic.backend.sql("SELECT address FROM audit_events ORDER BY at DESC LIMIT 1")
            assert row["address"] == address
        assert production.end(signal.SIGTERM) in {0, -signal.SIGTERM}


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("192.0.2.1", "Cannot assign requested address"),
        ("no.such.host.invalid", ""),
        ("-" * 70, ""),
        ("a..b", "it is no name of a host"),
    ],
)
def test_serve_says_that_it_cannot_listen(clinic, host, reason):
    settings = {**urls(clinic), "SECRET_KEY": SECRET}
    refused = medisecure("serve", f"--host={host}", "--port", "0", **settings)
    assert refused.returncode == 1
    assert f"medisecure: cannot listen on {host} at port 0 ({reason}" in refused.stderr
    assert "Traceback" not in refused.stderr


# Accounts


def test_the_first_administrator_is_made_by_command(clinic):
    browser = clinic.browser()
    assert browser.login("ada@clinic.example", PASSWORD).status_code == 200
    me = browser.me()
    assert (me["name"], me["role"]) == ("Ada Admin", "admin")
    assert figures(browser)["totalPatients"] == 0


TOO_SHORT = "a password has at least 6 characters, at most 72 bytes, and no NUL among them"
UNSUITABLE = {
    "an address that has an account": (
        ["create-admin", "ADA@clinic.example", "Ada"],
        PASSWORD,
        "this e-mail address has an account already; see set-password",
    ),
    "a short password": (["create-admin", "b@clinic.example", "Bo"], "short", TOO_SHORT),
    "a long password": (["create-admin", "b@clinic.example", "Bo"], "é" * 37, TOO_SHORT),
    "a password with a NUL": (["create-admin", "b@clinic.example", "Bo"], "pass\0word", TOO_SHORT),
    "no address": (
        ["create-admin", "clinic.example", "Bo"],
        PASSWORD,
        "email: must be an e-mail address",
    ),
    "nobody's new password": (
        ["set-password", "nobody@clinic.example"],
        PASSWORD,
        "no account has this e-mail address",
    ),
    "an e-mail that looks like another": (
        ["create-admin", "b\u200b@clinic.example", "Bo"],
        "a good password",
        "email: must be an e-mail address without invisible characters",
    ),
    "a short new password": (["set-password", "ada@clinic.example"], "short", TOO_SHORT),
}


@pytest.mark.parametrize("what", UNSUITABLE)
def test_unsuitable_accounts_and_passwords_are_refused(clinic, refusal, what):
    arguments, stdin, message = UNSUITABLE[what]
    assert refusal(*arguments, stdin=f"{stdin}\n", **urls(clinic)) == f"medisecure: {message}"
    assert clinic.backend.sql("SELECT 1 FROM users WHERE email LIKE 'b@%'") == []


def test_set_password_ends_the_sessions_of_the_account_at_once(clinic):
    person, bystander = registration(email="person@clinic.example"), registration()
    for body in (person, bystander):
        assert clinic.browser().post("/api/auth/register", body).status_code == 201
    desk, phone, other = clinic.browser(), clinic.browser(), clinic.browser()
    for browser, body in ((desk, person), (phone, person), (other, bystander)):
        assert browser.login(body["email"], PASSWORD).status_code == 200
        assert browser.me()["email"] == body["email"]  # "alive" is remembered now

    changed = medisecure("set-password", "Person@clinic.example", stdin="another one\n", **urls(clinic))
    assert changed.returncode == 0, changed.stderr
    assert changed.stdout == (
        "person@clinic.example has a new password; every session of the account has ended.\n"
    )
    for browser in (desk, phone):
        assert browser.get("/api/users/me").status_code == 401
        assert browser.post("/api/auth/refresh").status_code == 401
    assert other.me()["email"] == bystander["email"]
    assert clinic.browser().login("person@clinic.example", PASSWORD).status_code == 401
    assert clinic.browser().login("person@clinic.example", "another one").status_code == 200


def test_a_database_that_cannot_be_used_is_said_in_a_line(empty, refusal):
    """No stack, and nothing of what was to be stored."""
    unmigrated = refusal("create-admin", "a@b.example", "A", stdin=PASSWORD, DATABASE_URL=empty.database_url)
    assert unmigrated == "medisecure: the database cannot be used: run `medisecure migrate` first"
    nowhere = refusal("migrate", DATABASE_URL="postgresql://user:hush-hush@127.0.0.1:1/x")
    assert nowhere.startswith("medisecure: ")
    assert "hush-hush" not in nowhere
    nothing = refusal("migrate", DATABASE_URL="")
    assert nothing == "medisecure: set DATABASE_URL, such as postgresql://user:pass@localhost/medisecure"


@pytest.mark.parametrize("command", [("create-admin", "b@clinic.example", "Bo"), ("set-password", "b@c.d")])
def test_a_password_that_is_none_is_said_in_a_line(refusal, command):
    """And the database is asked for first."""
    assert refusal(*command).startswith("medisecure: set DATABASE_URL")
    nowhere = {"DATABASE_URL": "postgresql://127.0.0.1:1/x"}
    assert refusal(*command, stdin="caf\udce9 12345\n", **nowhere) == (
        "medisecure: the password is not text in UTF-8"
    )


@pytest.mark.parametrize(("key", "said", "status"), [(b"", b"", 130), (b"", b"no password was given", 1)])
def test_whoever_leaves_the_prompt_sees_no_stack(key, said, status):
    """Ctrl-C and Ctrl-D, at a terminal."""
    spawn = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    with subprocess.Popen(
        [sys.executable, "-c", spawn, COMMAND, "set-password", "b@c.example"],
        env=environment(DATABASE_URL="postgresql://127.0.0.1:1/x"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as terminal:
        shown = b""
        while not shown.endswith(b"New password: "):
            shown += terminal.stdout.read1()
        terminal.stdin.write(key)
        terminal.stdin.flush()
        shown += terminal.stdout.read()
    assert said in shown
    assert b"Traceback" not in shown
    assert terminal.returncode == status


def test_bytes_that_are_not_text_are_refused_in_a_line(refusal):
    """Python hands them over as lone surrogates, which nothing can store."""
    nowhere = {"DATABASE_URL": "postgresql://127.0.0.1:1/x"}
    for arguments in (
        ("create-admin", "b@c.example", "\udcff"),
        ("set-password", "\udcff@c.example"),
        ("migrate", "--grant-to", "\udcff"),
    ):
        assert ": invalid text value: " in refusal(*arguments, stdin=PASSWORD, **nowhere)
    key = {"SECRET_KEY": "\udcff" * 40}
    assert refusal("verify-audit", **key, **nowhere) == "medisecure: SECRET_KEY is not text in UTF-8"


def test_set_password_needs_a_redis_that_can_be_asked(refusal):
    """Before the password is changed: its sessions could not be ended everywhere."""
    nowhere = {"DATABASE_URL": "postgresql://127.0.0.1:1/x", "REDIS_URL": "redis://localhost?db=x"}
    refused = refusal("set-password", "b@c.example", stdin=PASSWORD, **nowhere)
    assert refused.startswith("medisecure: REDIS_URL must be a Redis URL")


def test_a_database_of_a_later_release_is_left_alone(servers, refusal):
    later = servers.copy()
    later.sql("UPDATE alembic_version SET version_num = '9999'")
    refused = refusal("migrate", DATABASE_URL=later.database_url)
    assert refused.startswith("medisecure: the database is not one of this release: ")
    assert later.sql("SELECT version_num FROM alembic_version") == [("9999",)]


# medisecure load-demo

NOT_EMPTY = "medisecure: the database is not empty; the demo data goes into an empty one only"


def test_load_demo_into_an_external_database_must_be_meant(empty, refusal):
    assert "--yes-known-passwords" in refusal("load-demo", DATABASE_URL=empty.database_url)
    assert empty.sql("SELECT 1 FROM pg_tables WHERE schemaname = 'public'") == []

    loaded = medisecure("load-demo", "--yes-known-passwords", DATABASE_URL=empty.database_url)
    assert loaded.returncode == 0, loaded.stderr
    assert demo.PASSWORD in loaded.stdout
    with Service(empty, empty.settings()) as service:
        browser = service.browser()
        assert browser.login("staff@example.com", demo.PASSWORD).status_code == 200
        assert all(figures(browser).values())

    before = empty.sql("SELECT * FROM users ORDER BY id")
    assert refusal("load-demo", "--yes-known-passwords", DATABASE_URL=empty.database_url) == NOT_EMPTY
    assert empty.sql("SELECT * FROM users ORDER BY id") == before


def test_load_demo_leaves_a_clinic_alone(empty, refusal):
    """One chart is enough to be a clinic, even without an account."""
    commands(empty.database_url).upgrade()
    empty.sql(
        "INSERT INTO patients (id, name, email, phone, date_of_birth, gender, address, sort_name, "
        "search_text) "
        "VALUES (gen_random_uuid(), 'P', 'p@example.com', '1', '1980-01-01', 'other', 'x', 'p', 'p')"
    )
    assert refusal("load-demo", "--yes-known-passwords", DATABASE_URL=empty.database_url) == NOT_EMPTY
    assert empty.sql("SELECT 1 FROM users") == []


def test_a_password_is_never_an_argument(refusal):
    unrecognized = f"medisecure: error: unrecognized arguments: {PASSWORD}"
    assert refusal("create-admin", "b@clinic.example", "Bo", PASSWORD) == unrecognized
    assert refusal("set-password", "b@clinic.example", PASSWORD) == unrecognized


def test_the_command_explains_itself():
    shown = medisecure("--help")
    assert shown.returncode == 0
    for command in ("dev", "serve", "migrate", "create-admin", "set-password", "load-demo"):
        assert re.search(rf"^    {command}\b", shown.stdout, re.MULTILINE)
