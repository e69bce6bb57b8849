"""What a replica must have replayed before it answers a caller: their own last write, and the last change of
a link or a role. Redis tells it within the round trip of admission; `fences:id` there tells whether Redis has
forgotten. Positions in PostgreSQL's log (LSN) are plain numbers here (decision 0046).

A write is noted before it begins, and from then on its caller reads on the primary. Some time after its
answer has left, the note is replaced by a position that the primary had reached by then.
"""

import asyncio
from collections.abc import Iterable
from itertools import count
from time import monotonic
from typing import Protocol
from uuid import uuid4

from security.availability import UNAVAILABLE, BusyError
from security.pipeline import Argument, Reply
from security.scripts import SETTLE_WRITE, Script

LEASE_SECONDS = 60  # for which the note of a write holds whose process was killed
LATE_SECONDS = 50  # after which a write may outlive its note
KEPT_SECONDS = 120  # a position; by then no replica is asked that has not replayed it
ACCESS = "fence:access"  # of the changes of links and roles
WRITING = b"writing"  # in the place of a position


class Store(Protocol):
    """What is asked of security/counters.py."""

    @property
    def connection(self) -> object: ...

    async def run_script(self, script: Script, keys: list[str], *args: Argument) -> Reply: ...


class Passage:
    """A request on its way, and what Redis has told it. `note`: the name of its note, "" for a read."""

    def __init__(self, fences: "Fences", user: str, note: str, changes_access: bool) -> None:
        self.fences = fences
        self.keys = [f"fence:{user}", ACCESS]
        self.note = note
        self.notes = [note, note if changes_access else ""]
        self.began_at = monotonic()
        self.redis: tuple[bytes, object] | None = None  # which one answered: its id, and the connection
        self.position: int | None = None

    @property
    def arguments(self) -> list[Argument]:
        """What the scripts take of it."""
        return [self.fences.new_name(), LEASE_SECONDS * 1000, *self.notes]

    def arrive(self, redis_id: bytes, *positions: bytes) -> None:
        """Redis has answered."""
        self.redis = self.fences.meet(redis_id)
        self.position = None if WRITING in positions else max(map(int, positions))

    @property
    def is_noted(self) -> bool:
        """Whether every instance knows of this write until it is settled."""
        in_time = monotonic() - self.began_at < LATE_SECONDS
        return in_time and self.redis is not None and self.redis == self.fences.redis


class Fences:
    """One for each process."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.id = uuid4().hex
        self.numbers = count()
        self.redis: tuple[bytes, object] | None = None  # the one that answered last
        self.met_at = 0.0  # when that was first; what was written before it may have forgotten
        self.ended: list[Passage] = []  # writes to be settled
        self.has_ended = asyncio.Event()

    def passage(self, user: str, *, writes: bool, changes_access: bool) -> Passage:
        note = self.new_name() if writes else ""
        return Passage(self, user, note, changes_access)

    def new_name(self) -> str:
        """That nothing had before: of a note, or for a Redis that has none, because it is new or has
        forgotten."""
        return f"{self.id}:{next(self.numbers)}"

    def meet(self, redis_id: bytes) -> tuple[bytes, object]:
        met = (redis_id, self.store.connection)
        if met != self.redis:
            self.redis, self.met_at = met, monotonic()
        return met

    def end(self, passage: Passage) -> None:
        """The write is over, whatever came of it."""
        if passage.redis is not None:
            self.ended.append(passage)
            self.has_ended.set()

    async def wait_for_writes(self, seconds: float) -> None:
        """Until a write has ended, but not for longer."""
        try:
            async with asyncio.timeout(seconds):
                await self.has_ended.wait()
        except TimeoutError:
            return

    def take_ended(self) -> list[Passage]:
        ended, self.ended = self.ended, []
        self.has_ended.clear()
        return ended

    async def settle(self, ended: Iterable[Passage], position: int) -> None:
        """Replace their notes by a position that the primary had reached after they had ended."""
        await asyncio.gather(*(self.settle_one(passage, position) for passage in ended))

    async def settle_one(self, passage: Passage, position: int) -> None:
        keys = [key for key, note in zip(passage.keys, passage.notes, strict=True) if note]
        try:
            await self.store.run_script(SETTLE_WRITE, keys, passage.note, position, KEPT_SECONDS * 1000)
        except (*UNAVAILABLE, BusyError):  # once more with the next, and a later position
            if monotonic() - passage.began_at < LEASE_SECONDS:
                self.ended.append(passage)
