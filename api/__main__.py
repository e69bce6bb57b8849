"""The command `medisecure`."""

import argparse
import asyncio
import contextlib
import getpass
import logging
import os
import secrets
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

import msgspec
from sqlalchemy.exc import DBAPIError, IntegrityError

from api import server, upkeep
from api.app import create_app
from api.rules import broken_rule
from api.schemas import Email, Input, Name
from api.settings import REQUIRED, SECRETS, Settings, SettingsError, value_of
from api.trail import by_command
from persistence import audit, demo, embedded, sessions, users
from persistence.audit import Action
from persistence.database import Database, Transaction
from persistence.migration import commands
from persistence.models import AccountStatus
from security.admission import Admission
from security.counters import CounterStore
from security.passwords import MAX_BYTES, Passwords
from security.roles import Role

DATA_DIR = Path(".medisecure")
UNDEFINED_TABLE = "42P01"  # SQLSTATE


class CommandError(Exception):
    """The command cannot do its work; the message says why and what to do."""


class Administrator(Input):
    email: Email
    name: Name


def main() -> None:
    arguments = parser().parse_args()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        arguments.run(arguments)
    except (CommandError, SettingsError, embedded.EmbeddedError) as error:
        sys.exit(f"medisecure: {error}")
    except DBAPIError as error:  # its own text would show the statement with its values
        unmigrated = getattr(error.orig, "sqlstate", None) == UNDEFINED_TABLE
        advice = "run `medisecure migrate` first" if unmigrated else error.orig
        sys.exit(f"medisecure: the database cannot be used: {advice}")
    except OSError as error:
        sys.exit(f"medisecure: {error}")


def port_number(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise ValueError
    return number


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
    command.add_argument("--workers", type=int, default=1)
    command = verb("migrate", migrate, "Bring the database at DATABASE_URL up to date.")
    command.add_argument(
        "--grant-to",
        metavar="ROLE",
        help="let this PostgreSQL role do what the service needs; the audit trail it can only append to",
    )
    command = verb("verify-audit", verify_audit, "Check the seals of the audit trail.")
    command.add_argument("--head", help="a head that an earlier run printed; it must still be in the chain")
    command = verb("create-admin", create_admin, "Create an administrator; the password is asked for.")
    command.add_argument("email")
    command.add_argument("name")
    command = verb("set-password", set_password, "Set a forgotten password; the new one is asked for.")
    command.add_argument("email")
    command = verb("load-demo", load_demo, "Put the demo data into an empty database.")
    command.add_argument("--data-dir", type=Path, default=DATA_DIR)
    command.add_argument(
        "--yes-known-passwords",
        action="store_true",
        help="the database at DATABASE_URL may have accounts whose password everyone knows",
    )
    return root


def dev(arguments: argparse.Namespace) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
    try:
        sockets = server.loopback(arguments.port)
    except OSError as error:
        raise CommandError(f"port {arguments.port} cannot be had ({error.strerror}); try --port") from error
    with embedded_environment(arguments.data_dir) as (environment, is_ours):
        settings = Settings.read(environment)
        commands(settings.database_url).upgrade()
        if is_ours:
            asyncio.run(in_database(settings.database_url, lambda tx: put_demo_if_new(tx, settings)))
        print_welcome(sockets[0].getsockname()[1])
        asyncio.run(in_database(settings.database_url, print_accounts))
        server.server_for(create_app(settings), settings).run(list(sockets))


def leave(number: int, frame: FrameType | None) -> NoReturn:
    """End by way of every `finally`; what is running then is not interrupted by a second signal."""
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, signal.SIG_IGN)
    sys.exit(0)


def print_welcome(port: int) -> None:
    print(f"MediSecure is at http://localhost:{port}, its documentation at http://localhost:{port}/docs")
    sys.stdout.flush()


async def print_accounts(transaction: Transaction) -> None:
    if await demo.has_known_passwords(transaction):
        print(f"Demo accounts, all with the password {demo.PASSWORD}:")
        print(*(f"  {account[1]}" for account in demo.ACCOUNTS[:4]), sep="\n", flush=True)


@contextlib.contextmanager
def embedded_environment(data_dir: Path) -> Iterator[tuple[dict[str, str], bool]]:
    """The environment with what it lacks: embedded servers and a key of the data folder's own. And whether
    the database is the embedded one."""
    environment = own_environment()
    is_ours = "DATABASE_URL" not in environment
    with embedded.start(data_dir, postgres=is_ours, redis="REDIS_URL" not in environment) as servers:
        environment.setdefault("DATABASE_URL", servers.database_url)
        environment.setdefault("REDIS_URL", servers.redis_url)
        environment.setdefault("SECRET_KEY", own_key(data_dir / "secret_key"))
        yield environment, is_ours


def own_environment() -> dict[str, str]:
    """The environment; of the names that have no default, an empty one counts as absent, and what
    `NAME_FILE` names is read."""
    environment = dict(os.environ)
    for name in SECRETS:
        value = value_of(name, environment)
        environment.pop(f"{name}_FILE", None)
        environment.pop(name, None)
        if value:
            environment[name] = value
    return environment


