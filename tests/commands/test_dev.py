"""`medisecure dev`, as the developer who types it sees it: it serves at once, keeps everything in its folder,
and leaves no process behind."""

import signal
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from api.commands.development import read_or_make_key
from api.commands.environment import CommandError
from api.http.server import listen_on_loopback
from persistence import demo, embedded
from tests.support.client import Browser
from tests.support.command import medisecure
from tests.support.factories import PASSWORD, email, registration
from tests.support.running import (
    Running,
    dev,
    is_running,
    names_of,
    processes_in,
    started,
    wait_until,
)
from tests.support.service import KEY, Backend

pytestmark = pytest.mark.slow

DEMO_ACCOUNTS = ["admin@example.com", "doctor@example.com", "staff@example.com", "patient@example.com"]


@pytest.fixture(scope="module")
def running(new_folder: Callable[..., Path]) -> Iterator[tuple[Running, Path]]:
    """The first start on a new folder, for the tests that leave it running."""
    folder = new_folder(".medisecure")
    with dev(folder) as first:
        yield first, folder


@pytest.fixture(scope="module")
def folder(new_folder: Callable[..., Path]) -> Path:
    """A folder with the demo data in it, for the tests that start and stop."""
    folder = new_folder()
    loaded = medisecure("load-demo", "--data-dir", str(folder))
    assert loaded.returncode == 0, loaded.stderr
    assert demo.PASSWORD in loaded.stdout
    return folder


def test_the_first_dev_prints_its_urls_and_its_demo_accounts(running: tuple[Running, Path]) -> None:
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
def test_every_demo_account_finds_something_in_every_figure_of_its_dashboard(
    running: tuple[Running, Path], address: str
) -> None:
    browser = running[0].browser(address)
    assert browser.me()["role"] == address.split("@")[0]
    shown = browser.stats()
    assert all(shown.values()), shown


def test_the_demo_patient_has_a_chart_with_appointments_and_records(running: tuple[Running, Path]) -> None:
    patient = running[0].browser("patient@example.com")
    assert patient.get("/api/patients").json()["total"] == 1
    statuses = {one["status"] for one in patient.get("/api/appointments").json()["appointments"]}
    assert statuses == {"completed", "scheduled"}
    assert patient.get("/api/records").json()["total"] == 2


def test_dev_keeps_a_private_key_in_its_folder(running: tuple[Running, Path]) -> None:
    _, folder = running
    file = folder / "secret_key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(file.read_bytes()) >= 32


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff" * 40])
def test_a_file_without_a_key_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "secret_key"
    file.write_bytes(content)
    with pytest.raises(CommandError, match="holds no key; delete it, and the next start makes a new one"):
        read_or_make_key(file)


def test_dev_writes_into_its_data_folder_only(running: tuple[Running, Path]) -> None:
    _, folder = running
    assert [path.name for path in folder.parent.iterdir() if path.suffix != ".log"] == [folder.name]


