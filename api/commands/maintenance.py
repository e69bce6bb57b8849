"""What an operator asks of the database itself: is the audit trail whole, may the application only append
to it, may it be served?"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

import bcrypt
from asyncpg import PostgresError
from sqlalchemy import text

from api.settings import Settings, value_of
from persistence import audit_chain, demo, fitness
from persistence.audit_chain import Key, Report
from persistence.models import AuditEvent
from persistence.postgres import counters
from persistence.postgres.connecting import NoConnectionError, is_passing
from persistence.postgres.database import Database, Reader, Transaction
from persistence.postgres.failures import reason_of
from persistence.postgres.statements import AnyRow
from security import probe
from security.availability import UNAVAILABLE, BusyError
from security.counters import CounterStore

log = logging.getLogger("medisecure.start")
CALLED = (
    "next_audit_seal",
    "append_audit_seal",
    "within_ten_minutes",
    "began_of_ten_minutes",
    "counted_rows",
    "mark_before",
    "fold_counts",
    "refuse_ended_session",
    "booked_meanwhile",
)
COUNTERS = ("counts", "count_changes", "count_marks", "counted_lists", "audit_count", "audit_past")
# What a service writes of an event; its number and its transaction are PostgreSQL's to say.
WRITTEN = [column.name for column in AuditEvent.__table__.columns if column.name not in ("id", "xid")]


class UncheckedError(Exception):
    """Nothing of the trail is damaged, as far as it could be checked. `status`: that of the command."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def audit_keys(environment: Mapping[str, str]) -> list[Key]:
    """The keys under which seals may have been made: AUDIT_KEY, SECRET_KEY and SECRET_KEY_PREVIOUS."""
    names = ("AUDIT_KEY", "SECRET_KEY", "SECRET_KEY_PREVIOUS")
    return [Key.of(value) for name in names if (value := value_of(name, environment))]


async def verify_audit(url: str, keys: list[Key], noted_head: str | None) -> Report:
    async with Database(url, command_timeout=None) as database:
        return await audit_chain.verify(database.reader, keys, noted_head)


async def count(url: str) -> None:
    """Count what the database does not know yet, as after the migration that brought the counters."""
    async with Database(url, command_timeout=None) as database:
        await counters.fold_all(database)


async def check_counters(url: str, *, repaired: bool) -> Sequence[AnyRow]:
    """As `counters.check`; `repaired`: after all is counted afresh."""
    async with Database(url, command_timeout=None) as database:
        if repaired:
            await counters.repair(database)
        return await counters.check(database.reader)


async def grant(transaction: Transaction, role: str) -> None:
    """Let `role` do what the service needs and no more: of the audit trail it may only add events, append
    seals by the function for that, and read; of the counters, read."""
    quoted = '"' + role.replace('"', '""') + '"'
    for statement in (
        f"GRANT USAGE ON SCHEMA public TO {quoted}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {quoted}",
        f"REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON audit_events, audit_seals FROM {quoted}",
        f"GRANT INSERT ({', '.join(WRITTEN)}) ON audit_events TO {quoted}",
        # What the counters say is for the triggers and fold_counts, with their owner's rights.
        f"REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON {', '.join(COUNTERS)} FROM {quoted}",
        f"GRANT EXECUTE ON FUNCTION {', '.join(CALLED)} TO {quoted}",
        f"REVOKE UPDATE, DELETE, TRUNCATE ON medical_records FROM {quoted}",  # never changed or deleted
        f"REVOKE INSERT, UPDATE, DELETE ON alembic_version FROM {quoted}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {quoted}",
    ):
        await transaction.run(text(statement))


class AwayError(Exception):
    """A server cannot be reached; waiting may help. The message says which, and why."""


async def objection(settings: Settings, workers: int = 1) -> str | None:
    """Why the service must not be let loose on these servers as they are, and what to do about it. Raises
    AwayError."""
    return await first_objection(
        of_database(
            settings.database_url, lambda database: objection_to_database(database, settings, workers)
        ),
        of_redis(settings.redis_url),
    )


async def objection_to_servers(settings: Settings) -> str | None:
    """The same of a database that is still to be migrated. Raises AwayError."""
    return await first_objection(
        of_database(settings.database_url, objection_to_server), of_redis(settings.redis_url)
    )


async def first_objection(*questions: Awaitable[str | None]) -> str | None:
    answers = await asyncio.gather(*questions, return_exceptions=True)
    away = []
    for answer in answers:
        if isinstance(answer, AwayError):
            away.append(str(answer))
        elif isinstance(answer, BaseException):
            raise answer
        elif answer:
            return answer
    if away:
        raise AwayError("; ".join(away))
    return None


async def objection_to_database(database: Database, settings: Settings, workers: int) -> str | None:
    return (
        await objection_to_server(database, workers)
        or await fitness.objection_to_tables(database.reader)
        or await fitness.objection_to_zone(database.reader, settings.clinic_timezone)
        or await objection_to_passwords(database.reader)
    )


async def objection_to_server(database: Database, workers: int = 1) -> str | None:
    async with database.transaction() as transaction:  # a pooler may not know transactions
        problem = await fitness.objection_to_server(transaction)
        if problem is None and not database.connector.is_pooled:
            problem = await fitness.objection_to_room(transaction, workers * database.connections)
    return problem


async def of_database(url: str, question: Callable[[Database], Awaitable[str | None]]) -> str | None:
    """The answer; or what keeps it from being given, where that lasts. Raises AwayError."""
    try:
        async with Database(url) as database:
            return await question(database)
    except NoConnectionError as error:
        reason, lasting = str(error), error.lasting
    except (OSError, TimeoutError) as error:
        reason, lasting = str(error) or "it does not answer", False
    except PostgresError as error:
        reason = reason_of(error)
        lasting = not is_passing(error.sqlstate, reason)
    if lasting:
        return f"the database cannot be used: {reason}"
    raise AwayError(f"PostgreSQL cannot be reached: {reason}")


async def of_redis(url: str) -> str | None:
    """What speaks against this Redis. Raises AwayError."""
    store = CounterStore.connect(url)
    try:
        async with store:
            problem, warning = await probe.doubts(store)
            if problem is None:
                await probe.try_out(store)
    except (*UNAVAILABLE, BusyError) as error:
        problem, warning = probe.objection(error), None
        if problem is None:
            reason = str(error) or "it does not answer"
            raise AwayError(f"Redis cannot be reached: {reason}") from error
    if warning:
        log.warning(warning)
    return problem


async def objection_to_passwords(reader: Reader) -> str | None:
    known = await known_passwords(await demo.password_hashes(reader))
    if not known:
        return None
    return (
        f"everyone knows the password of {', '.join(known)}; change it with `medisecure set-password` "
        "before you serve this database"
    )


async def known_passwords(hashes: Mapping[str, str]) -> list[str]:
    """E-mails of demo accounts that still have the password which everyone knows."""
    checks = [
        asyncio.to_thread(bcrypt.checkpw, demo.PASSWORD.encode(), hashed.encode())
        for hashed in hashes.values()
    ]
    return [email for email, known in zip(hashes, await asyncio.gather(*checks), strict=True) if known]
