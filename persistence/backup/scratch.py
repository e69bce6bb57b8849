"""A server of our own on a restored database, which nobody else can reach: for as long as it takes to replay
the log, to end the sessions and to look at what is there."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from persistence.backup import BackupError
from persistence.backup.files import locked, remove_leftovers
from persistence.embedded import EmbeddedError
from persistence.embedded.folders import shared_folder, socket_folder
from persistence.embedded.postgresql import PROGRAMS, WHEEL, copy_wheel
from persistence.embedded.processes import ServerGroup, postgres_account, stop_process
from persistence.embedded.wheels import require_wheel

PREFIX = "medisecure-restore-"
REPLAY_SECONDS = 24 * 3600  # in which the log is replayed; there is no reason to give up before
HBA = "local all all trust\n"
# Above whatever the clinic's server was set up with: no address, no archive, no library, no other server.
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "shared_buffers": "128MB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "4GB",
    "archive_mode": "off",
    "hot_standby": "off",
    "primary_conninfo": "",
    "restore_command": "/bin/false",  # the log is in pg_wal
    "recovery_target_timeline": "latest",
    "recovery_target_action": "promote",
    "shared_preload_libraries": "",
    "logging_collector": "off",
    "ssl": "off",
    "log_timezone": "UTC",
    "lc_messages": "C",
}


class Place(NamedTuple):
    """A private folder for a database, and who runs PostgreSQL in it: None for the user of this process."""

    folder: Path
    account: pwd.struct_passwd | None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> Path:
        return self.folder / "postgres.log"


@contextmanager
def scratch_place(above: Path | None = None, owner: Path | None = None) -> Iterator[Place]:
    """Gone at the end of the block; what a killed process left goes first. `above`: in which folder, where it
    matters; `owner`: a folder of the user who shall run PostgreSQL, if root does not say otherwise."""
    above = above or (shared_folder() if os.geteuid() == 0 else Path(tempfile.gettempdir()))
    remove_leftovers(above, PREFIX)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=above))
    try:
        with locked(folder):
            yield prepare_place(folder, owner or folder / "data")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def prepare_place(folder: Path, owner: Path) -> Place:
    """`folder` belongs to this process's user, and PostgreSQL's can pass through it."""
    account = postgres_account(owner)
    place = Place(folder, account)
    place.data.mkdir(mode=0o700)
    if account:  # pragma: no branch  # root runs the measured tests
        folder.chmod(0o711)
        os.chown(place.data, account.pw_uid, account.pw_gid)
    return place


def give(place: Place, *paths: Path) -> None:
    """To the user who runs PostgreSQL."""
    for path in paths:
        path.chmod(0o600)
        if place.account:  # pragma: no branch  # as above
            os.chown(path, place.account.pw_uid, place.account.pw_gid)


@contextmanager
def running(place: Place, programs: Path, until: datetime | None = None) -> Iterator[str]:
    """The URL of a server on `place`, less user and database, once it has replayed its log, or that until a
    moment; it takes connections of this user only. Raises BackupError."""
    with ExitStack() as cleanup:
        group = cleanup.enter_context(ServerGroup())
        programs = require_reachable(programs, group, place)
        empty, hba = place.folder / "postgresql.conf", place.folder / "pg_hba.conf"
        empty.write_text("")
        hba.write_text(HBA)
        give(place, empty, hba)
        # ALTER SYSTEM of the clinic's server: set aside, and put back.
        cleanup.enter_context(set_aside(place.data / "postgresql.auto.conf"))
        sockets = sockets_for(place, cleanup)
        settings = SETTINGS | {"unix_socket_directories": str(sockets), "config_file": str(empty)}
        settings |= {"hba_file": str(hba), "ident_file": str(empty), "data_directory": str(place.data)}
        if until:
            settings["recovery_target_time"] = until.isoformat()
        command = [f"{programs}/postgres", "-D", str(place.data)]
        command += [f"--{name}={value}" for name, value in settings.items()]
        try:
            process = group.serve(
                command, place.log, place.data, lambda: is_ready(place), place.account, REPLAY_SECONDS
            )
        except EmbeddedError as error:
            raise BackupError(explain(str(error))) from error
        cleanup.callback(stop_process, process)
        yield f"host={sockets}"
    (place.data / "postmaster.opts").unlink(missing_ok=True)  # what only this start was given


def is_ready(place: Place) -> bool:
    """Whether all is replayed: until then it takes no connection."""
    with suppress(FileNotFoundError):
        return (place.data / "postmaster.pid").read_text().split()[-1:] == ["ready"]
    return False


def explain(said: str) -> str:
    if "before configured recovery target was reached" in said:
        return "the log in the backup ends before the moment that --until names"
    return f"the restored database does not start: {said}"


@contextmanager
def set_aside(path: Path) -> Iterator[None]:
    aside = path.with_name(f"{path.name}.aside")
    if path.exists():
        path.rename(aside)
    try:
        yield
    finally:
        if aside.exists():
            aside.rename(path)


def sockets_for(place: Place, cleanup: ExitStack) -> Path:
    folder = place.folder / "run"
    folder.mkdir(mode=0o700, exist_ok=True)
    if place.account:  # pragma: no branch  # as above
        os.chown(folder, place.account.pw_uid, place.account.pw_gid)
    return socket_folder(folder, cleanup)


def require_reachable(programs: Path, group: ServerGroup, place: Place) -> Path:
    """The programs, or a copy of the wheel's if PostgreSQL's user cannot reach it. Raises BackupError."""
    try:
        group.run([f"{programs}/postgres", "--version"], place.log, place.account)
    except (OSError, EmbeddedError) as error:
        for inner in PROGRAMS.values():
            if programs.match(f"{WHEEL}/{inner}"):
                return copy_wheel(require_wheel(WHEEL)) / inner
        raise BackupError(f"PostgreSQL's user cannot run what is in {programs}: {error}") from error
    return programs


def unpack(place: Place) -> "subprocess.Popen[bytes]":
    """`tar`, which unpacks what comes down its standard input, as the user who runs PostgreSQL."""
    account = place.account
    return subprocess.Popen(  # noqa: S603 - nothing in it comes from outside
        ["/bin/tar", "--extract", "--file=-", "--preserve-permissions", f"--directory={place.data}"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": os.defpath, "LC_ALL": "C"},
        user=account.pw_uid if account else None,
        group=account.pw_gid if account else None,
        extra_groups=[] if account else None,
    )
