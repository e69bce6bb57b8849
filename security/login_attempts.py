"""The login limits (requirement, "Rate Limiting" and "LoginAttempt"; ASVS 5.0, 6.3.1)."""

from contextlib import suppress
from math import ceil
from uuid import uuid4

from msgspec import Struct

from security.admission import Count, network_of
from security.availability import UNAVAILABLE, BusyError
from security.counters import CounterStore

# Seconds after which an attempt that nobody ended (the process was killed, Redis was away) is given back.
LEASE = 120


class Attempt(Struct, frozen=True):
    """A slot of the e-mail and one of the address, and how much of the e-mail's limit is used by it."""

    id: str
    keys: list[str]
    count: Count


class LoginAttempts:
    """Failed sign-ins per e-mail, known or not, and per address, in fixed windows that begin with the first.

    Kept at `login:attempts:{email}` and `login:failures:{address}` as hashes of `count` and `first_attempt`
    (seconds since the epoch). `take` and `keep` raise what security.availability.UNAVAILABLE lists, or
    BusyError, when Redis cannot say: nobody can then sign in, because nobody would count.
    """

    def __init__(self, store: CounterStore, limit: int, window: int, limit_of_address: int) -> None:
        """`limit` attempts of an e-mail and `limit_of_address` of an address per `window` seconds."""
        self.store = store
        self.limit = limit
        self.window = window
        self.limit_of_address = limit_of_address

    async def take(self, email: str, address: str) -> Attempt:
        """Take a slot before the password is checked, so that tries made at once are counted too. Does not
        extend the window, nor count on, once a limit is reached. Whoever takes one either keeps it, gives it
        back or clears it."""
        attempt, both = uuid4().hex, keys(email, address)
        allowed, taken, left = await self.store.take_attempt(
            both, self.limit, self.limit_of_address, self.window, attempt, LEASE
        )
        if allowed < 0:
            raise BusyError
        count = taken if allowed else self.limit + 1
        return Attempt(attempt, both, Count(count, self.limit, max(1, ceil(left / 1000)), self.window))

    async def keep(self, attempt: Attempt) -> None:
        """It has failed."""
        await self.store.keep_attempt(attempt.keys, attempt.id, self.window)

    async def give_back(self, attempt: Attempt) -> None:
        """It ended without saying anything about the password. Nothing happens to one that was kept."""
        with suppress(*UNAVAILABLE, BusyError):  # then its lease runs out
            await self.store.return_attempt(attempt.keys, attempt.id)

    async def clear(self, attempt: Attempt) -> None:
        """A success forgives the e-mail what failed before, and the address this one attempt."""
        by_email, by_address = attempt.keys
        with suppress(*UNAVAILABLE, BusyError):  # the right password is enough: the count lapses by itself
            await self.store.return_attempt([by_address], attempt.id)
            await self.store.forget(by_email)

    async def forgive(self, email: str) -> None:
        """Whoever may has set a new password: what failed before was about the old one."""
        with suppress(*UNAVAILABLE, BusyError):
            await self.store.forget(keys(email, "")[0])


def keys(email: str, address: str) -> list[str]:
    return [f"login:attempts:{email}", f"login:failures:{network_of(address)}"]
