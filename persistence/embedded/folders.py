"""The data folder, root's part of it, and folders for sockets."""

import fcntl
import logging
import os
import re
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

from persistence.embedded.processes import EmbeddedError

SHARED_FOLDER = Path("/var/lib/medisecure")  # root's, see shared_folder
MAX_SOCKET_FOLDER = 80  # characters; a socket's path has 103 bytes, and its name comes after the folder's
log = logging.getLogger(__name__)


def claim(data_dir: Path, cleanup: ExitStack) -> Path:
    """Make the data folder if it is missing, and keep other processes out of it until `cleanup`.
    EmbeddedError: it belongs to another user, or is in use."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    data_dir = data_dir.resolve()
    if data_dir.stat().st_uid != os.geteuid():
        raise EmbeddedError(f"{data_dir} is another user's: start as that user, or choose another folder.")
    lock(data_dir, cleanup)
    return data_dir


def lock(folder: Path, cleanup: ExitStack) -> None:
    """Hold the folder until `cleanup` or the death of this process; the servers do not inherit the lock.
    EmbeddedError: another process holds it."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    cleanup.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode()
        raise EmbeddedError(f"{folder} is in use by process {holder}: stop it, or choose another.") from None
    os.truncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())


def postgres_home(data_dir: Path, cleanup: ExitStack) -> Path:
    """The folder that has PostgreSQL's in it: the data folder, or for root one that the user who runs
    PostgreSQL can reach."""
    if os.geteuid() != 0:
        return data_dir  # pragma: no cover  # root runs the measured tests
    link = data_dir / "servers"
    home = link.resolve()
    if home.parent != shared_folder() or not home.is_dir():
        if link.is_symlink():
            log.warning("%s, which held the database, is gone: starting with a new one", home)
            link.unlink()
        home = Path(tempfile.mkdtemp(prefix="data-", dir=shared_folder()))
        home.chmod(0o711)
        link.symlink_to(home)
    lock(home, cleanup)  # a copy of the data folder would lead to the same home
    return home


def shared_folder() -> Path:
    """Where root keeps what another user must reach. Others can pass through it, and cannot list it."""
    if not SHARED_FOLDER.exists():
        SHARED_FOLDER.mkdir(parents=True)
        SHARED_FOLDER.chmod(0o711)  # mkdir's mode depends on the umask
    return SHARED_FOLDER.resolve()


def socket_folder(folder: Path, cleanup: ExitStack) -> Path:
    """The folder itself; or a private one in /tmp, if the path is too long for a socket, or has characters
    (spaces, commas, colons) that mean something else to the drivers, to PostgreSQL or in a URL."""
    if len(str(folder)) <= MAX_SOCKET_FOLDER and re.fullmatch(r"[\w/.-]+", str(folder), re.ASCII):
        return folder
    remove_sockets(folder)
    sockets = Path(tempfile.mkdtemp(prefix="medisecure-", dir="/tmp"))
    (folder / "sockets").symlink_to(sockets)
    cleanup.callback(remove_sockets, folder)
    return sockets


def remove_sockets(folder: Path) -> None:
    """Remove the folder in /tmp that was made for this one, if any."""
    link = folder / "sockets"
    # Only a link of this user: PostgreSQL, when root starts it, runs as a user who could make one that points
    # elsewhere.
    if link.is_symlink() and link.lstat().st_uid == os.geteuid():
        shutil.rmtree(link.readlink(), ignore_errors=True)
        link.unlink()
