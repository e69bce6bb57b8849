"""Backups of the database: made, followed, restored and proven with PostgreSQL's own programs.

A backup is a folder in DEST, whole from the moment that it has its name. `wal` beside it is the log of what
happened since, where `medisecure backup --follow` runs. docs/backup.md is the guide.
"""


class BackupError(Exception):
    """It cannot be done; the message says why, and what to do."""


class DamagedError(BackupError):
    """A backup is not what was written."""
