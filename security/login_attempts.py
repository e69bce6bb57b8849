"""The login limits (requirement, "Rate Limiting" and "LoginAttempt"; ASVS 5.0, 6.3.1)."""

from contextlib import suppress
from math import ceil
from uuid import uuid4

from msgspec import Struct

from security.admission import Count, network_of
from security.availability import UNAVAILABLE, BusyError
from security.counters import CounterStore

# After which an attempt is given back that has neither failed nor succeeded: its process was killed, or Redis
# was away when it ended.
LEASE_SECONDS = 120


class Attempt(Struct, frozen=True):
    """One attempt of the e-mail and one of the address; and the e-mail's count with it."""

    id: str
    keys: list[str]
    count: Count


class LoginAttempts:
    """Failed sign-ins per e-mail, known or not, and per address, in fixed windows that begin with the first.

    Kept at `login:attempts:{email}` and `login:failures:{address}` as hashes of `count` and `first_attempt`
    (seconds since the epoch). `take` and `keep` raise what security.availability.UNAVAILABLE lists, or
    BusyError, if Redis cannot count: then nobody can sign in.
    """

    def __init__(self, store: CounterStore, limit: int, window: int, limit_of_address: int) -> None:
        """`limit` attempts of an e-mail and `limit_of_address` of an address per `window` seconds."""
        self.store = store
        self.limit = limit
        self.window = window
        self.limit_of_address = limit_of_address

    async def take(self, email: str, address: str) -> Attempt:
        """Count an attempt before its password is checked, so that attempts at the same time are counted too.
        Once a limit is reached, attempts neither extend the window nor raise the count. The caller ends each
        attempt with `keep`, `give_back` or `clear`."""
        attempt_id, keys = uuid4().hex, keys_of(email, address)
        allowed, taken, left_ms = await self.store.take_attempt(
            keys, self.limit, self.limit_of_address, self.window, attempt_id, LEASE_SECONDS
        )
        if allowed < 0:  # Redis ran it too late
            raise BusyError
        count = taken if allowed else self.limit + 1
        return Attempt(attempt_id, keys, Count(count, self.limit, max(1, ceil(left_ms / 1000)), self.window))

    async def keep(self, attempt: Attempt) -> None:
        """The attempt has failed, and counts until the window ends."""
        await self.store.keep_attempt(attempt.keys, attempt.id, self.window)

    async def give_back(self, attempt: Attempt) -> None:
        """The attempt ended without a check of the password, and does not count. Does nothing to one that was
        kept."""
        with suppress(*UNAVAILABLE, BusyError):  # then its lease runs out
            await self.store.return_attempt(attempt.keys, attempt.id)

    async def clear(self, attempt: Attempt) -> None:
        """The attempt succeeded: the e-mail's count begins anew, and the address gets this attempt back."""
        by_email, by_address = attempt.keys
        with suppress(*UNAVAILABLE, BusyError):  # the password was right; the count ends with its window
            await self.store.return_attempt([by_address], attempt.id)
            await self.store.forget(by_email)

    async def forgive(self, email: str) -> None:
        """The account has a new password, and the failed attempts were about the old one."""
        with suppress(*UNAVAILABLE, BusyError):
            await self.store.forget(keys_of(email, "")[0])


def keys_of(email: str, address: str) -> list[str]:
    return [f"login:attempts:{email}", f"login:failures:{network_of(address)}"]