def own_key(file: Path) -> str:
    """The key in `file`, made at the first start and readable by its owner only."""
    if not file.exists():
        partial = file.with_suffix(".new")
        with open(partial, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as opened:
            opened.write(secrets.token_urlsafe(48))
        partial.rename(file)  # so that a file of this name is always a complete one
    return file.read_text()


def serve(arguments: argparse.Namespace) -> None:
    settings = Settings.read()
    known = asyncio.run(upkeep.known_passwords(settings))
    if known:
        raise CommandError(
            f"everyone knows the password of {', '.join(known)}; change it with `medisecure set-password` "
            "before you serve this database"
        )
    server.serve(settings, arguments.host, arguments.port, arguments.workers)


def migrate(arguments: argparse.Namespace) -> None:
    commands(database_url()).upgrade()
    if arguments.grant_to:
        asyncio.run(in_database(database_url(), lambda tx: upkeep.grant(tx, arguments.grant_to)))


def verify_audit(arguments: argparse.Namespace) -> None:
    keys = upkeep.audit_keys(os.environ)
    if not keys:
        raise CommandError("set AUDIT_KEY, or the SECRET_KEY under which the trail was sealed")
    report = asyncio.run(upkeep.verify_audit(database_url(), keys, arguments.head))
    for problem in report.problems:
        print(f"DAMAGED: {problem}")
    print(f"{report.sealed} events in {report.seals} seals, head {report.head}")
    age = f", the oldest {report.oldest_unsealed_seconds:.0f} s old" if report.unsealed else ""
    print(f"{report.unsealed} events in the unsealed tail{age}")
    if report.problems:
        raise CommandError("the audit trail is damaged")


def create_admin(arguments: argparse.Namespace) -> None:
    try:
        msgspec.convert({"email": arguments.email, "name": arguments.name}, Administrator)
    except msgspec.ValidationError as error:
        raise CommandError(broken_rule(Administrator, error)) from error
    hashed = asyncio.run(Passwords(1).hash(new_password()))

    async def create(transaction: Transaction) -> None:
        user = await users.add(
            transaction,
            email=users.normal_email(arguments.email),
            name=arguments.name,
            role=Role.ADMIN,
            status=AccountStatus.ACTIVE,
            phone=None,
            password_hash=hashed,
        )
        await audit.add(transaction, by_command(Action.ACCOUNT_CREATE, user.id))

    try:
        asyncio.run(in_database(database_url(), create))
    except IntegrityError as error:
        raise CommandError("this e-mail address has an account already; see set-password") from error
    print(f"{users.normal_email(arguments.email)} is an administrator now.")


def set_password(arguments: argparse.Namespace) -> None:
    hashed = asyncio.run(Passwords(1).hash(new_password()))
    email = users.normal_email(arguments.email)

    async def change(transaction: Transaction) -> None:
        user = await users.credentials(transaction, email)
        if user is None:
            raise CommandError("no account has this e-mail address")
        await users.set_password(transaction, user.id, hashed)
        ended = await sessions.end_all(transaction, user.id)
        await audit.add(transaction, by_command(Action.ACCOUNT_PASSWORD, user.id))
        store = CounterStore.connect(own_environment().get("REDIS_URL", "redis://localhost:6379"))
        admission = Admission(store, no_session, limit=1, tombstone=86400)

        async def bury() -> None:
            async with store:
                await admission.end(ended)

        transaction.after_commit(bury)

    asyncio.run(in_database(database_url(), change))
    print(f"{email} has a new password; every session of the account has ended.")


async def no_session(session_id: object) -> None:
    return None


def load_demo(arguments: argparse.Namespace) -> None:
    if "DATABASE_URL" in own_environment():
        if not arguments.yes_known_passwords:
            raise CommandError(
                "the demo accounts have a password that everyone knows; "
                "--yes-known-passwords loads them into DATABASE_URL all the same"
            )
        load_into(own_environment())
        return
    with embedded_environment(arguments.data_dir) as (environment, _):
        load_into(environment)


def load_into(environment: dict[str, str]) -> None:
    unused = {"REDIS_URL": "redis://localhost", "SECRET_KEY": secrets.token_urlsafe(48)}
    settings = Settings.read({**unused, **environment})
    commands(settings.database_url).upgrade()
    asyncio.run(in_database(settings.database_url, lambda tx: put_demo(tx, settings)))
    print(f"The demo data is loaded; the password of every account is {demo.PASSWORD}")


async def put_demo_if_new(transaction: Transaction, settings: Settings) -> None:
    """Also where the first start was killed before it came this far."""
    if await demo.is_empty(transaction):
        await put_demo(transaction, settings)


async def put_demo(transaction: Transaction, settings: Settings) -> None:
    if not await demo.is_empty(transaction):
        raise CommandError("the database is not empty; the demo data goes into an empty one only")
    midnight, _ = settings.clinic.today()
    hashed = await Passwords(1).hash(demo.PASSWORD)
    await demo.load(
        transaction, hashed, midnight=midnight, visit=settings.clinic.visit, fee=settings.clinic.fee
    )


async def in_database(url: str, work: Callable[[Transaction], Awaitable[None]]) -> None:
    database = Database(url)
    try:
        async with database.transaction() as transaction:
            await work(transaction)
    finally:
        await database.close()


def database_url() -> str:
    url = value_of("DATABASE_URL", os.environ)
    if not url:
        raise CommandError(f"set DATABASE_URL, {REQUIRED['DATABASE_URL']}")
    return url


def new_password() -> str:
    """From a prompt, or a line of standard input where nobody can be asked; never from an argument."""
    password = getpass.getpass("New password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    if len(password) < 6 or len(password.encode()) > MAX_BYTES:
        raise CommandError(f"a password has at least 6 characters and at most {MAX_BYTES} bytes")
    if sys.stdin.isatty() and getpass.getpass("Once more: ") != password:
        raise CommandError("the two are not the same")
    return password


if __name__ == "__main__":
    main()
