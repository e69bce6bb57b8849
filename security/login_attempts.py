"""The login limit (requirement, "Rate Limiting" and "LoginAttempt")."""

from math import ceil
from time import time

from security.admission import Count
from security.counters import CounterStore


class LoginAttempts:
    """Failed sign-ins per e-mail, known or not, in a fixed window that begins with the first of them.

    Kept at `login:attempts:{email}` as a hash of `count` and `first_attempt` (seconds since the epoch).
    Every method raises what security.counters.UNAVAILABLE lists when Redis is away: nobody can then sign
    in, because nobody would count.
    """

    def __init__(self, store: CounterStore, limit: int, window: int) -> None:
        """`limit` attempts per `window` seconds."""
        self.store = store
        self.limit = limit
        self.window = window

    async def take(self, email: str) -> Count:
        """Take a slot before the password is checked, so that tries made at once are counted too. Does not
        extend the window, nor count on, once the limit is reached."""
        allowed, taken, left = await self.store.take_attempt(
            keys=[key(email)], args=[self.limit, self.window, int(time())]
        )
        return Count(taken if allowed else self.limit + 1, self.limit, max(1, ceil(left / 1000)))

    async def give_back(self, email: str) -> None:
        """Return a slot whose password was never checked."""
        await self.store.return_attempt(keys=[key(email)], args=[])

    async def clear(self, email: str) -> None:
        """A success forgives what failed before."""
        await self.store.delete(key(email))


def key(email: str) -> str:
    return f"login:attempts:{email}"
