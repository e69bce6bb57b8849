"""The arguments of `medisecure`, and which function runs each command."""

import argparse
from collections.abc import Callable
from datetime import datetime
from math import inf
from pathlib import Path
from typing import NamedTuple

from api.commands.accounts import create_admin, set_password
from api.commands.backup import backup, backup_keygen
from api.commands.development import dev, load_demo
from api.commands.downtime import print_downtime_sheet
from api.commands.maintenance import check_counters, migrate, verify_audit
from api.commands.restoring import MAX_RTO_SECONDS, drill, restore
from api.commands.serving import serve
from api.http.fields import is_unicode

DATA_DIR = Path(".medisecure")
MAX_DAYS = 31  # on a downtime sheet


class Command(NamedTuple):
    name: str
    run: Callable[[argparse.Namespace], None]
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]


def build_parser() -> argparse.ArgumentParser:
    """`parse_args().run` is the command's function, which takes the parsed arguments."""
    root = argparse.ArgumentParser("medisecure", description="The backend of a clinic's web app.")
    subparsers = root.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        parser = subparsers.add_parser(command.name, help=command.help, description=command.help)
        parser.set_defaults(run=command.run)
        command.add_arguments(parser)
    return root


def add_dev_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=port_number, default=8000)
    parser.add_argument("--data-dir", type=Path, default=DATA_DIR)


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=port_number, default=8000)
    parser.add_argument("--workers", type=positive, default=1)


def add_migrate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--grant-to",
        type=text,
        metavar="ROLE",
        help="let this PostgreSQL role do what the service needs; the audit trail it can only append to",
    )


def add_verify_audit_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--head", help="a head that an earlier run printed; it must still be in the chain")
    parser.add_argument(
        "--max-age",
        type=seconds,
        metavar="SECONDS",
        default=60.0,
        help="exit with status 2 where an event is unsealed for longer (default: 60)",
    )


def add_check_counters_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--repair", action="store_true", help="count all rows again; the service may run meanwhile"
    )


def add_create_admin_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("email", type=text)
    parser.add_argument("name", type=text)


def add_set_password_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("email", type=text)


def add_load_demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", type=Path, default=DATA_DIR)
    parser.add_argument(
        "--yes-known-passwords",
        action="store_true",
        help="the database at DATABASE_URL may have accounts whose password everyone knows",
    )


def add_downtime_sheet_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--days", type=day_count, default=2, help=f"today and the days after, up to {MAX_DAYS} (default: 2)"
    )
    parser.add_argument(
        "--from-backup", type=Path, metavar="DEST", help="from the newest backup in this folder"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="where the sheet goes, if not to stdout")
    parser.add_argument("--format", choices=("html", "pdf"), help="default: pdf for a FILE.pdf, else html")
    parser.add_argument("--paper", choices=("a4", "us-letter"), default="a4", help="of a PDF (default: a4)")
    parser.add_argument(
        "--recipient",
        type=text,
        action="append",
        default=[],
        metavar="age1…",
        help="encrypt the sheet to this public key of age; may be given more than once",
    )


def add_backup_keygen_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="where the identity goes; keep it apart from the backups")


def add_backup_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dest", type=Path, metavar="DEST", help="the folder of the backups")
    parser.add_argument("--follow", action="store_true", help="stream the log into DEST until stopped")
    parser.add_argument("--dump", action="store_true", help="by pg_dump, which needs SQL access only")
    parser.add_argument("--keep", type=positive, metavar="N", help="then keep only the newest N of its kind")
    parser.add_argument("--unencrypted", action="store_true", help="though everybody could read it")
    parser.add_argument(
        "--no-slot", action="store_true", help="let the server forget what is not fetched yet"
    )
    parser.add_argument("--spool", type=Path, metavar="DIR", help="where the log waits, unencrypted")


def add_restore_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dest", type=Path, metavar="DEST", help="the folder of the backups, or one of them")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="into this folder, for PostgreSQL")
    parser.add_argument("--until", type=instant, metavar="TIME", help="as it was then, with an offset")


def add_drill_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dest", type=Path, nargs="?", metavar="DEST", help="default: BACKUP_DEST")
    parser.add_argument("--max-rpo", type=seconds, metavar="SECONDS", help="default: 60; for a dump, none")
    parser.add_argument("--max-rto", type=seconds, metavar="SECONDS", default=MAX_RTO_SECONDS)


COMMANDS = (
    Command("dev", dev, "Serve on localhost with a PostgreSQL and a Valkey of its own.", add_dev_arguments),
    Command(
        "serve", serve, "Serve in production; everything comes from the environment.", add_serve_arguments
    ),
    Command("migrate", migrate, "Bring the database at DATABASE_URL up to date.", add_migrate_arguments),
    Command("verify-audit", verify_audit, "Check the seals of the audit trail.", add_verify_audit_arguments),
    Command(
        "check-counters",
        check_counters,
        "Count all rows, and compare with the counters.",
        add_check_counters_arguments,
    ),
    Command(
        "create-admin",
        create_admin,
        "Create an administrator; the password is asked for.",
        add_create_admin_arguments,
    ),
    Command(
        "set-password",
        set_password,
        "Set a forgotten password; the new one is asked for.",
        add_set_password_arguments,
    ),
    Command(
        "downtime-sheet",
        print_downtime_sheet,
        "Print who comes when to whom, for when the service is down.",
        add_downtime_sheet_arguments,
    ),
    Command("backup", backup, "Back up the database at DATABASE_URL into a folder.", add_backup_arguments),
    Command(
        "backup-keygen",
        backup_keygen,
        "Make the key pair that backups are encrypted with.",
        add_backup_keygen_arguments,
    ),
    Command("restore", restore, "Make a database of a backup again.", add_restore_arguments),
    Command("drill", drill, "Prove the newest backup by a restore.", add_drill_arguments),
    Command("load-demo", load_demo, "Put the demo data into an empty database.", add_load_demo_arguments),
)


# Types of arguments. argparse turns their ValueError into a line on stderr with the function's name, and exit
# status 2.


def port_number(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise ValueError
    return number


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def day_count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MAX_DAYS:
        raise ValueError
    return number


def seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number < inf:
        raise ValueError
    return number


def instant(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError
    return moment


def text(argument: str) -> str:
    if not is_unicode(argument):  # Python hands over bytes that are not UTF-8 as lone surrogates
        raise ValueError
    return argument
