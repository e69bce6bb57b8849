"""The write-ahead log in DEST/wal: a file for each segment, with the SHA-256 of it in its name."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from persistence.backup.files import Compressed, pass_on, write_named

SEGMENT = re.compile(r"[0-9A-F]{24}")
HISTORY = re.compile(r"[0-9A-F]{8}\.history")
NAME = re.compile(
    r"(?P<name>[0-9A-F]{24}|[0-9A-F]{8}\.history)(?P<partial>\.partial)?-(?P<sum>[0-9a-f]{64})\.gz(\.age)?"
)
LOG = 1 << 32  # bytes, that the middle part of a segment's name counts


class LogFile(NamedTuple):
    """`name`: PostgreSQL's. `is_partial`: its end is still to come."""

    path: Path
    name: str
    is_partial: bool
    digest: str


def files_in(wal: Path) -> Iterator[LogFile]:
    for path in sorted(wal.iterdir()) if wal.is_dir() else ():
        if found := NAME.fullmatch(path.name):
            yield LogFile(path, found["name"], bool(found["partial"]), found["sum"])


def number_of(segment: str, size: int) -> int:
    """Of a segment in the log, on whatever timeline."""
    return int(segment[8:16], 16) * (LOG // size) + int(segment[16:24], 16)


def ship(source: Path, wal: Path, recipients: Sequence[str]) -> None:
    """Put one of pg_receivewal's files into `wal`, whole from the moment that it is there; what it replaces
    is removed."""
    before = [file for file in files_in(wal) if file.name == source.name.removesuffix(".partial")]
    ending = ".gz.age" if recipients else ".gz"
    kept: list[str] = []

    def name(digest: str) -> str:
        kept.append(f"{source.name}-{digest}{ending}")
        return kept[-1]

    with open(source, "rb") as opened:
        write_named(wal, Compressed(opened), recipients, name)
    for file in before:
        if file.path.name not in kept:
            file.path.unlink()


def lay(wal: Path, first_segment: str, target: Path, identities: Sequence[str]) -> None:
    """Put what follows `first_segment`, that one included, into `target` under PostgreSQL's names. What is
    there stays, where the log has only a part of it. Raises DamagedError."""
    laid: set[Path] = set()
    while waiting := [file for file in needed(wal, first_segment) if file.path not in laid]:
        for file in waiting:
            laid.add(file.path)
            whole = target / file.name
            if file.is_partial and whole.exists():
                continue
            try:
                with open(file.path, "rb") as shipped, open(whole, "wb") as opened:
                    pass_on(shipped, file.path, file.digest, opened, identities)
            except FileNotFoundError:  # a follower has just replaced it, by one that comes with the next look
                continue


def needed(wal: Path, first_segment: str) -> Iterator[LogFile]:
    for file in files_in(wal):
        if HISTORY.fullmatch(file.name) or file.name[8:] >= first_segment[8:]:
            yield file
