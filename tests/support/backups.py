"""A clinic on servers of its own, whose backups are made, spoilt and restored."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from persistence import demo
from persistence.backup.manifest import Backup, find_backup, read_position
from persistence.embedded.folders import shared_folder
from tests.support.client import Browser
from tests.support.command import medisecure, settings_of
from tests.support.running import Running, started, wait_until
from tests.support.service import Backend, Service

ADMIN = "admin@example.com"


@dataclass
class Clinic:
    backend: Backend
    folder: Path
    recipient: str

    @property
    def identity(self) -> Path:
        return self.folder / "identity"

    def settings(self, **changes: str) -> dict[str, str]:
        keys = {"BACKUP_RECIPIENT": self.recipient, "BACKUP_IDENTITY_FILE": str(self.identity)}
        return {**settings_of(self.backend), **keys, **changes}

    def run(self, *arguments: str | Path, **changes: str) -> "subprocess.CompletedProcess[str]":
        return medisecure(*map(str, arguments), **self.settings(**changes))

    def back_up(self, name: str, *options: str, **changes: str) -> Backup:
        """Into a new folder of this name."""
        dest = self.folder / name
        made = self.run("backup", dest, *options, **changes)
        assert made.returncode == 0, made.stderr
        return find_backup(dest)

    def refused(self, *arguments: str | Path, **changes: str) -> str:
        """The command fails; what it says about it."""
        done = self.run(*arguments, **changes)
        assert done.returncode == 1, done.stdout + done.stderr
        return done.stderr

    def copy_of(self, dest: Path, name: str) -> Path:
        """Another folder with the same backups, to be spoilt."""
        copy = dest.with_name(name)
        shutil.copytree(dest, copy)
        return copy

    def new_database(self, name: str) -> Backend:
        self.backend.sql(f"CREATE DATABASE {name}")
        url = self.backend.database_url.replace("/medisecure?", f"/{name}?")
        return Backend(url, self.backend.redis_url)

    @contextmanager
    def following(self, dest: Path, *options: str) -> Iterator[Running]:
        """`medisecure backup --follow`, once what was committed until now is in `dest`."""
        log = self.folder / f"follow-{time.monotonic_ns()}.log"
        arguments = ["backup", str(dest), "--follow", "--spool", str(self.folder / "spool"), *options]
        with started(arguments, log, self.settings(), self.folder) as running:
            yield running


def wait_until_shipped(backend: Backend, dest: Path) -> None:
    """Until what is committed by now is in `dest`."""
    [(now,)] = backend.sql("SELECT clock_timestamp()")

    def is_shipped() -> bool:
        position = read_position(dest / "wal")
        return position is not None and position.at > now

    wait_until(is_shipped, "a mark after what was committed")


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def sign_in(service: Service, email: str = ADMIN) -> Browser:
    browser = service.browser()
    assert browser.login(email, demo.PASSWORD).status_code == 200
    return browser


@contextmanager
def reachable_folder() -> Iterator[Path]:
    """A folder that PostgreSQL's user can pass through, also if root runs the tests."""
    folder = Path(tempfile.mkdtemp(prefix="tests-", dir=shared_folder()))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)
