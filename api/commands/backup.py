"""`medisecure backup` and `medisecure backup-keygen`."""

import argparse
import hashlib
import os
import signal
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from api.commands.backup_settings import BackupSettings
from api.commands.environment import CommandError, require_database_url
from persistence.backup import BackupError
from persistence.backup.files import locked
from persistence.backup.following import SLOT, Follower
from persistence.backup.making import choose_kind, make_backup
from persistence.backup.manifest import Backup, Kind
from persistence.backup.programs import CLIENTS, find_programs
from persistence.backup.pruning import prune
from persistence.backup.source import connected
from security.age import make_identity


def backup_keygen(arguments: argparse.Namespace) -> None:
    """Only the recipient is printed: what is printed ends up in logs."""
    identity, recipient = make_identity()
    text = (
        f"# of a backup of MediSecure, made {datetime.now(UTC):%Y-%m-%d}\n# public: {recipient}\n{identity}\n"
    )
    try:
        opened = os.open(arguments.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise CommandError(
            f"{arguments.file} exists; what it decrypts would be lost with it. Choose another name"
        ) from None
    with open(opened, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(opened)
    print(f"BACKUP_RECIPIENT={recipient}")
    print(f"The identity is in {arguments.file}: keep copies of it apart from the backups, never only there.")


def backup(arguments: argparse.Namespace) -> None:
    settings = BackupSettings.read()
    recipients = settings.recipients(unencrypted=arguments.unencrypted)
    url = require_database_url()
    if arguments.follow:
        if arguments.dump:
            raise CommandError("--follow goes with a physical backup, not with --dump")
        follow(url, arguments, recipients, settings.pg_bin)
        return
    kind = kind_for(url, is_dump=arguments.dump)
    report(make_backup(url, arguments.dest, recipients, kind, settings.pg_bin))
    if arguments.keep:
        for name in prune(arguments.dest, arguments.keep, kind):
            print(f"removed {name}")


def kind_for(url: str, *, is_dump: bool) -> Kind:
    if is_dump:
        return "dump"
    kind, reason = choose_kind(url)
    if kind == "dump":
        print(
            f"This role cannot replicate ({reason}), so this is a dump: it ends where it begins, and between"
        )
        print("two of them all is lost. docs/backup.md says what a physical backup needs.")
    return kind


def report(made: Backup) -> None:
    manifest = made.manifest
    size = sum(file.bytes for file in manifest.files)
    sealed = "encrypted" if manifest.encrypted else "NOT ENCRYPTED"
    seconds = (manifest.made_at - manifest.until).total_seconds()
    print(f"{made.folder}: {manifest.kind}, {size / 1e6:.1f} MB, {sealed}, in {seconds:.0f} s", flush=True)
    print(f"The head of the audit trail is {manifest.trail_head}; note it elsewhere.", flush=True)


def follow(url: str, arguments: argparse.Namespace, recipients: Sequence[str], pg_bin: str | None) -> None:
    """Until SIGTERM or SIGINT."""
    kind, reason = choose_kind(url)
    if kind == "dump":
        raise CommandError(f"--follow needs a role that may replicate: {reason}")
    with connected(url) as session:
        programs = find_programs(session.facts().major, CLIENTS, pg_bin)
    spool = spool_for(arguments.dest, arguments.spool)
    slot = None if arguments.no_slot else SLOT
    arguments.dest.mkdir(mode=0o700, parents=True, exist_ok=True)
    follower = Follower(url, arguments.dest, spool, recipients, programs, slot, say)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: follower.stop.set())
    try:
        with locked(spool):
            say(f"following into {arguments.dest}")
            follower.follow(lambda: report(make_backup(url, arguments.dest, recipients, "physical", pg_bin)))
    except BlockingIOError:
        raise CommandError(f"{spool} is in use: somebody follows into {arguments.dest} already") from None


def spool_for(dest: Path, chosen: Path | None) -> Path:
    """The private folder of this machine that belongs to `dest`; the same one at the next start. Raises
    BackupError."""
    name = hashlib.sha256(str(dest.resolve()).encode()).hexdigest()[:12]
    spool = chosen or Path(tempfile.gettempdir(), f"medisecure-spool-{os.geteuid()}-{name}")
    spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    if spool.is_symlink() or spool.stat().st_uid != os.geteuid() or spool.stat().st_mode & 0o077:
        raise BackupError(
            f"{spool} must be a folder of yours that nobody else can read; or name one by --spool"
        )
    return spool


def say(text: str) -> None:
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {text}", flush=True)
