"""The login limits (requirement, "Rate Limiting" and "LoginAttempt"; ASVS 5.0, 6.3.1)."""

from math import ceil
from time import time

from security.admission import Count, network_of
from security.counters import CounterStore


class LoginAttempts:
    """Failed sign-ins per e-mail, known or not, and per address, in fixed windows that begin with the first.

    Kept at `login:attempts:{email}` and `login:failures:{address}` as hashes of `count` and `first_attempt`
    (seconds since the epoch). Every method raises what security.counters.UNAVAILABLE lists when Redis is
    away: nobody can then sign in, because nobody would count.
    """

    def __init__(self, store: CounterStore, limit: int, window: int, limit_of_address: int) -> None:
        """`limit` attempts of an e-mail and `limit_of_address` of an address per `window` seconds."""
        self.store = store
        self.limit = limit
        self.window = window
        self.limit_of_address = limit_of_address

    async def take(self, email: str, address: str) -> Count:
        """Take a slot before the password is checked, so that tries made at once are counted too. Does not
        extend the window, nor count on, once a limit is reached."""
        allowed, taken, left = await self.store.take_attempt(
            keys=keys(email, address), args=[self.limit, self.limit_of_address, self.window, int(time())]
        )
        count = taken if allowed else self.limit + 1
        return Count(count, self.limit, max(1, ceil(left / 1000)), self.window)

    async def give_back(self, email: str, address: str) -> None:
        """Return a slot whose password was never checked."""
        await self.store.return_attempt(keys=keys(email, address), args=[])

    async def clear(self, email: str, address: str) -> None:
        """A success forgives the e-mail what failed before, and the address this one attempt."""
        by_email, by_address = keys(email, address)
        await self.store.return_attempt(keys=[by_address], args=[])
        await self.store.delete(by_email)


def keys(email: str, address: str) -> list[str]:
    return [f"login:attempts:{email}", f"login:failures:{network_of(address)}"]
