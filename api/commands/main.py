"""The command `medisecure`."""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from math import inf
from pathlib import Path

from asyncpg import PostgresError
from sqlalchemy.exc import DBAPIError

from api.commands import maintenance, startup
from api.commands.accounts import CommandError, create_admin, database_url, in_database, set_password
from api.commands.development import dev, load_demo
from api.http import server
from api.http.fields import is_unicode
from api.settings import Settings, SettingsError, misspelt
from persistence import embedded
from persistence.migrations.revisions import UnknownRevisionError
from persistence.postgres.connecting import NoConnectionError
from persistence.postgres.failures import lacks_tables, reason_of

DATA_DIR = Path(".medisecure")
log = logging.getLogger("medisecure.start")


def main() -> None:
    arguments = parser().parse_args()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        arguments.run(arguments)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except maintenance.UncheckedError as error:
        print(f"medisecure: {error}", file=sys.stderr)
        sys.exit(error.status)
    except (CommandError, SettingsError, embedded.EmbeddedError) as error:
        sys.exit(f"medisecure: {error}")
    except UnknownRevisionError as error:
        sys.exit(f"medisecure: the database is not one of this release: {error}")
    except (PostgresError, DBAPIError) as error:
        advice = "run `medisecure migrate` first" if lacks_tables(error) else reason_of(error)
        sys.exit(f"medisecure: the database cannot be used: {advice}")
    except NoConnectionError as error:
        sys.exit(f"medisecure: the database cannot be used: {error}")
    except maintenance.AwayError as error:
        sys.exit(f"medisecure: {error}")
    except (ConnectionError, TimeoutError, socket.gaierror) as error:
        sys.exit(f"medisecure: the database cannot be reached: {str(error) or 'it does not answer'}")
    except OSError as error:
        sys.exit(f"medisecure: {error}")


def port_number(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise ValueError
    return number


def worker_count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number < inf:
        raise ValueError
    return number


def text(argument: str) -> str:
    if not is_unicode(argument):
        raise ValueError
    return argument


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser("medisecure", description="The backend of a clinic's web app.")
    verbs = root.add_subparsers(required=True, metavar="COMMAND")

    def verb(name: str, run: Callable[[argparse.Namespace], None], help: str) -> argparse.ArgumentParser:
        command = verbs.add_parser(name, help=help, description=help)
        command.set_defaults(run=run)
        return command

    command = verb("dev", dev, "Serve on localhost with a PostgreSQL and a Valkey of its own.")
    command.add_argument("--port", type=port_number, default=8000)
    command.add_argument("--data-dir", type=Path, default=DATA_DIR)
    command = verb("serve", serve, "Serve in production; everything comes from the environment.")
    command.add_argument("--host", default="127.0.0.1")
    command.add_argument("--port", type=port_number, default=8000)
    command.add_argument("--workers", type=worker_count, default=1)
    command = verb("migrate", migrate, "Bring the database at DATABASE_URL up to date.")
    command.add_argument(
        "--grant-to",
        type=text,
        metavar="ROLE",
        help="let this PostgreSQL role do what the service needs; the audit trail it can only append to",
    )
    command = verb("verify-audit", verify_audit, "Check the seals of the audit trail.")
    command.add_argument("--head", help="a head that an earlier run printed; it must still be in the chain")
    command.add_argument(
        "--max-age",
        type=seconds,
        metavar="SECONDS",
        default=60.0,
        help="exit with status 2 where an event is unsealed for longer (default: 60)",
    )
    command = verb("check-counters", check_counters, "Count all rows, and compare with the counters.")
    command.add_argument("--repair", action="store_true", help="count afresh, under way and exact for all")
    command = verb("create-admin", create_admin, "Create an administrator; the password is asked for.")
    command.add_argument("email", type=text)
    command.add_argument("name", type=text)
    command = verb("set-password", set_password, "Set a forgotten password; the new one is asked for.")
    command.add_argument("email", type=text)
    command = verb("load-demo", load_demo, "Put the demo data into an empty database.")
    command.add_argument("--data-dir", type=Path, default=DATA_DIR)
    command.add_argument(
        "--yes-known-passwords",
        action="store_true",
        help="the database at DATABASE_URL may have accounts whose password everyone knows",
    )
    return root


def serve(arguments: argparse.Namespace) -> None:
    settings = Settings.read()
    for name, meant in misspelt(os.environ).items():
        log.warning("%s is no setting; perhaps %s is meant", name, meant)
    with startup.checked(settings, arguments.workers):
        try:
            sockets = server.listening(arguments.host, arguments.port)
        except (OSError, UnicodeError) as error:
            place = f"{arguments.host} at port {arguments.port}"
            reason = getattr(error, "strerror", None) or "it is no name of a host"
            raise CommandError(f"cannot listen on {place} ({reason}); try --host or --port") from error
        server.serve(settings, sockets, arguments.workers)


def migrate(arguments: argparse.Namespace) -> None:
    from persistence.migrations.commands import upgrade  # not above: Alembic takes long to load

    objection = asyncio.run(maintenance.of_database(database_url(), maintenance.objection_to_server))
    if objection:
        raise CommandError(objection)
    upgrade(database_url())
    asyncio.run(maintenance.count(database_url()))
    if arguments.grant_to:
        asyncio.run(in_database(database_url(), lambda tx: maintenance.grant(tx, arguments.grant_to)))


def verify_audit(arguments: argparse.Namespace) -> None:
    """Exit status 1 for damage, 2 for an unsealed tail that is too old, 3 where only a key is missing."""
    keys = maintenance.audit_keys(os.environ)
    report = asyncio.run(maintenance.verify_audit(database_url(), keys, arguments.head))
    for line in report.damage:
        print(f"DAMAGED: {line}")
    for line in report.not_given:
        print(f"NOT CHECKED: {line}")
    print(f"{report.sealed} events in {report.seals} seals, head {report.head}")
    waiting = report.oldest_unsealed_seconds
    age = f", the oldest {waiting:.0f} s old" if report.unsealed else ""
    print(f"{report.unsealed} events in the unsealed tail{age}")
    if report.damage:
        raise CommandError("the audit trail is damaged")
    if report.unsealed and waiting > arguments.max_age:
        raise maintenance.UncheckedError(
            f"no damage, but events older than {arguments.max_age:g} s are unsealed: is `medisecure serve` "
            "running, does its log say why it cannot seal, does a transaction stay open (pg_stat_activity)?",
            2,
        )
    if report.not_given or not keys:
        raise maintenance.UncheckedError(
            "no damage was found, but a key was not given: set AUDIT_KEY, SECRET_KEY or SECRET_KEY_PREVIOUS "
            "to that under which the trail was sealed; seals under a key that was never yours are forged",
            3,
        )


def check_counters(arguments: argparse.Namespace) -> None:
    """Exit status 1 where a counter and the rows differ."""
    differing = 0
    for row in asyncio.run(maintenance.check_counters(database_url(), repaired=arguments.repair)):
        name = f"{row.list} ({row.kind})" if row.kind else row.list
        money = f", {row.amount} for {row.sum} in all" if row.amount or row.sum else ""
        if not row.is_counted:
            print(f"{name}: not counted yet, {row.rows} rows")
            continue
        differs = (row.n, row.amount) != (row.rows, row.sum)
        differing += differs
        print(f"{'DIFFERENT: ' if differs else ''}{name}: counter {row.n}, rows {row.rows}{money}")
    if differing:
        raise CommandError(
            "counters are wrong, as after rows were written with triggers off or data alone was restored; "
            "run `medisecure check-counters --repair`, for which the service need not stop"
        )
