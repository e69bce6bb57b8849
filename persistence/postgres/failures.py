"""What the errors of PostgreSQL and its driver mean to the service: no SQLSTATE and no constraint is known
above this floor."""

from enum import Enum, auto

import asyncpg
from sqlalchemy.exc import DBAPIError

# 57P01 to 57P03: the server shuts down or starts; class 08: the connection is gone.
ENDED = ("57P01", "57P02", "57P03", "08")
# 40001 serialization failure, 40P01 deadlock, 53300 too many connections, 55P03 lock not available,
# 57014 cancelled at a time-out, 25006 a server that only reads.
PASSING = (*ENDED, "40001", "40P01", "53300", "55P03", "57014", "25006")
EXCLUDED = "23P01"  # an exclusion constraint, the backstop against two appointments at once
UNSTORABLE = "22"
SESSION_ENDED = "MS401"  # of the function refuse_ended_session
UNDEFINED_TABLE = "42P01"
# What PostgreSQL refuses a statement with; as asyncpg raises it, and as SQLAlchemy does where Alembic works.
DATABASE_ERRORS = (asyncpg.PostgresError, DBAPIError)


class Failure(Enum):
    """`UNAVAILABLE`: the same may work shortly. `OVERLAP`: two appointments at once. `EMAIL_TAKEN`,
    `ACCOUNT_LINKED`: it would be the second. `UNSTORABLE`: a value that our own checks let through and
    PostgreSQL cannot hold. `SESSION_ENDED`: the caller is signed out, or of another role, by now."""

    UNAVAILABLE = auto()
    OVERLAP = auto()
    EMAIL_TAKEN = auto()
    ACCOUNT_LINKED = auto()
    UNSTORABLE = auto()
    SESSION_ENDED = auto()
    UNKNOWN = auto()


DUPLICATES = {
    "uq_users_email": Failure.EMAIL_TAKEN,
    "uq_patients_user_id": Failure.ACCOUNT_LINKED,
}


class PoolTimeoutError(TimeoutError):
    """All connections stayed busy."""


def is_lost(error: BaseException) -> bool:
    """Whether the connection, not the statement, is what failed. What was sent may have been done or not."""
    if isinstance(error, asyncpg.PostgresError):
        return str(error.sqlstate).startswith(ENDED)
    if isinstance(error, asyncpg.InterfaceError):
        return "closed" in str(error)
    return isinstance(error, OSError) and not isinstance(error, TimeoutError)


def failure_of(error: BaseException) -> Failure | None:
    """None where it is none of asyncpg's."""
    if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError):
        return Failure.UNAVAILABLE if is_lost(error) else Failure.UNKNOWN
    if not isinstance(error, asyncpg.PostgresError):
        return None
    sqlstate = str(error.sqlstate)
    if sqlstate.startswith(PASSING):
        return Failure.UNAVAILABLE
    if sqlstate == SESSION_ENDED:
        return Failure.SESSION_ENDED
    if sqlstate == EXCLUDED:
        return Failure.OVERLAP
    if sqlstate.startswith(UNSTORABLE):
        return Failure.UNSTORABLE
    return DUPLICATES.get(str(error.constraint_name), Failure.UNKNOWN)


def kind_of(error: BaseException) -> str:
    """For logs: the class of the error and, where PostgreSQL raised it, its SQLSTATE."""
    return f"{type(error).__name__} {getattr(error, 'sqlstate', None) or ''}".rstrip()


def own_error(error: BaseException) -> BaseException:
    """PostgreSQL's own, out of what SQLAlchemy makes of it where Alembic works."""
    cause = error.orig.__cause__ if isinstance(error, DBAPIError) and error.orig else None
    return cause or error


def reason_of(error: BaseException) -> str:
    """In one line: what follows may quote values."""
    return str(own_error(error)).partition("\n")[0]


def lacks_tables(error: BaseException) -> bool:
    return getattr(own_error(error), "sqlstate", None) == UNDEFINED_TABLE
