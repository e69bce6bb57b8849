"""PostgreSQL's own programs, of the server's major version: where they are, and running them."""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from persistence.backup import BackupError
from persistence.embedded import EmbeddedError
from persistence.embedded.postgresql import PROGRAMS, WHEEL
from persistence.embedded.wheels import require_wheel

CLIENTS = ("pg_basebackup", "pg_dump", "pg_receivewal", "pg_restore")
SERVER = ("postgres",)
# Where packages put them: Debian and Ubuntu; Red Hat, SUSE. Debian's own /usr/bin has a script that picks
# some version, and is not asked.
PACKAGED = ("/usr/lib/postgresql/{major}/bin", "/usr/pgsql-{major}/bin", "/usr/lib/postgresql{major}/bin")
ERROR_LINES = 5  # of what a program says, in an error


def find_programs(major: int, names: Sequence[str], chosen: str | None) -> Path:
    """The folder of these programs of PostgreSQL `major`; `chosen`: PG_BIN, where the operator set it.
    Raises BackupError, which says what to install."""
    if chosen:
        if not has_programs(Path(chosen), major, names):
            raise BackupError(f"PG_BIN has not all of {', '.join(names)} of PostgreSQL {major}")
        return Path(chosen)
    for folder in candidates(major):
        if has_programs(folder, major, names):
            return folder
    package = f"postgresql-{major}" if names == SERVER else f"postgresql-client-{major}"
    raise BackupError(
        f"the programs of PostgreSQL {major} are not on this machine: install {package} (Debian's name), or "
        "name their folder in PG_BIN"
    )


def candidates(major: int) -> Iterator[Path]:
    yield from (Path(folder.format(major=major)) for folder in PACKAGED)
    yield from (Path(folder) for folder in os.get_exec_path() if folder)
    if major in PROGRAMS:
        with suppress(EmbeddedError):
            yield require_wheel(WHEEL) / PROGRAMS[major]


def has_programs(folder: Path, major: int, names: Sequence[str]) -> bool:
    return all(os.access(folder / name, os.X_OK) for name in names) and version_of(folder / names[0]) == major


def version_of(program: Path) -> int | None:
    try:
        said = subprocess.run(  # noqa: S603 - a program of PostgreSQL's
            [program, "--version"], capture_output=True, text=True, check=False
        ).stdout
    except OSError:
        return None
    found = re.search(r"\(PostgreSQL\) (\d+)", said)
    return int(found[1]) if found else None


def split_password(url: str) -> tuple[str, dict[str, str]]:
    """A URL for the programs' arguments, which every user of the machine can read, and the environment that
    has the password."""
    parts = urlsplit(url.replace("postgresql+asyncpg://", "postgresql://", 1))
    user, at, hosts = parts.netloc.rpartition("@")
    name, colon, password = user.partition(":")
    options = parse_qsl(parts.query)
    passwords = [value for key, value in options if key == "password"]
    passwords += [unquote(password)] if colon else []
    query = urlencode([pair for pair in options if pair[0] != "password"], quote_via=quote)
    without = f"{parts.scheme}://{name}{at}{hosts}{parts.path}{'?' if query else ''}{query}"
    return without, {"PGPASSWORD": passwords[0]} if passwords else {}


def environment_of(secrets: dict[str, str]) -> dict[str, str]:
    """For a program: what libpq reads, and nothing of ours, which has keys in it."""
    kept = {"PATH", "HOME", "TMPDIR", "TZ"}
    mine = {key: value for key, value in os.environ.items() if key in kept or key.startswith("PG")}
    return {**mine, **secrets, "LC_ALL": "C"}


@contextmanager
def output_of(command: Sequence[str], secrets: dict[str, str]) -> Iterator[IO[bytes]]:
    """What the program writes. BackupError at the end: it failed."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(  # noqa: S603 - a program of PostgreSQL's
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment_of(secrets),
        )
        assert process.stdout  # noqa: S101 - for mypy: it is a pipe
        try:
            yield process.stdout
            status = process.wait()
        finally:  # in an error of ours too: nobody reads on
            process.stdout.close()
            process.kill()
            process.wait()
        if status != 0:
            errors.seek(0)
            raise BackupError(failure_of(command[0], errors.read()))


def run(command: Sequence[str], secrets: dict[str, str]) -> None:
    """Raises BackupError."""
    with output_of(command, secrets) as output:
        output.read()


def failure_of(program: str, said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()[-ERROR_LINES:]
    return f"{Path(program).name} failed: {'; '.join(line.strip() for line in lines)}"
