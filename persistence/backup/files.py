"""Files and folders that are whole as soon as they have their name, readable by their owner only, and on disk
when a function here returns."""

import fcntl
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import IO
from uuid import uuid4

from msgspec import Struct

from persistence.backup import DamagedError
from security import age
from security.age import AgeError, Source, Target

PIECE = 1 << 18  # bytes
PARTIAL = ".partial-"  # begins the name of what is not whole
GZIP = 31  # zlib's number for the gzip format
FAST = 1  # zlib's level: a third of the size, at 100 MB/s


class File(Struct, frozen=True):
    name: str
    bytes: int
    sha256: str


class Summed:
    """A target or source that sums what passes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.bytes = 0
        self.digest = sha256()

    def write(self, data: bytes) -> int:
        self.note(data)
        return self.stream.write(data)

    def read(self, size: int = PIECE) -> bytes:
        data = self.stream.read(size)
        self.note(data)
        return data

    def note(self, data: bytes) -> None:
        self.bytes += len(data)
        self.digest.update(data)

    def file(self, name: str) -> File:
        return File(name, self.bytes, self.digest.hexdigest())


class Compressed:
    """A source, in the gzip format."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.compressor = zlib.compressobj(FAST, wbits=GZIP)
        self.ready = bytearray()
        self.has_ended = False

    def read(self, size: int) -> bytes:
        while len(self.ready) < size and not self.has_ended:
            data = self.source.read(PIECE)
            self.ready += self.compressor.compress(data) if data else self.compressor.flush()
            self.has_ended = not data
        piece = bytes(self.ready[:size])
        del self.ready[:size]
        return piece


class Expanded:
    """A target for what Compressed gave. DamagedError: it is something else."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.expander = zlib.decompressobj(GZIP)

    def write(self, data: bytes) -> None:
        try:
            self.target.write(self.expander.decompress(data))
        except zlib.error as error:
            raise DamagedError(f"its content is damaged ({error})") from error

    def finish(self) -> None:
        if not self.expander.eof or self.expander.unused_data:
            raise DamagedError("its content does not end where it should")


def copy(source: Source, target: Target) -> None:
    while data := source.read(PIECE):
        target.write(data)


def write_new(path: Path, source: Source, recipients: Sequence[str]) -> File:
    """Write what `source` has, encrypted if there is anybody to encrypt it for. Raises OSError, AgeError."""
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(opened, "wb") as target:
        summed = Summed(target)
        if recipients:
            age.encrypt(source, summed, recipients)
        else:
            copy(source, summed)
        target.flush()
        os.fsync(target.fileno())
    return summed.file(path.name)


def write_named(folder: Path, source: Source, recipients: Sequence[str], name: Callable[[str], str]) -> None:
    """As write_new, in one step under the name that `name` makes of the SHA-256."""
    partial = folder / f"{PARTIAL}{uuid4().hex}"
    try:
        file = write_new(partial, source, recipients)
        partial.rename(folder / name(file.sha256))
    finally:
        partial.unlink(missing_ok=True)
    sync(folder)


def read_checked(path: Path, digest: str, target: Target, identities: Sequence[str]) -> None:
    """Pass on what is in the file, decrypted if it is encrypted, expanded if it is compressed. Raises
    DamagedError, at its end at the latest, if one byte of it is not what was written."""
    with open(path, "rb") as opened:
        pass_on(opened, path, digest, target, identities)


def pass_on(opened: IO[bytes], path: Path, digest: str, target: Target, identities: Sequence[str]) -> None:
    """As read_checked, of a file that is open."""
    expanded = Expanded(target) if ".gz" in path.suffixes else None
    summed = Summed(opened)
    try:
        if path.suffix == ".age":
            age.decrypt(summed, expanded or target, identities)
        else:
            copy(summed, expanded or target)
        if expanded:
            expanded.finish()
    except (AgeError, DamagedError) as error:
        raise DamagedError(f"{path}: {error}") from error
    if summed.digest.hexdigest() != digest:
        raise DamagedError(f"{path}: its SHA-256 is not the one that was noted: a byte of it is changed")


def replace(path: Path, data: bytes) -> None:
    """In one step."""
    partial = path.with_name(f"{PARTIAL}{uuid4().hex}")
    try:
        with open(partial, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as target:
            target.write(data)
            target.flush()
            os.fsync(target.fileno())
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    sync(path.parent)


def sync(folder: Path) -> None:
    """Have what the folder names on disk, as a rename of itself or in it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill. It has its name at the end of the block, and is gone if that does not come."""
    remove_leftovers(folder.parent, PARTIAL)
    partial = folder.with_name(PARTIAL + folder.name)
    with ExitStack() as cleanup:
        partial.mkdir(mode=0o700)
        cleanup.callback(shutil.rmtree, partial, ignore_errors=True)
        cleanup.enter_context(locked(partial))
        yield partial
        sync(partial)
        partial.rename(folder)
        sync(folder.parent)


def remove_leftovers(place: Path, prefix: str) -> None:
    """Remove folders of this prefix whose makers were killed; one who still works holds a lock."""
    for folder in place.glob(f"{prefix}*"):
        if folder.is_dir() and folder.lstat().st_uid == os.geteuid():
            with suppress(OSError), locked(folder):
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """BlockingIOError: another process holds it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
