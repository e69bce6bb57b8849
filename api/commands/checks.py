"""May the service run on this PostgreSQL and this Redis? `serve`, `dev` and `migrate` ask before they start.

A problem is one that waiting does not solve, in words that say what to do about it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from api.settings import Settings
from persistence import demo, fitness
from persistence.postgres.connector import NoConnectionError, no_connection_error
from persistence.postgres.database import Database, Reader
from persistence.postgres.failures import DATABASE_ERRORS
from security.availability import UNAVAILABLE, BusyError
from security.counters import CounterStore
from security.passwords import Passwords
from security.redis_check import explain_lasting_error, inspect_server, require_working_redis

log = logging.getLogger("medisecure.start")


class UnreachableError(Exception):
    """A server cannot be reached; waiting may help. The message says which, and why. `is_needed`: people
    cannot work until it can be reached."""

    def __init__(self, message: str, *, is_needed: bool = True) -> None:
        super().__init__(message)
        self.is_needed = is_needed


async def find_problem(settings: Settings, workers: int = 1) -> str | None:
    """Why the service must not run on these servers as they are. Raises UnreachableError."""

    async def find(database: Database) -> str | None:
        return (
            await find_server_problem(database, workers)
            or await fitness.tables_problem(database.reader)
            or await fitness.time_zone_problem(database.reader, settings.clinic_timezone)
            or await find_password_problem(database.reader)
        )

    return await first_problem(ask_database(settings.database_url, find), find_redis_problem(settings))


async def find_problem_before_migration(settings: Settings) -> str | None:
    """The same where the tables need not be there yet. Raises UnreachableError."""
    return await first_problem(
        ask_database(settings.database_url, find_server_problem), find_redis_problem(settings)
    )


async def first_problem(*searches: Awaitable[str | None]) -> str | None:
    """A problem of one server counts even if the other one cannot be reached."""
    found = await asyncio.gather(*searches, return_exceptions=True)
    unreachable = []
    for problem in found:
        if isinstance(problem, UnreachableError):
            unreachable.append(problem)
        elif isinstance(problem, BaseException):
            raise problem
        elif problem:
            return problem
    if unreachable:
        is_needed = any(one.is_needed for one in unreachable)
        raise UnreachableError("; ".join(map(str, unreachable)), is_needed=is_needed)
    return None


async def ask_database(url: str, find: Callable[[Database], Awaitable[str | None]]) -> str | None:
    """What `find` finds; or, if the database cannot be used for a reason that lasts, that reason. Raises
    UnreachableError."""
    try:
        async with Database(url) as database:
            return await find(database)
    except NoConnectionError as error:
        refused = error
    except (OSError, TimeoutError) as error:
        refused = NoConnectionError(str(error) or "it does not answer", lasting=False)
    except DATABASE_ERRORS as error:
        refused = no_connection_error(error)
    if refused.lasting:
        return f"the database cannot be used: {refused}"
    raise UnreachableError(f"PostgreSQL cannot be reached: {refused}")


async def find_server_problem(database: Database, workers: int = 1) -> str | None:
    """What no migration solves."""
    async with database.transaction() as transaction:  # a pooler may not know transactions
        problem = await fitness.server_problem(transaction)
        if problem or database.connector.is_pooled:
            return problem
        return await fitness.connections_problem(transaction, workers * database.connections)


async def find_redis_problem(settings: Settings) -> str | None:
    """Raises UnreachableError."""
    store = CounterStore.connect(settings.redis_url)
    try:
        async with store:
            problem, warning = await inspect_server(store)
            if problem is None:
                await require_working_redis(store, fenced=bool(settings.database_read_url))
    except (*UNAVAILABLE, BusyError) as error:
        problem, warning = explain_lasting_error(error), None
        if problem is None:
            reason = str(error) or "it does not answer"
            raise UnreachableError(f"Redis cannot be reached: {reason}", is_needed=False) from error
    if warning:
        log.warning(warning)
    return problem


async def find_password_problem(reader: Reader) -> str | None:
    known = await find_known_passwords(await demo.password_hashes(reader))
    if not known:
        return None
    return (
        f"everyone knows the password of {', '.join(known)}; change it with `medisecure set-password` "
        "before you serve this database"
    )


async def find_known_passwords(hashes: Mapping[str, str]) -> list[str]:
    """Of these e-mails of demo accounts, those whose password is still the one that everyone knows."""
    passwords = Passwords(len(hashes))
    matches = await asyncio.gather(*(passwords.verify(demo.PASSWORD, hashed) for hashed in hashes.values()))
    passwords.close()
    return [email for email, is_known in zip(hashes, matches, strict=True) if is_known]
