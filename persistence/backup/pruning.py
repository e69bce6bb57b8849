"""Old backups, and the log that no backup needs any more."""

import shutil
from pathlib import Path

from persistence.backup.files import PARTIAL, sync
from persistence.backup.log_files import HISTORY, files_in
from persistence.backup.manifest import backups_in


def prune(dest: Path, keep: int) -> list[str]:
    """Remove all but the newest `keep` backups; the names of those that went. Raises what backups_in does."""
    backups = list(backups_in(dest))
    for backup in backups[keep:]:
        going = backup.folder.rename(backup.folder.with_name(PARTIAL + backup.folder.name))
        shutil.rmtree(going)
    sync(dest)
    needed = [each.manifest.first_segment for each in backups[:keep] if each.manifest.first_segment]
    for file in files_in(dest / "wal"):
        if needed and not HISTORY.fullmatch(file.name) and file.name[8:] < min(one[8:] for one in needed):
            file.path.unlink()
    return [backup.folder.name for backup in backups[keep:]]
