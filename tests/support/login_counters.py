"""The counters of failed sign-ins, as Redis keeps them (requirement, "LoginAttempt (Redis)")."""

import time

from tests.support.service import Backend


def key_of(address: str) -> str:
    return f"login:attempts:{address}"


def attempts(backend: Backend, address: str) -> dict[str, str]:
    with backend.redis as connection:
        return dict(connection.hgetall(key_of(address)))


def lock(backend: Backend, address: str, *, seconds: float = 900, count: int = 5) -> None:
    """Write the counter as `count` failed attempts leave it, with `seconds` left of the window."""
    with backend.redis as connection:
        first = int(time.time() - 900 + seconds)
        connection.hset(key_of(address), mapping={"count": count, "first_attempt": first})
        connection.pexpire(key_of(address), int(seconds * 1000))


def unlock(backend: Backend, address: str) -> None:
    with backend.redis as connection:
        connection.delete(key_of(address))
