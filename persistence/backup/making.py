"""One backup: physical, by pg_basebackup, or a dump, by pg_dump."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import msgspec

from persistence.backup import BackupError
from persistence.backup.files import Compressed, new_folder, replace, write_new
from persistence.backup.manifest import MANIFEST, Backup, Kind, Manifest, backups_in, encode
from persistence.backup.programs import CLIENTS, find_programs, output_of, split_password
from persistence.backup.source import Facts, Session, connected, require_replication

# The log that the backup needs is fetched at its end, so that all of it goes down one pipe; a slot keeps the
# server from removing it meanwhile.
BASE = ("-D", "-", "-F", "tar", "-X", "fetch", "--checkpoint=fast", "--no-password", "--label=medisecure")
# Whoever restores it makes the roles; and a session that is not in it has ended.
DUMP = (
    *("-F", "custom", "--compress=1", "--no-owner", "--no-privileges", "--no-password"),
    "--exclude-table-data=public.sessions",
)
SLOT = "SELECT lsn::text FROM pg_create_physical_replication_slot($1, true, true)"
SEGMENT = "SELECT pg_walfile_name($1::text::pg_lsn)"
SNAPSHOT = """
    BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL idle_in_transaction_session_timeout = 0
"""
# PostgreSQL has it since 14. It would take the slot with it.
STAY = "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'"
EXPORT = "SELECT pg_export_snapshot()"


def choose_kind(url: str) -> tuple[Kind, str]:
    """Physical where that can be; and else why it cannot. Raises what a connection raises."""
    with connected(url):  # else a server that is away would be one that has no replication
        pass
    try:
        require_replication(url)
    except BackupError as error:
        return "dump", str(error)
    return "physical", ""


def make_backup(url: str, dest: Path, recipients: Sequence[str], kind: Kind, pg_bin: str | None) -> Backup:
    """Whole and on disk when it returns; on any error, and if this process is killed, there is none. Raises
    BackupError, OSError, and what a connection raises."""
    dest.mkdir(mode=0o700, parents=True, exist_ok=True)
    with connected(url) as session:
        facts = session.facts()
        require_same_system(dest, facts)
        programs = find_programs(facts.major, CLIENTS, pg_bin)
        name = f"{facts.now:%Y%m%dT%H%M%SZ}-{kind}-{uuid4().hex[:6]}"
        with new_folder(dest / name) as folder:
            fill = fill_base if kind == "physical" else fill_dump
            manifest = fill(session, facts, folder, url, recipients, programs)
            replace(folder / MANIFEST, encode(manifest))
    return Backup(dest / name, manifest)


def require_same_system(dest: Path, facts: Facts) -> None:
    """The log in `dest` is of one server."""
    for backup in backups_in(dest):
        if backup.manifest.system_identifier != facts.system:
            raise BackupError(f"{dest} has backups of another server; choose a folder for each")
        return


def fill_base(
    session: Session, facts: Facts, folder: Path, url: str, recipients: Sequence[str], programs: Path
) -> Manifest:
    session.rows(STAY)
    begins = session.value(SLOT, f"medisecure_base_{uuid4().hex[:12]}")
    manifest = begin_manifest(session, facts, "physical", recipients, session.value(SEGMENT, begins))
    place, secrets = split_password(url)
    command = [str(programs / "pg_basebackup"), "-d", place, *BASE]
    with output_of(command, secrets) as output:
        file = write_new(folder / named("base.tar.gz", recipients), Compressed(output), recipients)
    return msgspec.structs.replace(manifest, files=[file], made_at=session.facts().now)


def fill_dump(
    session: Session, facts: Facts, folder: Path, url: str, recipients: Sequence[str], programs: Path
) -> Manifest:
    with snapshot(session) as exported:
        manifest = begin_manifest(session, facts, "dump", recipients, "")
        place, secrets = split_password(url)
        command = [str(programs / "pg_dump"), "-d", place, *DUMP, f"--snapshot={exported}"]
        with output_of(command, secrets) as output:
            file = write_new(folder / named("database.dump", recipients), output, recipients)
    return msgspec.structs.replace(manifest, files=[file], made_at=session.facts().now)


@contextmanager
def snapshot(session: Session) -> Iterator[str]:
    """What this session sees, pg_dump sees."""
    session.execute(SNAPSHOT)
    yield session.value(EXPORT)
    session.execute("COMMIT")


def begin_manifest(
    session: Session, facts: Facts, kind: Kind, recipients: Sequence[str], first_segment: str
) -> Manifest:
    return Manifest(
        kind=kind,
        until=facts.now,
        made_at=facts.now,
        server_version=facts.version,
        major=facts.major,
        system_identifier=facts.system,
        database=facts.database,
        superuser=facts.superuser,
        revision=facts.revision,
        first_segment=first_segment,
        trail_head=session.trail_head(),
        rows=session.count_rows(),
        files=[],
        encrypted=bool(recipients),
        recipients=list(recipients),
    )


def named(name: str, recipients: Sequence[str]) -> str:
    return f"{name}.age" if recipients else name
