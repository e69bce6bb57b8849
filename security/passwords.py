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
from typing import Any

import bcrypt

COST = 12  # requirement, "Password Requirements"
MIN_CHARACTERS = 6  # requirement, "Password Requirements"
MAX_BYTES = 72  # bcrypt reads no more, and we never cut
# The hash of a password that nobody has: what an unknown e-mail is checked against, for the same time.
NOBODY = b"$2b$12$v9buu53WFFOnvq0So9jdS.dybOxOoSt5VHZLJkox983H6Zcrwtb6O"


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
    requests, and `queue` more may wait; beyond that callers are told to come back, at no cost."""

    def __init__(self, threads: int | None = None, queue: int = 64, *, refuse_common: bool = False) -> None:
        self.refuse_common = refuse_common
        self.threads = threads or max(1, (os.cpu_count() or 2) - 1)
        self.places = self.threads + queue
        self.pool = ThreadPoolExecutor(self.threads, "bcrypt", initializer=lower_priority)

    def weakness_of(self, password: str) -> Weakness | None:
        """Why `password` may not be set: bcrypt would not read all of it, or, where common ones are refused,
        it is one of those."""
        if len(password.encode()) > MAX_BYTES:
            return Weakness.TOO_LONG
        return Weakness.COMMON if self.refuse_common and is_common(password) else None

    async def hash(self, password: str) -> str:
        hashed = await self.run(bcrypt.hashpw, password.encode(), bcrypt.gensalt(COST))
        return str(hashed.decode())

    async def verify(self, password: str, hashed: str | None) -> bool:
        """Whether `password` is the one behind `hashed`; takes the same time for None, an unknown account,
        and for a password that is too long to be anyone's."""
        secret = password.encode("utf-8", "surrogatepass")
        usable = hashed is not None and len(secret) <= MAX_BYTES
        stored = hashed.encode() if hashed is not None and usable else NOBODY
        matches = await self.run(bcrypt.checkpw, secret[:MAX_BYTES], stored)
        return usable and bool(matches)

    async def run(self, work: Callable[..., Any], *args: bytes) -> Any:
        if self.places <= 0:
            raise TooBusyError
        self.places -= 1
        future = self.pool.submit(work, *args)
        loop = asyncio.get_running_loop()
        # The place is free again when the thread is, not when a caller who hung up stops waiting.
        future.add_done_callback(lambda _: self.leave_from_thread(loop))
        return await asyncio.wrap_future(future)

    def leave_from_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(RuntimeError):  # the loop is closed: the service has stopped meanwhile
            loop.call_soon_threadsafe(self.leave)

    def leave(self) -> None:
        self.places += 1

    def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)


@cache
def common_passwords() -> frozenset[str]:
    """The 30,000 most common ones of zxcvbn's list (ASVS 5.0, 6.2.4 asks for 3,000)."""
    return frozenset(import_module("zxcvbn.frequency_lists").FREQUENCY_LISTS["passwords"])


def is_common(password: str) -> bool:
    return password.lower() in common_passwords()


def lower_priority() -> None:
    if hasattr(os, "setpriority"):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 5)
