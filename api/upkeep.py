"""What an operator asks of the database itself: is the audit trail whole, may the application only append
to it, may it be served?"""

import asyncio
from collections.abc import Mapping

import bcrypt
from sqlalchemy import text

from api.settings import Settings, value_of
from persistence import audit_chain, demo
from persistence.audit_chain import Key, Report
from persistence.database import Database, Transaction
from persistence.migration import is_behind
from persistence.models import AuditEvent

ZONE = text("SELECT 1 FROM pg_timezone_names WHERE name = :name")
# What a service writes of an event; its number and its transaction are PostgreSQL's to say.
WRITTEN = [column.name for column in AuditEvent.__table__.columns if column.name not in ("id", "xid")]
SEALS = text("SELECT has_function_privilege(oid, 'EXECUTE') FROM pg_proc WHERE proname = 'append_audit_seal'")


def audit_keys(environment: Mapping[str, str]) -> list[Key]:
    """The keys under which seals may have been made: AUDIT_KEY, SECRET_KEY and SECRET_KEY_PREVIOUS."""
    names = ("AUDIT_KEY", "SECRET_KEY", "SECRET_KEY_PREVIOUS")
    return [Key.of(value) for name in names if (value := value_of(name, environment))]


async def verify_audit(url: str, keys: list[Key], noted_head: str | None) -> Report:
    database = Database(url, command_timeout=None)
    try:
        return await audit_chain.verify(database.reader, keys, noted_head)
    finally:
        await database.close()


async def grant(transaction: Transaction, role: str) -> None:
    """Let `role` do what the service needs and no more: of the audit trail it may only add events, append
    seals by the function for that, and read."""
    quoted = '"' + role.replace('"', '""') + '"'
    for statement in (
        f"GRANT USAGE ON SCHEMA public TO {quoted}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {quoted}",
        f"REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON audit_events, audit_seals FROM {quoted}",
        f"GRANT INSERT ({', '.join(WRITTEN)}) ON audit_events TO {quoted}",
        f"GRANT EXECUTE ON FUNCTION next_audit_seal, append_audit_seal TO {quoted}",
        f"REVOKE UPDATE, DELETE, TRUNCATE ON medical_records FROM {quoted}",  # never changed or deleted
        f"REVOKE INSERT, UPDATE, DELETE ON alembic_version FROM {quoted}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {quoted}",
    ):
        await transaction.run(text(statement))


async def objection(settings: Settings) -> str | None:
    """Why this database must not be served as it is, and what to do about it."""
    database = Database(settings.database_url)
    try:
        if await is_behind(database.reader):
            return "the database is older than this release; run `medisecure migrate` first"
        if await database.reader.rows(SEALS) == [(False,)]:
            return "this role may not seal the audit trail; run `medisecure migrate --grant-to` with its name"
        if not await database.reader.rows(ZONE, name=settings.clinic_timezone):
            return f"PostgreSQL does not know the time zone {settings.clinic_timezone}; update its zone data"
        known = await known_passwords(await demo.password_hashes(database.reader))
    finally:
        await database.close()
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
