"""What the commands share: their error, the environment that they read, one transaction in its database."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from api.settings import REQUIRED_SETTINGS, SECRET_SETTINGS, read_setting, require_usable
from persistence.postgres import database_url as database_urls
from persistence.postgres.database import Database, Transaction
from security import redis_url as redis_urls


class CommandError(Exception):
    """The command cannot do its work; the message says why and what to do. `status`: the exit status."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def read_environment() -> dict[str, str]:
    """The environment. Of the settings that have no default, an empty one counts as absent, and one that is
    given as `NAME_FILE` is read from that file. Raises SettingsError."""
    environment = dict(os.environ)
    for name in SECRET_SETTINGS:
        value = read_setting(name, environment)
        environment.pop(f"{name}_FILE", None)
        environment.pop(name, None)
        if value:
            environment[name] = value
    return environment


def require_database_url() -> str:
    """DATABASE_URL of the environment. CommandError: it is not set. SettingsError: it cannot work."""
    url = read_setting("DATABASE_URL", os.environ)
    if not url:
        raise CommandError(f"set DATABASE_URL, {REQUIRED_SETTINGS['DATABASE_URL']}")
    require_usable("DATABASE_URL", database_urls.problems(url))
    return url


def require_redis_url() -> str:
    """REDIS_URL of the environment, or else a Redis on this machine. SettingsError: it cannot work."""
    url = read_setting("REDIS_URL", os.environ) or redis_urls.EXAMPLE
    require_usable("REDIS_URL", redis_urls.problems(url))
    return url


def run_transaction(url: str, work: Callable[[Transaction], Awaitable[None]]) -> None:
    """Do `work` in one transaction of the database at `url`, and commit it."""

    async def run() -> None:
        async with Database(url) as database, database.transaction() as transaction:
            await work(transaction)

    asyncio.run(run())


@contextmanager
def ending_in_order() -> Iterator[None]:
    """SIGTERM ends the block as an exception does, so that nothing decrypted is left behind."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
