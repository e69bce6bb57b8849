"""What the errors of PostgreSQL and its driver mean to the service. SQLSTATEs and names of constraints are
known here and nowhere else."""

from enum import Enum, auto

import asyncpg
from sqlalchemy.exc import DBAPIError

# SQLSTATEs, or how they begin. Class 08: the connection is lost; 57P01 to 57P03: the server stops or starts.
CONNECTION_LOST = ("08", "57P01", "57P02", "57P03")
# Class 53: no connection, memory or disk left; 40001 serialization failure, 40P01 deadlock, 55P03 lock not
# available, 57014 cancelled at a time-out, 25006 a server that only reads, 55000 one that follows another (it
# has no log of its own to tell of).
TEMPORARY = (*CONNECTION_LOST, "53", "40001", "40P01", "55P03", "57014", "25006", "55000")
# PgBouncer reports these as 08P01, although waiting does not solve them.
POOLER_REFUSALS = ("unsupported startup parameter", "no such database", "no such user")
# What PgBouncer says, and which of its settings is in the way.
POOLER_SETTINGS = {
    "query_wait_timeout": "PgBouncer had no connection free: its default_pool_size is too small; `medisecure "
    "migrate` and `load-demo` need two at once",
    "no more connections allowed": "raise PgBouncer's max_client_conn",
    "unsupported startup parameter": "take it out of the URL, or name it in PgBouncer's "
    "ignore_startup_parameters",
    "transaction blocks not allowed": "PgBouncer's pool_mode must be transaction or session",
}
EXCLUSION_VIOLATION = "23P01"
DATA_EXCEPTION = "22"
UNDEFINED_TABLE = "42P01"
READ_ONLY = "25006"
DISK_FULL = "53100"
SESSION_ENDED = "MS401"  # raised by the function refuse_ended_session
# What PostgreSQL refuses a statement with; as asyncpg raises it, and as SQLAlchemy does where Alembic works.
DATABASE_ERRORS = (asyncpg.PostgresError, DBAPIError)
DRIVER_ERRORS = (asyncpg.InterfaceError, asyncpg.InternalClientError)  # as of a connection that is closed


class Failure(Enum):
    """`UNAVAILABLE`: the same request may work shortly. `OVERLAP`: a person would have two appointments at
    once. `EMAIL_TAKEN`, `ACCOUNT_LINKED`: the e-mail or the account belongs to another one. `UNSTORABLE`: a
    value that our own checks allow and PostgreSQL does not. `SESSION_ENDED`: the caller has signed out, or
    has another role now."""

    UNAVAILABLE = auto()
    OVERLAP = auto()
    EMAIL_TAKEN = auto()
    ACCOUNT_LINKED = auto()
    UNSTORABLE = auto()
    SESSION_ENDED = auto()
    UNKNOWN = auto()


FAILURE_BY_CONSTRAINT = {
    "uq_users_email": Failure.EMAIL_TAKEN,
    "uq_patients_user_id": Failure.ACCOUNT_LINKED,
}


class PoolTimeoutError(TimeoutError):
    """All connections stayed busy."""


def is_connection_lost(error: BaseException) -> bool:
    """Whether the connection failed, and not the statement. What was sent may have been done or not."""
    if isinstance(error, asyncpg.PostgresError):
        return str(error.sqlstate).startswith(CONNECTION_LOST)
    if isinstance(error, asyncpg.InterfaceError):
        return "closed" in str(error)
    if isinstance(error, asyncpg.InternalClientError):  # PostgreSQL said goodbye while nobody asked it
        return str(error).startswith("cannot switch to state")
    return isinstance(error, OSError) and not isinstance(error, TimeoutError)


def is_temporary(error: asyncpg.PostgresError) -> bool:
    """Whether the same may work after a while."""
    is_refusal = first_line_of(error).startswith(POOLER_REFUSALS)
    return str(error.sqlstate).startswith(TEMPORARY) and not is_refusal


def classify(error: BaseException) -> Failure | None:
    """None where the error is not one of asyncpg's."""
    if isinstance(error, DRIVER_ERRORS):
        return Failure.UNAVAILABLE if is_connection_lost(error) else Failure.UNKNOWN
    if not isinstance(error, asyncpg.PostgresError):
        return None
    sqlstate = str(error.sqlstate)
    if is_temporary(error):
        return Failure.UNAVAILABLE
    if sqlstate == SESSION_ENDED:
        return Failure.SESSION_ENDED
    if sqlstate == EXCLUSION_VIOLATION:
        return Failure.OVERLAP
    if sqlstate.startswith(DATA_EXCEPTION):
        return Failure.UNSTORABLE
    return FAILURE_BY_CONSTRAINT.get(str(error.constraint_name), Failure.UNKNOWN)


def kind_of(error: BaseException) -> str:
    """For logs: the class of the error and, where PostgreSQL raised it, its SQLSTATE."""
    return f"{type(error).__name__} {getattr(error, 'sqlstate', None) or ''}".rstrip()


def driver_error(error: BaseException) -> BaseException:
    """The error as asyncpg raised it: SQLAlchemy, which Alembic uses, wraps it in one of its own."""
    cause = error.orig.__cause__ if isinstance(error, DBAPIError) and error.orig else None
    return cause or error


def first_line_of(error: BaseException) -> str:
    """The message without its details, which may quote values."""
    return str(driver_error(error)).partition("\n")[0]


def is_read_only(error: BaseException) -> bool:
    return getattr(driver_error(error), "sqlstate", None) == READ_ONLY


def reason_of(error: BaseException) -> str:
    """The first line, and which setting of a pooler would have to be another one."""
    said = first_line_of(error)
    advice = [advice for words, advice in POOLER_SETTINGS.items() if words in said]
    return "; ".join((said, *advice))


def is_disk_full(error: BaseException) -> bool:
    return getattr(driver_error(error), "sqlstate", None) == DISK_FULL


def is_undefined_table(error: BaseException) -> bool:
    return getattr(driver_error(error), "sqlstate", None) == UNDEFINED_TABLE
