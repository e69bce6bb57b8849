"""Passwords: bcrypt at the requirement's cost, away from the event loop, in a bounded pool."""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from enum import StrEnum
from functools import cache
from importlib import import_module
from time import monotonic
from typing import TypeVar

import bcrypt

BCRYPT_COST = 12  # requirement, "Password Requirements"
MIN_CHARACTERS = 6  # requirement, "Password Requirements"
MAX_BYTES = 72  # bcrypt reads no more, and a password is never cut
# Of a password that nobody has. A check against it makes an unknown e-mail take as long as a known one.
DUMMY_HASH = b"$2b$12$v9buu53WFFOnvq0So9jdS.dybOxOoSt5VHZLJkox983H6Zcrwtb6O"

Answer = TypeVar("Answer")


class TooBusyError(Exception):
    """Every place in the queue is taken. Seconds after which to try again: `retry_after`."""

    retry_after = 2


class Weakness(StrEnum):
    """Why a password may not be set."""

    TOO_LONG = "too long"
    COMMON = "common"


class Passwords:
    """Hashes passwords, verifies them, and says which may be set.

    One hash takes about 0.3 s of a core. `threads` of them run at once, at a lower priority than the
    requests, and `queue` more may wait; what comes beyond raises TooBusyError at once. `tell_seconds` is
    called with how long somebody has waited for a hash."""

    def __init__(
        self,
        threads: int | None = None,
        queue: int = 64,
        *,
        refuse_common: bool = False,
        tell_seconds: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.refuse_common = refuse_common
        self.tell_seconds = tell_seconds
        self.threads = threads or max(1, (os.cpu_count() or 2) - 1)
        self.places = self.free_places = self.threads + queue
        self.pool = ThreadPoolExecutor(self.threads, "bcrypt", initializer=lower_priority)

    def weakness_of(self, password: str) -> Weakness | None:
        """Why `password` may not be set: bcrypt would not read all of it, or, where common ones are refused,
        it is one of those."""
        if len(password.encode()) > MAX_BYTES:
            return Weakness.TOO_LONG
        return Weakness.COMMON if self.refuse_common and is_common(password) else None

    async def hash(self, password: str) -> str:
        began = monotonic()
        hashed = await self.run_in_pool(bcrypt.hashpw, password.encode(), bcrypt.gensalt(BCRYPT_COST))
        self.tell_seconds(monotonic() - began)
        return hashed.decode()

    async def verify(self, password: str, hashed: str | None) -> bool:
        """Whether `password` is the one behind `hashed`; takes the same time for None, an unknown account,
        and for a password that is too long to be anyone's."""
        secret = password.encode("utf-8", "surrogatepass")
        usable = hashed is not None and len(secret) <= MAX_BYTES
        stored = hashed.encode() if hashed is not None and usable else DUMMY_HASH
        began = monotonic()
        matches = await self.run_in_pool(bcrypt.checkpw, secret[:MAX_BYTES], stored)
        self.tell_seconds(monotonic() - began)
        return usable and matches

    async def run_in_pool(
        self, work: Callable[[bytes, bytes], Answer], first: bytes, second: bytes
    ) -> Answer:
        """What `work` returns. Raises TooBusyError."""
        if self.free_places <= 0:
            raise TooBusyError
        self.free_places -= 1
        future = self.pool.submit(work, first, second)
        loop = asyncio.get_running_loop()
        # The place is free when the thread is, which may be long after a client that disconnected.
        future.add_done_callback(lambda _: self.free_place_threadsafe(loop))
        return await asyncio.wrap_future(future)

    def free_place_threadsafe(self, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(RuntimeError):  # the loop is closed: the service has stopped meanwhile
            loop.call_soon_threadsafe(self.free_place)

    def free_place(self) -> None:
        self.free_places += 1

    def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)


@cache
def common_passwords() -> frozenset[str]:
    """The 30,000 most common ones of zxcvbn's list (ASVS 5.0, 6.2.4 asks for 3,000)."""
    return frozenset(import_module("zxcvbn.frequency_lists").FREQUENCY_LISTS["passwords"])


def is_common(password: str) -> bool:
    return password.lower() in common_passwords()


def lower_priority() -> None:
    if hasattr(os, "setpriority"):  # pragma: no branch  # Windows has none
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 5)
