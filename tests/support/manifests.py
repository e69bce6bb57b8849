"""Backups that have a manifest and nothing else."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from persistence.backup.files import File, replace
from persistence.backup.log_files import ship
from persistence.backup.manifest import MANIFEST, Backup, Manifest, Position, encode

SYSTEM = "7"


def at(hour: int) -> datetime:
    return datetime(2026, 11, 26, hour, tzinfo=UTC)


def add_backup(dest: Path, hour: int, kind: str = "physical", **changes: Any) -> Backup:
    """In a folder whose name sorts by the hour at which it was made."""
    fields = {
        "kind": kind,
        "until": at(hour),
        "made_at": at(hour),
        "server_version": "18.4",
        "major": 18,
        "system_identifier": SYSTEM,
        "database": "medisecure",
        "superuser": "postgres",
        "revision": "0001",
        "first_segment": segment(hour) if kind == "physical" else "",
        "trail_head": "0:",
        "rows": {},
        "files": [File("base.tar", 0, "")],
        "encrypted": False,
        "recipients": [],
    }
    backup = Backup(dest / f"{hour:02}-{kind}", Manifest(**{**fields, **changes}))
    backup.folder.mkdir(parents=True)
    replace(backup.folder / MANIFEST, encode(backup.manifest))
    return backup


def reach(dest: Path, hour: int, system: str = SYSTEM) -> Position:
    """The log in `dest` was followed until then."""
    position = Position(system_identifier=system, lsn="0/1", at=at(hour))
    (dest / "wal").mkdir(exist_ok=True)
    replace(dest / "wal/position.json", encode(position))
    return position


def segment(number: int, timeline: int = 1) -> str:
    return f"{timeline:08X}{0:08X}{number:08X}"


def ship_text(folder: Path, wal: Path, name: str, text: str = "") -> None:
    """Into `wal` as if it had come from the server under this name."""
    folder.mkdir(exist_ok=True)
    wal.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text or name)
    ship(folder / name, wal, [])
    (folder / name).unlink()
