"""Accounts from the console: `medisecure create-admin` and `medisecure set-password`."""

import argparse
import asyncio
import getpass
import sys

from api.commands.environment import CommandError, require_database_url, require_redis_url, run_transaction
from api.http import violations
from api.http.auditing import command_event
from api.http.fields import Input, Name, SentEmail
from api.settings import MAX_ACCESS_TOKEN_MINUTES
from persistence import audit, sessions, users
from persistence.audit import Action
from persistence.login_attempts import LoginAttempts
from persistence.models import AccountStatus
from persistence.postgres.database import Reader, Transaction
from persistence.postgres.failures import DATABASE_ERRORS, Failure, classify
from security.admission import Admission
from security.counters import CounterStore
from security.passwords import MAX_BYTES, MIN_CHARACTERS, Passwords
from security.roles import Role

PASSWORD_RULE = (
    f"a password has at least {MIN_CHARACTERS} characters, at most {MAX_BYTES} bytes, and no NUL among them"
)


class Administrator(Input):
    email: SentEmail
    name: Name


def create_admin(arguments: argparse.Namespace) -> None:
    email = users.normal_email(arguments.email)
    for fault in violations.body_faults(Administrator, {"email": email, "name": arguments.name}):
        raise CommandError(fault.sentence)
    url = require_database_url()
    hashed = asyncio.run(Passwords(1).hash(read_new_password()))

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
        await audit.add(transaction, command_event(Action.ACCOUNT_CREATE, user.id))

    try:
        run_transaction(url, create)
    except DATABASE_ERRORS as error:
        if classify(error) is not Failure.EMAIL_TAKEN:
            raise
        raise CommandError("this e-mail address has an account already; see set-password") from error
    print(f"{email} is an administrator now.")


def set_password(arguments: argparse.Namespace) -> None:
    url, redis_url = require_database_url(), require_redis_url()
    hashed = asyncio.run(Passwords(1).hash(read_new_password()))
    email = users.normal_email(arguments.email)

    async def change(transaction: Transaction) -> None:
        user = await users.credentials(transaction, email)
        if user is None:
            raise CommandError("no account has this e-mail address")
        await users.set_password(transaction, user.id, hashed)
        ended = await sessions.end_all(transaction, user.id)
        await audit.add(transaction, command_event(Action.ACCOUNT_PASSWORD, user.id))
        store = CounterStore.connect(redis_url)
        admission = Admission(
            store, find_no_session, limit=1, tombstone_seconds=MAX_ACCESS_TOKEN_MINUTES * 60
        )
        await LoginAttempts(Reader(transaction.pool), store, 1, 1, 1).forgive(transaction, email)

        async def tell_redis() -> None:
            async with store:
                await admission.end_sessions(ended)

        transaction.after_commit(tell_redis)

    run_transaction(url, change)
    print(f"{email} has a new password; every session of the account has ended.")


async def find_no_session(session_id: object) -> None:
    """For an Admission that only ends sessions."""


def read_new_password() -> str:
    """The password that was typed twice at a prompt; without a terminal, a line of standard input. Never an
    argument, because other users of the machine see those. Raises CommandError."""
    is_terminal = sys.stdin is not None and sys.stdin.isatty()
    try:
        password = getpass.getpass("New password: ") if is_terminal else read_line()
        is_too_long = len(password.encode()) > MAX_BYTES
    except EOFError as error:
        raise CommandError("no password was given") from error
    except UnicodeError as error:
        raise CommandError("the password is not text in UTF-8") from error
    if len(password) < MIN_CHARACTERS or is_too_long or "\0" in password:
        raise CommandError(PASSWORD_RULE)
    if is_terminal and getpass.getpass("Once more: ") != password:
        raise CommandError("the two are not the same")
    return password


def read_line() -> str:
    """The next line of standard input. Raises EOFError where the process has none."""
    if sys.stdin is None:
        raise EOFError
    return sys.stdin.readline().rstrip("\n")
