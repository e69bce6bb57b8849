"""What the environment says about backups. Only the commands need it: the service has no key to them."""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from api.commands.environment import CommandError
from api.settings import read_setting
from security.age import AgeError, problems_of_recipients, read_identities


class BackupSettings(Struct, frozen=True, kw_only=True, rename="upper"):
    """`backup_recipient`: one, or several separated by commas."""

    backup_dest: str | None = None
    backup_recipient: str | None = None
    backup_identity_file: str | None = None
    pg_bin: str | None = None

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> "BackupSettings":
        """Raises SettingsError."""
        names = [field.encode_name for field in msgspec.structs.fields(cls)]
        return msgspec.convert({name: read_setting(name, environment) or None for name in names}, cls)

    def recipients(self, *, unencrypted: bool) -> list[str]:
        """Whom to encrypt for; nobody only where the operator said so. Raises CommandError."""
        found = [part.strip() for part in (self.backup_recipient or "").split(",") if part.strip()]
        if unencrypted:
            return []
        if not found:
            raise CommandError(
                "set BACKUP_RECIPIENT, which `medisecure backup-keygen` makes; or say --unencrypted, and "
                "everybody who gets at the files can read every chart"
            )
        for problem in problems_of_recipients(found):
            raise CommandError(f"BACKUP_RECIPIENT {problem}")
        return found

    def identities(self, *, encrypted: bool) -> list[str]:
        """What decrypts. Raises CommandError."""
        if not self.backup_identity_file:
            if not encrypted:
                return []
            raise CommandError(
                "the backup is encrypted: set BACKUP_IDENTITY_FILE to the file with its identity"
            )
        try:
            return read_identities(Path(self.backup_identity_file).read_text("utf-8"))
        except (OSError, UnicodeDecodeError, AgeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise CommandError(f"BACKUP_IDENTITY_FILE cannot be used: {reason}") from error
