"""What the commands share, and accounts from the console: the first administrator, a forgotten password."""

import argparse
import asyncio
import getpass
import os
import sys
from collections.abc import Awaitable, Callable

from asyncpg import UniqueViolationError

from api.http import violations
from api.http.auditing import by_command
from api.http.fields import Input, Name, SentEmail
from api.settings import LONGEST_ACCESS, REQUIRED, SECRETS, require_usable, value_of
from persistence import audit, sessions, users
from persistence.audit import Action
from persistence.models import AccountStatus
from persistence.postgres import database_url as database_urls
from persistence.postgres.database import Database, Transaction
from security import redis_url as redis_urls
from security.admission import Admission
from security.counters import CounterStore
from security.login_attempts import LoginAttempts
from security.passwords import MAX_BYTES, MIN_CHARACTERS, Passwords
from security.roles import Role

TOO_SHORT = (
    f"a password has at least {MIN_CHARACTERS} characters, at most {MAX_BYTES} bytes, and no NUL among them"
)


class CommandError(Exception):
    """The command cannot do its work; the message says why and what to do."""


class Administrator(Input):
    email: SentEmail
    name: Name


def create_admin(arguments: argparse.Namespace) -> None:
    email = users.normal_email(arguments.email)
    for fault in violations.of_body(Administrator, {"email": email, "name": arguments.name}):
        raise CommandError(fault.sentence)
    url = database_url()
    hashed = asyncio.run(Passwords(1).hash(new_password()))

    async def create(transaction: Transaction) -> None:
        user = await users.add(
            transaction,
            email=email,
            name=arguments.name,
            role=Role.ADMIN,
            status=AccountStatus.ACTIVE,
            phone=None,
            password_hash=hashed,
        )
        await audit.add(transaction, by_command(Action.ACCOUNT_CREATE, user.id))

    try:
        asyncio.run(in_database(url, create))
    except UniqueViolationError as error:
        raise CommandError("this e-mail address has an account already; see set-password") from error
    print(f"{email} is an administrator now.")


def set_password(arguments: argparse.Namespace) -> None:
    url = database_url()
    redis_url = value_of("REDIS_URL", os.environ) or "redis://localhost:6379"
    require_usable("REDIS_URL", redis_urls.problems(redis_url))
    hashed = asyncio.run(Passwords(1).hash(new_password()))
    email = users.normal_email(arguments.email)

    async def change(transaction: Transaction) -> None:
        user = await users.credentials(transaction, email)
        if user is None:
            raise CommandError("no account has this e-mail address")
        await users.set_password(transaction, user.id, hashed)
        ended = await sessions.end_all(transaction, user.id)
        await audit.add(transaction, by_command(Action.ACCOUNT_PASSWORD, user.id))
        store = CounterStore.connect(redis_url)
        admission = Admission(store, no_session, limit=1, tombstone=LONGEST_ACCESS * 60)

        async def bury() -> None:
            async with store:
                await admission.end(ended)
                await LoginAttempts(store, 1, 1, 1).forgive(email)

        transaction.after_commit(bury)

    asyncio.run(in_database(url, change))
    print(f"{email} has a new password; every session of the account has ended.")


async def no_session(session_id: object) -> None:
    return None


def new_password() -> str:
    """From a prompt, or a line of standard input where nobody can be asked; never from an argument."""
    asks = sys.stdin is not None and sys.stdin.isatty()
    try:
        password = getpass.getpass("New password: ") if asks else line_of_input()
        too_long = len(password.encode()) > MAX_BYTES
    except EOFError as error:
        raise CommandError("no password was given") from error
    except UnicodeError as error:
        raise CommandError("the password is not text in UTF-8") from error
    if len(password) < MIN_CHARACTERS or too_long or "\0" in password:
        raise CommandError(TOO_SHORT)
    if asks and getpass.getpass("Once more: ") != password:
        raise CommandError("the two are not the same")
    return password


def line_of_input() -> str:
    if sys.stdin is None:
        raise EOFError
    return sys.stdin.readline().rstrip("\n")


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


async def in_database(url: str, work: Callable[[Transaction], Awaitable[None]]) -> None:
    async with Database(url) as database, database.transaction() as transaction:
        await work(transaction)


def database_url() -> str:
    url = value_of("DATABASE_URL", os.environ)
    if not url:
        raise CommandError(f"set DATABASE_URL, {REQUIRED['DATABASE_URL']}")
    require_usable("DATABASE_URL", database_urls.problems(url))
    return url
