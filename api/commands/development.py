"""`medisecure dev` and the demo data: servers, a key and accounts for a machine that has nothing."""

import argparse
import asyncio
import contextlib
import os
import secrets
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

from api.app import create_app, keep_for_good
from api.commands.accounts import CommandError, in_database, own_environment
from api.commands.maintenance import objection_to_servers
from api.http import server
from api.settings import Settings
from persistence import demo, embedded
from persistence.postgres.database import Transaction
from security.passwords import Passwords


def dev(arguments: argparse.Namespace) -> None:
    from persistence.migrations.commands import (
        upgrade,  # not above: Alembic takes long to load, and `serve` needs none
    )

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
    try:
        sockets = server.loopback(arguments.port)
    except OSError as error:
        raise CommandError(f"port {arguments.port} cannot be had ({error.strerror}); try --port") from error
    with embedded_environment(arguments.data_dir) as (environment, is_ours):
        settings = Settings.read(environment)
        objection = asyncio.run(objection_to_servers(settings))
        if objection:
            raise CommandError(objection)
        upgrade(settings.database_url)
        if is_ours:
            asyncio.run(in_database(settings.database_url, lambda tx: put_demo_if_new(tx, settings)))
        print_welcome(sockets[0].getsockname()[1])
        if is_ours:
            print(f"Its database is {settings.database_url}", flush=True)
        asyncio.run(in_database(settings.database_url, print_accounts))
        app = create_app(settings, is_local=True)
        keep_for_good()
        server.server_for(app, settings).run(list(sockets))


def leave(number: int, frame: FrameType | None) -> NoReturn:
    """End by way of every `finally`; what is running then is not interrupted by a second signal."""
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, signal.SIG_IGN)
    sys.exit(0)


def print_welcome(port: int) -> None:
    url = f"http://localhost:{port}"
    print(f"MediSecure is at {url}, its documentation at {url}/docs", flush=True)


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


def own_key(file: Path) -> str:
    """The key in `file`, made at the first start and readable by its owner only. CommandError: it is none."""
    if not file.exists():
        partial = file.with_suffix(".new")
        with open(partial, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as opened:
            opened.write(secrets.token_urlsafe(48))
        partial.rename(file)  # so that a file of this name is always a complete one
    key = file.read_bytes()
    if not key.isascii() or not key.strip():
        raise CommandError(f"{file} holds no key; delete it, and the next start makes a new one")
    return key.decode()


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
    from persistence.migrations.commands import upgrade

    unused = {"REDIS_URL": "redis://localhost", "SECRET_KEY": secrets.token_urlsafe(48)}
    settings = Settings.read({**unused, **environment})
    upgrade(settings.database_url)
    asyncio.run(in_database(settings.database_url, lambda tx: put_demo(tx, settings)))
    print(f"The demo data is loaded; the password of every account is {demo.PASSWORD}")


async def put_demo_if_new(transaction: Transaction, settings: Settings) -> None:
    """Also where the first start was killed before it came this far."""
    if await demo.is_empty(transaction):
        await put_demo(transaction, settings)


async def put_demo(transaction: Transaction, settings: Settings) -> None:
    if not await demo.is_empty(transaction):
        raise CommandError("the database is not empty; the demo data goes into an empty one only")
    midnight, _ = settings.clinic.day(settings.clinic.today())
    hashed = await Passwords(1).hash(demo.PASSWORD)
    await demo.load(
        transaction, hashed, midnight=midnight, visit=settings.clinic.visit, fee=settings.clinic.fee
    )
