"""Old backups, and the log that no backup needs any more."""

import shutil
from pathlib import Path

from persistence.backup.files import PARTIAL, sync
from persistence.backup.log_files import HISTORY, files_in
from persistence.backup.manifest import Kind, backups_in


def prune(dest: Path, keep: int, kind: Kind) -> list[str]:
    """Remove all but the newest `keep` backups of a kind: no number of dumps makes the base superfluous from
    which the log goes on. The names of those that went. Raises what backups_in does."""
    backups = list(backups_in(dest))
    old = [backup for backup in backups if backup.manifest.kind == kind][keep:]
    for backup in old:
        going = backup.folder.rename(backup.folder.with_name(PARTIAL + backup.folder.name))
        shutil.rmtree(going)
    sync(dest)
    bases = [backup for backup in backups if backup.manifest.kind == "physical" and backup not in old]
    oldest = min((base.manifest.first_segment[8:] for base in bases), default="")
    for file in files_in(dest / "wal"):
        if not HISTORY.fullmatch(file.name) and file.name[8:] < oldest:
            file.path.unlink()
    return [backup.folder.name for backup in old]
