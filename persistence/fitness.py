"""Whether the service can run on this PostgreSQL as it is set up: asked before the service starts, and by
/health/ready."""

from typing import NamedTuple, TypedDict

from sqlalchemy import text

from persistence.migrations.revisions import is_behind
from persistence.postgres.database import Reader, Source
from persistence.postgres.statements import NOTHING, Nothing, Query

MIN_MAJOR_VERSION = 15
BEHIND_MESSAGE = "the database is older than this release; run `medisecure migrate` first"


class Server(NamedTuple):
    version: str
    major: int
    encoding: str
    only_reads: bool


class Room(NamedTuple):
    """How many connections may be open at once."""

    connections: int


class Access(NamedTuple):
    """`is_empty`: nothing was ever migrated, or the role does not see that it was."""

    role: str
    is_empty: bool
    sees_them: bool
    sees_version: bool


class Lack(NamedTuple):
    what: str


class Function(NamedTuple):
    name: str


class ReadOnly(NamedTuple):
    is_on: bool


class Zones(NamedTuple):
    name: str


class Rights(TypedDict):
    """Pairs of a table and a privilege."""

    tables: list[str]
    privileges: list[str]


class Zone(TypedDict):
    name: str


SERVER_SQL = text(
    """
    SELECT current_setting('server_version') AS version,
           current_setting('server_version_num')::int / 10000 AS major,
           current_setting('server_encoding') AS encoding,
           current_setting('transaction_read_only') = 'on' AS only_reads
    """
)
ROOM_SQL = text(
    """
    SELECT least(
               current_setting('max_connections')::int
               - current_setting('superuser_reserved_connections')::int
               - coalesce(current_setting('reserved_connections', true)::int, 0),
               (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database()),
               (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user)) AS connections
    """
)
# What the service does with each table; `medisecure migrate --grant-to` grants that, and more only where it
# does no harm.
NEEDED = {
    "users": ("SELECT", "INSERT", "UPDATE"),
    "sessions": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "login_counters": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "idempotency_keys": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "patients": ("SELECT", "INSERT", "UPDATE"),
    "appointments": ("SELECT", "INSERT", "UPDATE"),
    "calendar_feeds": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "doctor_hours": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "absences": ("SELECT", "INSERT", "DELETE"),
    "medical_records": ("SELECT", "INSERT"),
    "record_versions": ("SELECT", "INSERT"),
    "record_retractions": ("SELECT", "INSERT"),
    "audit_events": ("SELECT", "INSERT"),
    "patient_changes": ("SELECT", "INSERT"),
    "merged_patients": ("SELECT",),
    "patient_merges": ("SELECT", "INSERT"),
    "appointment_changes": ("SELECT", "INSERT"),
    "counts": ("SELECT",),
    "count_changes": ("SELECT",),
    "count_marks": ("SELECT",),
    "counted_lists": ("SELECT",),
    "counted": ("SELECT",),
    "recounted": ("SELECT",),
    "changes": ("SELECT",),
    "change_horizon": ("SELECT",),
    "alembic_version": ("SELECT",),
    "backup_proofs": ("SELECT",),
}
RIGHTS = Rights(
    tables=[table for table, privileges in NEEDED.items() for _ in privileges],
    privileges=[privilege for privileges in NEEDED.values() for privilege in privileges],
)
ACCESS_SQL = text(
    """
    SELECT current_user AS role,
           to_regclass('alembic_version') IS NULL AS is_empty,
           has_schema_privilege('public', 'USAGE') AS sees_them,
           coalesce(has_table_privilege(to_regclass('alembic_version'), 'SELECT'), false) AS sees_version
    """
)
LACKING_SQL = text(
    """
    SELECT string_agg(privilege, ', ') || ' on ' || name AS what
    FROM unnest(CAST(:tables AS text[]), CAST(:privileges AS text[])) AS needed(name, privilege)
    WHERE (has_table_privilege(to_regclass(name), privilege)
           -- some columns of an event are set by PostgreSQL: the role may write only the others
           OR privilege <> 'DELETE' AND has_any_column_privilege(to_regclass(name), privilege)) IS NOT TRUE
    GROUP BY name
    ORDER BY name
    """
)
FORBIDDEN_SQL = text(
    """
    SELECT proname AS name FROM pg_proc
    WHERE proname IN ('append_audit_seal', 'fold_counts', 'purge_changes')
      AND NOT has_function_privilege(oid, 'EXECUTE')
    """
)
PURPOSES = {
    "append_audit_seal": "seal the audit trail",
    "fold_counts": "keep the counters",
    "purge_changes": "forget old changes",
}
SERVER = Query(Server, Nothing, SERVER_SQL)
ROOM = Query(Room, Nothing, ROOM_SQL)
ACCESS = Query(Access, Nothing, ACCESS_SQL)
LACKING = Query(Lack, Rights, LACKING_SQL)
FORBIDDEN = Query(Function, Nothing, FORBIDDEN_SQL)
READ_ONLY = Query(ReadOnly, Nothing, text("SELECT current_setting('transaction_read_only') = 'on' AS is_on"))
ZONE = Query(Zones, Zone, text("SELECT name FROM pg_timezone_names WHERE name = :name"))


async def server_problem(source: Source) -> str | None:
    """A problem that no migration solves."""
    [server] = await source.rows(SERVER, NOTHING)
    if server.major < MIN_MAJOR_VERSION:
        return f"PostgreSQL {server.version} is too old; the service needs {MIN_MAJOR_VERSION} or newer"
    if server.encoding != "UTF8":
        return (
            f"the database holds text in {server.encoding}, which has no place for every name; make one with "
            "`CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8'`"
        )
    if server.only_reads:
        return (
            "PostgreSQL takes no writes here: it is a standby, or default_transaction_read_only is on; "
            "name the primary in DATABASE_URL"
        )
    return None


async def connections_problem(source: Source, connections: int) -> str | None:
    """`connections`: how many may be open at once."""
    [room] = await source.rows(ROOM, NOTHING)
    if room.connections >= connections:
        return None
    return (
        f"PostgreSQL allows {room.connections} connections, and the service may need {connections}; allow "
        "more (max_connections, the CONNECTION LIMIT of the database or the role), take fewer --workers, or "
        "put PgBouncer between"
    )


async def tables_problem(reader: Reader) -> str | None:
    [state] = await reader.rows(ACCESS, NOTHING)
    if state.is_empty and state.sees_them:
        return BEHIND_MESSAGE
    if state.is_empty:
        return missing_rights(state.role, "USAGE on the schema public")
    if state.sees_version and await is_behind(reader):
        return BEHIND_MESSAGE
    for function in await reader.rows(FORBIDDEN, NOTHING):
        return (
            f"this role may not {PURPOSES[function.name]}; run `medisecure migrate --grant-to` with its name"
        )
    lacking = await reader.rows(LACKING, RIGHTS)
    return missing_rights(state.role, "; ".join(row.what for row in lacking)) if lacking else None


def missing_rights(role: str, what: str) -> str:
    return f"the database's role {role} lacks {what}; as the owner run `medisecure migrate --grant-to {role}`"


async def is_read_only(reader: Reader) -> bool:
    """A standby, or a server that was told to be."""
    [row] = await reader.rows(READ_ONLY, NOTHING)
    return row.is_on


async def time_zone_problem(reader: Reader, zone: str) -> str | None:
    if await reader.rows(ZONE, Zone(name=zone)):
        return None
    return f"PostgreSQL does not know the time zone {zone}; update its zone data"
