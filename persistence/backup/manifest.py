"""What a backup says of itself, and which backups there are in a folder."""

from collections.abc import Iterator
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
from msgspec import Struct

from persistence.backup import BackupError, DamagedError
from persistence.backup.files import File

FORMAT = 1


MANIFEST = "manifest.json"
Kind = Literal["physical", "dump"]
T = TypeVar("T", bound=Struct)


class Versioned(Struct, frozen=True):
    """What every format has."""

    format: int


class Manifest(Struct, frozen=True, kw_only=True):
    """`until`: what was committed before is in it. `rows` and `trail_head` were read at the begin: of a dump
    they are exact, a physical backup may have more. `first_segment`: of the log, which its restore needs."""

    format: int = FORMAT
    kind: Kind
    until: datetime
    made_at: datetime
    server_version: str
    major: int
    system_identifier: str
    database: str
    superuser: str
    revision: str
    first_segment: str
    trail_head: str
    rows: dict[str, int]
    files: list[File]
    encrypted: bool
    recipients: list[str]


class Position(Struct, frozen=True, kw_only=True):
    """How far the log in `wal` reaches: to `lsn`, where the server was at the time `at`."""

    format: int = FORMAT
    system_identifier: str
    lsn: str
    at: datetime


class Backup(Struct, frozen=True):
    folder: Path
    manifest: Manifest

    @property
    def wal(self) -> Path:
        return self.folder.parent / "wal"


def encode(content: Struct) -> bytes:
    """As JSON, with a sum over it: a changed byte is seen in this file as well."""
    body = msgspec.json.format(msgspec.json.encode(content), indent=2)
    return body + b"\n" + sha256(body).hexdigest().encode() + b"\n"


def decode(path: Path, kind: type[T]) -> T:
    """Raises DamagedError, BackupError, OSError."""
    data = path.read_bytes()
    body, _, sum_ = data.rstrip(b"\n").rpartition(b"\n")
    if sha256(body).hexdigest().encode() != sum_ or not data.endswith(sum_ + b"\n"):
        raise DamagedError(f"{path} is damaged: its content and its sum differ")
    try:
        number = msgspec.json.decode(body, type=Versioned).format
        if number == FORMAT:
            return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise DamagedError(f"{path} is not what `medisecure backup` writes: {error}") from error
    raise BackupError(f"{path} is of format {number}, which this release does not read")


def is_backup(folder: Path) -> bool:
    return (folder / MANIFEST).is_file() and not folder.name.startswith(".")


def backups_in(dest: Path) -> Iterator[Backup]:
    """The whole ones, the newest first. Raises DamagedError, BackupError, OSError."""
    for folder in sorted(dest.iterdir(), key=lambda each: each.name, reverse=True):
        if is_backup(folder):
            yield Backup(folder, decode(folder / MANIFEST, Manifest))


def find_backup(dest: Path, until: datetime | None = None) -> Backup:
    """The one in `dest` that has the newest data, or `dest` itself where it is one; with `until`, the newest
    from which that moment can be reached. Raises BackupError."""
    if is_backup(dest):
        found = Backup(dest, decode(dest / MANIFEST, Manifest))
        if until is not None:
            require_before(found.manifest, until)
        return found
    if until is None:
        if newest := find_newest(dest):
            return newest
        raise BackupError(f"there is no backup in {dest}")
    for backup in backups_in(dest):
        if backup.manifest.kind == "physical" and backup.manifest.made_at <= until:
            return backup
    raise BackupError(f"there is no physical backup in {dest} that was made before {until.isoformat()}")


def require_before(manifest: Manifest, until: datetime) -> None:
    """Raises BackupError."""
    if manifest.kind == "dump":
        raise BackupError("a dump holds one moment only; --until needs a physical backup and its log")
    if manifest.made_at > until:
        raise BackupError(f"the backup was made at {manifest.made_at.isoformat()}, after --until")


def find_newest(dest: Path) -> Backup | None:
    """By what is in it: a physical backup goes on with the log, perhaps beyond a dump that was made later."""
    backups = backups_in(dest)
    newest = next(backups, None)
    position = read_position(dest / "wal")
    if newest and newest.manifest.kind == "dump" and position and position.at > newest.manifest.until:
        return next((each for each in backups if each.manifest.kind == "physical"), newest)
    return newest


def read_position(wal: Path) -> Position | None:
    """None where nobody followed. Raises DamagedError."""
    path = wal / "position.json"
    return decode(path, Position) if path.exists() else None
