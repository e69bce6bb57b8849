"""PostgreSQL and Valkey that a test may kill, stop for a while and start again, at addresses that stay."""

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import psutil

from persistence.embedded.postgresql import SETTINGS, Postgres
from persistence.embedded.processes import ServerGroup, postgres_account, stop_process
from persistence.embedded.valkey import find_program
from tests.support.running import free_port, wait_until
from tests.support.service import Backend


class Server:
    """A process, with those that it has started."""

    process: "subprocess.Popen[bytes]"

    def start(self) -> None:
        """Return once it is ready."""
        raise NotImplementedError

    def family(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self.process.pid)
            return [parent, *parent.children(recursive=True)]
        return []

    def signal(self, number: signal.Signals) -> None:
        """To all of its processes."""
        for each in self.family():
            with suppress(psutil.NoSuchProcess):
                each.send_signal(number)

    def kill(self) -> None:
        """As the loss of power does, but for what the system has not yet written to the disk."""
        family = self.family()
        self.signal(signal.SIGKILL)
        self.process.wait()
        wait_until(lambda: not any(map(psutil.Process.is_running, family)), "the end of its processes")

    def pause(self) -> None:
        """It takes connections, and does not answer."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def stop(self) -> None:
        """In good order."""
        self.resume()
        if self.process.poll() is None:
            stop_process(self.process)


class PostgresServer(Server):
    """On TCP, on which a server that is gone refuses connections."""

    def __init__(self, home: Path, group: ServerGroup, **settings: str) -> None:
        """`home`: a folder that the user who runs PostgreSQL can reach. `settings`: PostgreSQL's."""
        self.embedded = Postgres(home, home / "postgres.log", group, 18, durable=True)
        self.port = free_port()
        self.settings = settings

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return self.url_at(self.port)

    @staticmethod
    def url_at(port: int) -> str:
        return f"postgresql://postgres@127.0.0.1:{port}/medisecure"

    @property
    def data(self) -> Path:
        return self.embedded.data

    def run(self, program: str, *arguments: str) -> None:
        """One of PostgreSQL's programs, to its end."""
        command = [f"{self.embedded.find_programs()}/{program}", *arguments]
        self.embedded.group.run(command, self.embedded.log, postgres_account(self.data))

    def start(self) -> None:
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        settings = {
            **SETTINGS,
            "unix_socket_directories": "",
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            **self.settings,
        }
        command = [f"{self.embedded.find_programs()}/postgres", "-D", str(self.data)]
        command += [f"--{name}={value}" for name, value in settings.items()]
        account = postgres_account(self.data)
        embedded = self.embedded
        self.process = embedded.group.serve(command, embedded.log, self.data, embedded.is_ready, account)

    def sql(self, statement: str, *values: Any) -> list[asyncpg.Record]:
        return Backend(self.url, "").sql(statement, *values)

    def set(self, name: str, value: str) -> None:
        """One of PostgreSQL's settings, also for the connections that are there, once all have it."""
        self.sql(f"ALTER SYSTEM SET {name} = {value}")
        self.sql("SELECT pg_reload_conf()")
        wait_until(lambda: self.sql(f"SHOW {name}")[0][0] == value.strip("'"), "the setting")


class Standby(PostgresServer):
    """A copy that follows its primary by streaming, until it is promoted."""

    def copy(self, primary_url: str) -> None:
        """Of a primary that runs. Does not start it."""
        folder = self.embedded.folder
        folder.mkdir(mode=0o700)
        account = postgres_account(self.data)
        if account:
            os.chown(folder, account.pw_uid, account.pw_gid)
        parts = urlsplit(primary_url)
        host = parse_qs(parts.query).get("host", [parts.hostname])[0]
        primary = f"user=postgres host={host} port={parts.port or 5432}"
        options = ("--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf", "--no-sync")
        self.run("pg_basebackup", f"--dbname={primary}", f"--pgdata={self.data}", *options)

    def hold_replay(self) -> None:
        """What the primary writes still arrives, and nobody sees it here."""
        self.sql("SELECT pg_wal_replay_pause()")
        paused = "SELECT pg_get_wal_replay_pause_state() = 'paused' AS paused"
        wait_until(lambda: self.sql(paused)[0]["paused"], "the end of replay")

    def go_on(self) -> None:
        self.sql("SELECT pg_wal_replay_resume()")


class ValkeyServer(Server):
    """On a socket, and always empty when it starts."""

    def __init__(self, folder: Path, group: ServerGroup) -> None:
        self.folder = folder
        self.group = group
        self.path = folder / "valkey.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def start(self) -> None:
        self.path.unlink(missing_ok=True)
        command = [str(find_program()), "--port", "0", "--unixsocket", str(self.path)]
        command += ["--save", "", "--appendonly", "no"]
        log = self.folder / "valkey.log"
        self.process = self.group.serve(command, log, self.folder, self.path.exists)
