"""`medisecure restore` and `medisecure drill`."""

import argparse
import asyncio
import os
import time
from datetime import UTC, datetime
from pathlib import Path

from api.commands.backup_settings import BackupSettings
from api.commands.environment import CommandError, ending_in_order, require_database_url
from api.commands.maintenance import audit_keys, print_report, verify_seals
from api.settings import read_setting
from persistence.audit_chain import Key
from persistence.backup import BackupError
from persistence.backup.manifest import Backup, find_backup, read_position
from persistence.backup.proofs import Proof, record_proof
from persistence.backup.restoring import Restored, restore_to_url, restored_on_scratch
from persistence.backup.scratch import scratch_place
from persistence.migrations.revisions import revisions

MAX_RPO_SECONDS, MAX_RTO_SECONDS = 60.0, 900.0


def restore(arguments: argparse.Namespace) -> None:
    settings = BackupSettings.read()
    found = find_backup(arguments.dest, arguments.until)
    identities = settings.identities(encrypted=found.manifest.encrypted)
    begun = time.monotonic()
    manifest = found.manifest
    made = f"a {manifest.kind} of PostgreSQL {manifest.server_version}, {manifest.made_at:%Y-%m-%d %H:%M} UTC"
    print(f"Restoring {found.folder}, {made}", flush=True)
    with ending_in_order():
        if arguments.data_dir:
            restored = restore_data_dir(found, identities, arguments, settings.pg_bin)
        else:
            url = require_database_url()
            with scratch_place() as place:
                restored = restore_to_url(found, identities, url, place, settings.pg_bin, arguments.until)
    print(f"It holds what was committed until {restored.until:%Y-%m-%d %H:%M:%S} UTC.")
    print(f"{arguments.data_dir or 'The database at DATABASE_URL'} is restored, and every session has ended.")
    print(f"It took {time.monotonic() - begun:.0f} s.")
    print(next_steps(found, is_folder=bool(arguments.data_dir)))


def restore_data_dir(
    found: Backup, identities: list[str], arguments: argparse.Namespace, pg_bin: str | None
) -> Restored:
    """Under another name until the log is replayed and the sessions have ended. Raises CommandError."""
    target: Path = arguments.data_dir.absolute()
    if found.manifest.kind == "dump":
        raise CommandError("a dump goes into the database at DATABASE_URL, not into --data-dir")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CommandError(f"{target} is not empty; name a folder that is, or none yet")
    with scratch_place(target.parent, target) as place:
        with restored_on_scratch(found, identities, place, pg_bin, arguments.until) as restored:
            pass  # it has all that there is, and no session
        place.data.rename(target)
    return restored


def next_steps(found: Backup, *, is_folder: bool) -> str:
    steps = ["start PostgreSQL on it"] if is_folder else []
    if found.manifest.revision not in revisions()[1]:
        steps.append("it is of an older release: run `medisecure migrate`, which `serve` asks for")
    if not is_folder:
        steps.append("give the service its rights: `medisecure migrate --grant-to ROLE`")
    steps.append(f"check the trail: `medisecure verify-audit --head {found.manifest.trail_head}`")
    return "\n".join(f"Next: {step}" for step in [*steps, "empty Redis, then start the service"])


def drill(arguments: argparse.Namespace) -> None:
    """Exit status 1 where the backup does not prove itself within the targets."""
    settings = BackupSettings.read()
    dest = arguments.dest or (Path(settings.backup_dest) if settings.backup_dest else None)
    if dest is None:
        raise CommandError("name the folder of the backups, or set BACKUP_DEST")
    keys = audit_keys(os.environ)
    if not keys:
        raise CommandError(
            "set AUDIT_KEY or SECRET_KEY: without the key nobody can tell a whole trail from another"
        )
    begun, begun_at = time.monotonic(), datetime.now(UTC)
    found = find_backup(dest)
    identities = settings.identities(encrypted=found.manifest.encrypted)
    print(f"Restoring {found.folder} into a scratch server …", flush=True)
    with (
        ending_in_order(),
        scratch_place() as place,
        restored_on_scratch(found, identities, place, settings.pg_bin) as restored,
    ):
        replayed = time.monotonic() - begun
        require_whole_trail(restored, keys, found.manifest.trail_head)
        rto = time.monotonic() - begun
    rpo = max(0.0, (begun_at - restored.until).total_seconds())
    print(*(f"{table}: {rows} rows" for table, rows in restored.rows.items()), sep="\n")
    print(f"RPO {rpo:.0f} s: what was committed until {restored.until:%Y-%m-%d %H:%M:%S} UTC is there")
    print(f"RTO {rto:.0f} s: {replayed:.0f} s to restore it, {rto - replayed:.0f} s to check it")
    require_targets(arguments, found, rpo, rto)
    note_proof(Proof(found.folder.name, found.manifest.kind, restored.until, rpo, rto))


def require_whole_trail(restored: Restored, keys: list[Key], noted_head: str) -> None:
    report = asyncio.run(verify_seals(restored.url, keys, noted_head))
    print_report(report)
    if report.problems:
        raise CommandError("the audit trail of the backup is damaged, or a key to it was not given")


def require_targets(arguments: argparse.Namespace, found: Backup, rpo: float, rto: float) -> None:
    """A dump's RPO is its own interval: it has a target only where the operator names one."""
    is_dump = found.manifest.kind == "dump"
    max_rpo = arguments.max_rpo if arguments.max_rpo is not None else None if is_dump else MAX_RPO_SECONDS
    late = []
    if max_rpo is not None and rpo > max_rpo:
        advice = "" if is_dump or read_position(found.wal) else ": does `medisecure backup --follow` run?"
        late.append(f"the RPO is {rpo:.0f} s, over {max_rpo:g} s{advice}")
    if rto > arguments.max_rto:
        late.append(f"the RTO is {rto:.0f} s, over {arguments.max_rto:g} s")
    if late:
        raise CommandError("; ".join(late))


def note_proof(proof: Proof) -> None:
    """Where readiness and metrics read it: in the live database, if this machine may write there."""
    if not read_setting("DATABASE_URL", os.environ):
        print("The backup is proven. DATABASE_URL is not set, so the service does not hear of it.")
        return
    try:
        record_proof(require_database_url(), proof)
    except BackupError as error:
        raise CommandError(f"the backup is proven, but that could not be noted: {error}") from error
    print("The backup is proven, and that is noted.")
