"""The command `medisecure`: runs one of its commands, and says in one line why it could not."""

import logging
import os
import signal
import socket
import sys

from api.commands.checks import UnreachableError
from api.commands.environment import CommandError
from api.commands.parser import build_parser
from api.commands.serving import serve
from api.http.logs import LogFormat, configure_logging
from api.settings import SettingsError
from persistence.backup import BackupError
from persistence.embedded import EmbeddedError
from persistence.migrations.revisions import UnknownRevisionError
from persistence.postgres.connector import NoConnectionError
from persistence.postgres.failures import DATABASE_ERRORS, is_undefined_table, reason_of
from security.age import AgeError

# What an operator can do something about. Any other exception is a defect, and leaves its stack.
EXPECTED = (
    CommandError,
    SettingsError,
    EmbeddedError,
    BackupError,
    AgeError,
    UnknownRevisionError,
    UnreachableError,
    OSError,
    *DATABASE_ERRORS,
)


def main() -> None:
    arguments = build_parser().parse_args()
    format = LogFormat.of(os.environ.get("LOG_FORMAT"))
    configure_logging(format)
    try:
        arguments.run(arguments)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except EXPECTED as error:
        if arguments.run is serve and format is LogFormat.JSON:  # its log has no other lines
            logging.getLogger("medisecure.start").error("%s", explain(error))
        else:
            print(f"medisecure: {explain(error)}", file=sys.stderr)
        sys.exit(error.status if isinstance(error, CommandError) else 1)


def explain(error: BaseException) -> str:
    """Why the command could not do its work. What PostgreSQL says beyond its first line may quote values, and
    is left out."""
    if isinstance(error, UnknownRevisionError):
        return f"the database is not one of this release: {error}"
    if isinstance(error, DATABASE_ERRORS):
        advice = "run `medisecure migrate` first" if is_undefined_table(error) else reason_of(error)
        return f"the database cannot be used: {advice}"
    if isinstance(error, NoConnectionError):
        return f"the database cannot be used: {error}"
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
        return f"the database cannot be reached: {str(error) or 'it does not answer'}"
    return str(error)
