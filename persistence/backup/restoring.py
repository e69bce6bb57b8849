"""A backup, as a database again. Whatever way it goes, every session in it has ended before anybody can reach
it."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from persistence.backup import BackupError, DamagedError
from persistence.backup.files import copy, read_checked
from persistence.backup.log_files import lay
from persistence.backup.making import DUMP
from persistence.backup.manifest import Backup, Manifest, Position, read_position
from persistence.backup.programs import (
    CLIENTS,
    SERVER,
    failure_of,
    find_programs,
    output_of,
    run,
    split_password,
)
from persistence.backup.scratch import Place, give, require_reachable, running, unpack
from persistence.backup.source import END_SESSIONS, Session, connected
from persistence.embedded.processes import ServerGroup

REACHED = """
    SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn AS has_all,
           pg_last_xact_replay_timestamp() AS last
"""
SUPERUSER, DATABASE = "postgres", "medisecure"  # of a scratch server that is made for a dump


class Restored(NamedTuple):
    """`until`: whatever was committed before is in it. `rows`: of each table that keeps all its rows."""

    url: str
    until: datetime
    rows: dict[str, int]


@contextmanager
def restored_on_scratch(
    backup: Backup, identities: Sequence[str], place: Place, pg_bin: str | None, until: datetime | None = None
) -> Iterator[Restored]:
    """A scratch server on the backup, physical or a dump. Raises BackupError, DamagedError, OSError."""
    if backup.manifest.kind == "physical":
        restoring = restored_base(backup, identities, place, pg_bin, until)
    else:
        restoring = restored_dump(backup, identities, place, pg_bin)
    with restoring as restored:
        require_rows(backup.manifest, restored.rows)
        yield restored


@contextmanager
def restored_base(
    backup: Backup, identities: Sequence[str], place: Place, pg_bin: str | None, until: datetime | None
) -> Iterator[Restored]:
    manifest = backup.manifest
    position = read_position(backup.wal)  # before the log, which may grow meanwhile
    programs = find_programs(manifest.major, SERVER, pg_bin)
    unpack_base(backup, identities, place)
    log = place.data / "pg_wal"
    lay(backup.wal, manifest.first_segment, log, identities)
    give(place, *(path for path in log.iterdir() if path.is_file()))
    (place.data / "recovery.signal").touch()
    give(place, place.data / "recovery.signal")
    with running(place, programs, until) as where:
        url = url_of(manifest.superuser, manifest.database, where)
        with connected(url) as session:
            reached = until or require_whole_log(backup, position, session)
            session.execute(END_SESSIONS)
            rows = session.count_rows()
        yield Restored(url, reached, rows)


def unpack_base(backup: Backup, identities: Sequence[str], place: Place) -> None:
    [file] = backup.manifest.files
    process = unpack(place)
    assert process.stdin  # noqa: S101 - for mypy: it is a pipe
    assert process.stderr  # noqa: S101 - as above
    with process:
        try:
            with suppress(BrokenPipeError), process.stdin as pipe:
                read_checked(backup.folder / file.name, file.sha256, pipe, identities)
        except BaseException:
            process.kill()
            raise
        said = process.stderr.read()
    if process.returncode != 0:
        raise BackupError(failure_of("tar", said))


def require_whole_log(backup: Backup, position: Position | None, session: Session) -> datetime:
    """The moment that the restored database has reached. DamagedError: it lacks some of what was followed."""
    if position and position.system_identifier != backup.manifest.system_identifier:
        raise DamagedError(f"{backup.wal} is the log of another server")
    [row] = session.rows(REACHED, position.lsn if position else "0/0")
    if not row["has_all"]:
        raise DamagedError(f"a part of the log in {backup.wal} is missing or damaged")
    return max(backup.manifest.until, row["last"] or backup.manifest.until)


@contextmanager
def restored_dump(
    backup: Backup, identities: Sequence[str], place: Place, pg_bin: str | None
) -> Iterator[Restored]:
    """A dump holds one moment: find_backup has seen to it that no other is asked for."""
    programs = find_programs(backup.manifest.major, (*SERVER, "initdb", "pg_restore"), pg_bin)
    plain = decrypt_dump(backup, identities, place)
    with ServerGroup() as group:
        reachable = require_reachable(programs, group, place)
        command = [f"{reachable}/initdb", "-D", str(place.data), "-U", SUPERUSER, "--auth=trust"]
        command += ["--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        group.run(command, place.log, place.account)
    with running(place, programs) as where:
        with connected(url_of(SUPERUSER, "postgres", where)) as session:
            session.execute(f"CREATE DATABASE {DATABASE}")
        url = url_of(SUPERUSER, DATABASE, where)
        load_dump(plain, url, programs)
        with connected(url) as session:
            rows = session.count_rows()
        yield Restored(url, backup.manifest.until, rows)


def decrypt_dump(backup: Backup, identities: Sequence[str], place: Place) -> Path:
    [file] = backup.manifest.files
    plain = place.folder / "database.dump"
    with open(plain, "xb", opener=private) as target:
        read_checked(backup.folder / file.name, file.sha256, target, identities)
    return plain


def load_dump(plain: Path, url: str, programs: Path) -> None:
    """Into an empty database, which is of no use if this fails: drop it."""
    target, secrets = split_password(url)
    command = [str(programs / "pg_restore"), "-d", target, "--no-owner", "--no-privileges", "--no-password"]
    command += ["--exit-on-error", f"--jobs={max(2, os.cpu_count() or 1)}", str(plain)]
    run(command, secrets)
    plain.unlink()
    with connected(url) as session:
        session.execute(END_SESSIONS)  # a dump has none; whatever it is, they end
        session.execute("ANALYZE")


def restore_to_url(
    backup: Backup,
    identities: Sequence[str],
    url: str,
    place: Place,
    pg_bin: str | None,
    until: datetime | None = None,
) -> Restored:
    """Into the empty database at `url`; a physical backup by way of a scratch server. Raises BackupError,
    DamagedError, OSError, and what a connection raises."""
    major = require_empty(url, backup.manifest)
    programs = find_programs(major, CLIENTS, pg_bin)
    if backup.manifest.kind == "dump":
        plain = decrypt_dump(backup, identities, place)
        expected, reached = backup.manifest.rows, backup.manifest.until
    else:
        with restored_on_scratch(backup, identities, place, pg_bin, until) as restored:
            plain = place.folder / "database.dump"
            own = find_programs(backup.manifest.major, ("pg_dump",), pg_bin)
            command = [str(own / "pg_dump"), "-d", restored.url, *DUMP]
            with output_of(command, {}) as output, open(plain, "xb", opener=private) as target:
                copy(output, target)
            expected, reached = restored.rows, restored.until
    load_dump(plain, url, programs)
    with connected(url) as session:
        rows = session.count_rows()
    if rows != expected:
        raise DamagedError(f"the restored database has {rows} rows; {expected} were expected")
    return Restored(url, reached, rows)


def require_empty(url: str, manifest: Manifest) -> int:
    """The major version of the server. Raises BackupError."""
    with connected(url) as session:
        if not session.is_empty():
            raise BackupError("the database at DATABASE_URL is not empty; create a new one for the restore")
        major = int(session.value("SELECT current_setting('server_version_num')::int / 10000"))
    if major < manifest.major:
        raise BackupError(
            f"the backup is of PostgreSQL {manifest.major}, the server at DATABASE_URL is {major}; take one "
            "that is not older"
        )
    return major


def require_rows(manifest: Manifest, rows: dict[str, int]) -> None:
    """A dump has what was counted in its snapshot; a physical backup that, and what came since."""
    for table, noted in manifest.rows.items():
        found = rows[table]
        if found < noted or (found > noted and manifest.kind == "dump"):
            raise DamagedError(f"{table} has {found} rows; {noted} were noted when the backup was made")


def url_of(user: str, database: str, where: str) -> str:
    return f"postgresql://{quote(user, safe='')}@/{quote(database, safe='')}?{where}"


def private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
