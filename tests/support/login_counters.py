"""The counters of failed sign-ins: PostgreSQL's, and what Redis shows of them (requirement, "LoginAttempt
(Redis)")."""

import hashlib
from datetime import timedelta

from tests.support.service import Backend

OF_ADDRESSES = "login:failures:*"


def key_of(address: str) -> str:
    return f"login:attempts:{address}"


def digest_of(address: str) -> bytes:
    """The key of the e-mail's row."""
    return hashlib.sha256(key_of(address).encode()).digest()


def attempts(backend: Backend, address: str) -> dict[str, str]:
    with backend.redis as connection:
        return dict(connection.hgetall(key_of(address)))


def failures(backend: Backend, address: str) -> int:
    """What PostgreSQL has counted, in a window that has not ended."""
    found = backend.sql(
        "SELECT failures FROM login_counters WHERE key = $1 AND ends_at > clock_timestamp()",
        digest_of(address),
    )
    return int(found[0][0]) if found else 0


def pending(backend: Backend) -> int:
    """Attempts under way, of every e-mail and address."""
    [(number,)] = backend.sql("SELECT count(*) FROM login_counters, jsonb_object_keys(pending)")
    return int(number)


def failures_of_addresses(backend: Backend) -> int:
    with backend.redis as connection:
        return sum(int(connection.hget(key, "count") or 0) for key in connection.keys(OF_ADDRESSES))


def lock(backend: Backend, address: str, *, seconds: float = 900, count: int = 5) -> None:
    """Write the counter as `count` failed attempts leave it, with `seconds` left of the window."""
    backend.sql(
        "INSERT INTO login_counters (key, failures, began_at, ends_at) "
        "VALUES ($1, $2, now() + $3 - interval '900 s', now() + $3) "
        "ON CONFLICT (key) DO UPDATE SET failures = excluded.failures, pending = '{}', "
        "began_at = excluded.began_at, ends_at = excluded.ends_at, version = login_counters.version + 1",
        digest_of(address),
        count,
        timedelta(seconds=seconds),
    )


def unlock(backend: Backend, address: str) -> None:
    """Let the rest of the window go by."""
    backend.sql("UPDATE login_counters SET ends_at = now() WHERE key = $1", digest_of(address))