def test_dev_and_its_servers_listen_on_loopback_only(running: tuple[Running, Path]) -> None:
    first, _ = running
    everyone = [psutil.Process(first.process.pid), *first.children()]
    listening = {
        connection.laddr
        for process in everyone
        if is_running(process)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {address.ip for address in listening} <= {"127.0.0.1", "::1"}
    assert {str(address.port) for address in listening} == {first.url.rsplit(":", 1)[1]}


def test_dev_refuses_a_port_in_use_before_it_writes_anything(
    running: tuple[Running, Path], tmp_path: Path
) -> None:
    port = running[0].url.rsplit(":", 1)[1]
    refused = medisecure("dev", "--port", port, "--data-dir", str(tmp_path / "data"))
    assert refused.returncode == 1
    assert (
        refused.stderr == f"medisecure: port {port} cannot be opened (Address already in use); try --port\n"
    )
    assert not (tmp_path / "data").exists()


def test_the_port_of_dev_is_taken_from_the_moment_it_is_chosen() -> None:
    """Not only once the servers are up: two starts at once cannot both believe they have it."""
    sockets = listen_on_loopback(0)
    try:
        with pytest.raises(OSError, match="Address already in use"):
            listen_on_loopback(sockets[0].getsockname()[1])
    finally:
        for each in sockets:
            each.close()


def test_the_port_of_dev_is_taken_on_ipv6_too_where_the_machine_has_it() -> None:
    """A browser that asks for localhost tries IPv6 first."""
    try:
        other = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        [alone] = listen_on_loopback(0)
        with alone:
            assert alone.family == socket.AF_INET
    else:
        with other, pytest.raises(OSError, match="Address already in use"):
            listen_on_loopback(other.getsockname()[1])


def test_dev_refuses_a_data_folder_in_use(running: tuple[Running, Path]) -> None:
    first, folder = running
    refused = medisecure("dev", "--port", "0", "--data-dir", str(folder))
    assert refused.returncode == 1
    assert refused.stderr == (
        f"medisecure: {folder} is in use by process {first.process.pid}: stop it, or choose another.\n"
    )


def test_two_devs_at_once_are_two_clinics(running: tuple[Running, Path], folder: Path) -> None:
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


def test_signals_stop_dev_and_its_servers_and_the_next_start_has_all_data(folder: Path) -> None:
    with dev(folder) as first:
        staff = first.browser("staff@example.com")
        renamed = staff.patch("/api/users/me", {"name": "Sam the Second"}).json()
        charts = staff.get("/api/patients").json()
        cancelled = staff.get("/api/appointments?status=scheduled").json()["appointments"][0]
        assert staff.patch(f"/api/appointments/{cancelled['id']}", {"status": "cancelled"}).status_code == 200
        shown = staff.stats()
        key = (folder / "secret_key").read_text()
        assert_stops(first, folder, signal.SIGINT)
    with dev(folder) as second:
        assert (folder / "secret_key").read_text() == key
        returned = Browser(second.url, staff.cookies)  # the session outlives the restart
        assert returned.me() == renamed
        assert returned.get("/api/patients").json() == charts
        assert returned.get(f"/api/appointments/{cancelled['id']}").json()["status"] == "cancelled"
        assert returned.stats() == shown
        assert_stops(second, folder, signal.SIGTERM)


def assert_stops(running: Running, folder: Path, number: signal.Signals) -> None:
    """The signal ends all other processes before the command itself, without a stack."""
    children = running.children()
    assert {"postgres", "valkey-server"} <= names_of(children)
    assert {"postgres", "valkey-server"} <= names_of(processes_in(folder))
    with httpx.Client() as idle:  # a connection kept open, as browsers do, holds nothing up
        assert idle.get(f"{running.url}/health/live").status_code == 200
        assert running.stop(number) == 0
    assert not list(filter(is_running, children))
    assert processes_in(folder) == []
    assert "Traceback" not in running.printed()


def test_a_signal_during_the_first_start_of_dev_leaves_no_process(new_folder: Callable[..., Path]) -> None:
    folder = new_folder()
    arguments = ["dev", "--port", "0", "--data-dir", str(folder)]
    with started(arguments, folder.with_name("interrupted.log"), {}, folder.parent) as first:
        wait_until(lambda: "initdb" in names_of(first.children()), "initdb")
        assert first.stop(signal.SIGTERM) == 0
        wait_until(lambda: not processes_in(folder), "the end of initdb")
        assert "Traceback" not in first.printed()


def test_after_sigkill_of_dev_no_process_is_left_and_the_next_start_works(folder: Path) -> None:
    with dev(folder) as first:
        patient = first.browser("patient@example.com")
        patient.patch("/api/users/me", {"phone": "+1 555 0199"})
        children = first.children()
        first.process.kill()
        wait_until(lambda: not any(map(is_running, children)), "the end of the servers")
        assert processes_in(folder) == []
    with dev(folder) as second:
        assert Browser(second.url, patient.cookies).me()["phone"] == "+1 555 0199"


def test_dev_completes_a_first_start_that_was_killed(new_folder: Callable[..., Path]) -> None:
    """The database was made, and the key begun; tables and demo data were not."""
    folder = new_folder()
    embedded.start(folder).stop()
    (folder / "secret_key.new").write_text("")
    with dev(folder) as second:
        assert all(second.browser("admin@example.com").stats().values())


def test_dev_takes_an_external_database_and_loads_no_demo_data_into_it(
    new_folder: Callable[..., Path], unmigrated: Backend
) -> None:
    folder = new_folder()
    with dev(folder, DATABASE_URL=unmigrated.database_url, REDIS_URL="") as first:
        assert "postgres" not in names_of(first.children())
        assert "valkey-server" in names_of(first.children())
        assert first.printed().splitlines() == [
            f"MediSecure is at {first.url}, its documentation at {first.url}/docs"
        ]
        assert first.browser().login("admin@example.com", demo.PASSWORD).status_code == 401
        newcomer = registration()
        assert first.browser().post("/api/auth/register", newcomer).status_code == 201
        assert [row["email"] for row in unmigrated.sql("SELECT email FROM users")] == [newcomer["email"]]
    assert not list(folder.glob("**/PG_VERSION"))


def test_dev_takes_an_external_redis(folder: Path, servers: Backend) -> None:
    address = email()
    with dev(folder, REDIS_URL=servers.redis_url, SECRET_KEY=KEY) as first:
        assert "postgres" in names_of(first.children())
        assert "valkey-server" not in names_of(first.children())
        assert first.browser().login(address, PASSWORD).status_code == 401
        with servers.redis as connection:
            assert connection.hget(f"login:attempts:{address}", "count") == "1"


def test_dev_lets_pages_of_every_localhost_port_in(tmp_path: Path) -> None:
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
