"""`medisecure dev` and `medisecure load-demo`: servers, a key and accounts for a machine that has nothing."""

import argparse
import asyncio
import contextlib
import os
import secrets
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NoReturn

from api.app import create_app
from api.commands.checks import find_problem_before_migration
from api.commands.environment import CommandError, read_environment, run_transaction
from api.http import server
from api.http.logs import LogFormat, configure_logging
from api.http.metrics import PROCESS_REGISTRY
from api.http.observation import Outlets
from api.settings import Settings
from persistence import demo, embedded
from persistence.postgres.database import Transaction
from security import redis_url
from security.passwords import Passwords


def dev(arguments: argparse.Namespace) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, exit_gracefully)
    try:
        sockets = server.listen_on_loopback(arguments.port)
    except OSError as error:
        raise CommandError(
            f"port {arguments.port} cannot be opened ({error.strerror}); try --port"
        ) from error
    with complete_environment(arguments.data_dir) as (environment, is_embedded):
        environment.setdefault("PUBLIC_URL", url_of(sockets[0].getsockname()[1]))
        settings = Settings.read(environment)
        prepare_database(settings, is_embedded)
        print_welcome(settings, sockets[0].getsockname()[1], is_embedded)
        log = configure_logging(settings.log_format or LogFormat.of(None))
        app = create_app(settings, is_local=True, outlets=Outlets(PROCESS_REGISTRY, log))
        server.raise_file_limit()
        server.freeze_garbage_collector()
        timeouts = replace(settings.timeouts, drain_seconds=0)  # no proxy stands before it
        server.server_for(app, timeouts).run(list(sockets))


def exit_gracefully(number: int, frame: FrameType | None) -> NoReturn:
    """Leave through every `finally`, which a second signal does not interrupt."""
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    sys.exit(0)


@contextlib.contextmanager
def complete_environment(data_dir: Path) -> Iterator[tuple[dict[str, str], bool]]:
    """The environment; what it lacks are embedded servers, and a key that is kept in the data folder. And
    whether the database is the embedded one."""
    environment = read_environment()
    is_embedded = "DATABASE_URL" not in environment
    with embedded.start(data_dir, postgres=is_embedded, redis="REDIS_URL" not in environment) as servers:
        environment.setdefault("DATABASE_URL", servers.database_url)
        environment.setdefault("REDIS_URL", servers.redis_url)
        environment.setdefault("SECRET_KEY", read_or_make_key(data_dir / "secret_key"))
        yield environment, is_embedded


def read_or_make_key(file: Path) -> str:
    """The key in `file`, which only its owner can read; made if there is none. Raises CommandError if the
    file holds no key."""
    if not file.exists():
        partial = file.with_suffix(".new")
        with open(partial, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as opened:
            opened.write(secrets.token_urlsafe(48))
        partial.rename(file)  # so that a file of this name is always a complete one
    key = file.read_bytes()
    if not key.isascii() or not key.strip():
        raise CommandError(f"{file} holds no key; delete it, and the next start makes a new one")
    return key.decode()


def prepare_database(settings: Settings, is_embedded: bool) -> None:
    """Migrate; into an embedded database that is empty goes the demo data. Raises CommandError."""
    from persistence.migrations.commands import upgrade  # not above: Alembic takes long to load

    problem = asyncio.run(find_problem_before_migration(settings))
    if problem:
        raise CommandError(problem)
    upgrade(settings.database_url)
    if is_embedded:
        run_transaction(settings.database_url, lambda transaction: add_demo_if_empty(transaction, settings))


def url_of(port: int) -> str:
    return f"http://localhost:{port}"


def print_welcome(settings: Settings, port: int, is_embedded: bool) -> None:
    url = url_of(port)
    print(f"MediSecure is at {url}, its documentation at {url}/docs", flush=True)
    if is_embedded:
        print(f"Its database is {settings.database_url}", flush=True)
    run_transaction(settings.database_url, print_accounts)


async def print_accounts(transaction: Transaction) -> None:
    if await demo.has_known_passwords(transaction):
        print(f"Demo accounts, all with the password {demo.PASSWORD}:")
        print(*(f"  {account.email}" for account in demo.ACCOUNTS[:4]), sep="\n", flush=True)


def load_demo(arguments: argparse.Namespace) -> None:
    environment = read_environment()
    if "DATABASE_URL" in environment:
        if not arguments.yes_known_passwords:
            raise CommandError(
                "the demo accounts have a password that everyone knows; "
                "--yes-known-passwords loads them into DATABASE_URL all the same"
            )
        load_demo_into(environment)
        return
    with complete_environment(arguments.data_dir) as (completed, _):
        load_demo_into(completed)


def load_demo_into(environment: dict[str, str]) -> None:
    from persistence.migrations.commands import upgrade  # as above

    unused = {"REDIS_URL": redis_url.EXAMPLE, "SECRET_KEY": secrets.token_urlsafe(48)}
    settings = Settings.read({**unused, **environment})
    upgrade(settings.database_url)
    run_transaction(settings.database_url, lambda transaction: add_demo(transaction, settings))
    print(f"The demo data is loaded; the password of every account is {demo.PASSWORD}")


async def add_demo_if_empty(transaction: Transaction, settings: Settings) -> None:
    """An earlier start may have been killed after it made the database and before it came to this."""
    if await demo.is_empty(transaction):
        await add_demo(transaction, settings)


async def add_demo(transaction: Transaction, settings: Settings) -> None:
    if not await demo.is_empty(transaction):
        raise CommandError("the database is not empty; the demo data goes into an empty one only")
    clinic = settings.clinic
    midnight, _ = clinic.bounds_of(clinic.today())
    hashed = await Passwords(1).hash(demo.PASSWORD)
    await demo.load(transaction, hashed, midnight=midnight, visit=clinic.appointment_length, fee=clinic.fee)
