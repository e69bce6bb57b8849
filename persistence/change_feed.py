"""What changed, told to all who wait for it in this process. One poll a second asks the database for all of
them; what it finds is kept for a while, and given to each by what they may know. So whoever waits costs no
connection, and no statement of their own.

The same poll asks who of them is signed in still, and in which role: nobody waits on who is not.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import chain, takewhile
from time import monotonic
from typing import NamedTuple, TypedDict
from uuid import UUID

from sqlalchemy import Uuid, bindparam, func, select
from sqlalchemy.dialects.postgresql import ARRAY

from persistence import changes
from persistence.changes import BITS, KNOWN, Change, Found, is_link, is_own
from persistence.cursors import Cursor
from persistence.models import AccountStatus, Patient, Session, User
from persistence.postgres.background import repeat
from persistence.postgres.database import Reader
from persistence.postgres.deadline import REQUEST_SECONDS, seconds_for
from persistence.postgres.declared import columns_of
from persistence.postgres.replica import Replica
from persistence.postgres.statements import Query
from persistence.sessions import living
from persistence.snapshots import Position, Snapshot, in_order
from security.roles import Caller, Role

POLL_SECONDS = 1.0
WATCH_SECONDS = 0.5  # between two looks whether it is over for somebody
UNCHECKED_SECONDS = 4.0  # for which somebody waits on of whom nothing was heard
MAX_KEPT = 5_000  # changes; who lacks older ones reads the table
log = logging.getLogger("medisecure.changes")


class SignedInRow(NamedTuple):
    """`chart`: the one that is linked to the account."""

    session_id: UUID
    id: UUID
    email: str
    role: Role
    chart: UUID | None


class BySessions(TypedDict):
    sessions: list[UUID]


def signed_in(idle: timedelta | None) -> Query[BySessions, SignedInRow]:
    these = Session.id == func.any(bindparam("sessions", type_=ARRAY(Uuid)))
    chart = select(Patient.id).where(Patient.user_id == User.id).scalar_subquery()
    found = (
        select(*columns_of(SignedInRow, User, session_id=Session.id, chart=chart))
        .join(Session, Session.user_id == User.id)
        .where(these, User.status == AccountStatus.ACTIVE, *living(idle))
    )
    return Query(SignedInRow, BySessions, found)


class Batch:
    """What one poll has found, by who may know of it."""

    def __init__(self, found: Sequence[Change], after: Snapshot) -> None:
        """`after`: what that poll saw."""
        self.after = after
        found = [one for one in found if one.noun in KNOWN]
        self.size = len(found)
        self.by_role = {role: [one for one in found if one.roles & bit] for role, bit in BITS.items()}
        self.by_owner: dict[UUID, list[Change]] = {}
        for change in found:
            for owner in {*change.accounts, *change.charts, *change.doctors}:
                self.by_owner.setdefault(owner, []).append(change)

    def of(self, caller: Caller, chart: UUID | None) -> Sequence[Change]:
        by_role, own = self.by_role[caller.role], self.by_owner.get(caller.id, ())
        of_chart = () if chart is None else self.by_owner.get(chart, ())
        if not own and not of_chart:
            return by_role
        owned = [one for one in chain(own, of_chart) if is_own(one, caller, chart)]
        return [*{one.place: one for one in chain(by_role, owned)}.values()]


class Listener:
    """Somebody who waits. `is_over`: whether they may not wait on for reasons of their own."""

    def __init__(self, caller: Caller, is_over: Callable[[], bool]) -> None:
        self.caller = caller
        self.is_over = is_over
        self.chart: UUID | None = None
        self.is_chart_known = False
        self.checked_at = monotonic()
        self.is_signed_in = True
        self.has_ended = False
        self.woken = asyncio.Event()

    @property
    def may_have_chart(self) -> bool:
        """Of which nothing is known here; the table's statement looks it up."""
        return self.caller.role is Role.PATIENT and not self.is_chart_known

    def end(self) -> None:
        self.has_ended = True
        self.woken.set()

    def check(self, row: SignedInRow | None, at: float) -> None:
        """End unless they are who they were. `at`: when the database was asked."""
        caller = self.caller
        if row is None or (row.id, row.email, row.role) != (caller.id, caller.email, caller.role):
            self.is_signed_in = False
            self.end()
        else:
            self.chart, self.is_chart_known, self.checked_at = row.chart, True, at

    async def wait(self, seconds: float) -> bool:
        """Until there may be something to tell, or it is over; False if there was nothing for so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.woken.wait()
        return self.woken.is_set()


class ChangeFeed:
    """`latest`: what the last poll saw, None where nobody has waited since; `start`: from where on everything
    is in `batches`; `database`: its name."""

    def __init__(self, reader: Reader, idle: timedelta | None, replica: Replica | None = None) -> None:
        """`reader`: of the primary. `idle` as in Sessions. `replica`: what whoever is told of a change
        may read it on."""
        self.reader = reader
        self.replica = replica
        self.signed_in = signed_in(idle)
        self.listeners: set[Listener] = set()
        self.wanted = asyncio.Event()
        self.polled = asyncio.Event()
        self.next_poll = asyncio.Event()  # another one after each
        self.latest: Snapshot | None = None
        self.start = Snapshot(0, ())
        self.database = ""
        self.batches: deque[Batch] = deque()

    @contextmanager
    def listening(self, caller: Caller, is_over: Callable[[], bool]) -> Iterator[Listener]:
        """Call `news` in it, again and again."""
        listener = Listener(caller, is_over)
        self.listeners.add(listener)
        self.wanted.set()
        try:
            yield listener
        finally:
            self.listeners.discard(listener)

    async def cursor_of_now(self) -> Cursor:
        """Reads that follow show whatever it is behind."""
        cursor = await changes.cursor_of_now(self.reader)
        await self.settle()
        return cursor

    async def read(self, caller: Caller, cursor: Cursor, limit: int) -> Found:
        """What is new to them since the cursor, from the table. Raises StaleCursorError."""
        found = await changes.read(self.reader, caller, cursor, limit)
        if found.changes:
            await self.settle()
        return found

    async def settle(self) -> None:
        """Wait until the replica shows what was found: whoever is told of it reads it at once, and is told
        once."""
        if self.replica is not None:
            await self.replica.wait_until_replayed()

    async def begin(self) -> None:
        """Wait for the first poll: what is read behind it misses nothing that later ones find. Raises
        TimeoutError."""
        async with asyncio.timeout(seconds_for(REQUEST_SECONDS)):
            await self.polled.wait()

    async def catch_up(self, cursor: Cursor) -> None:
        """Wait for a poll that knows the cursor, if one may yet come. Raises TimeoutError."""
        await self.begin()
        if self.is_behind(cursor):
            async with asyncio.timeout(seconds_for(REQUEST_SECONDS)):
                await self.next_poll.wait()

    async def news(self, listener: Listener, cursor: Cursor, limit: int) -> Found:
        """What is new to them since the cursor; from the table where it is not kept here. Whatever changes
        later, wakes them. Raises StaleCursorError and TimeoutError."""
        listener.woken.clear()
        await self.begin()
        kept = None if listener.may_have_chart else self.kept_news(listener, cursor, limit)
        return kept or await self.read(listener.caller, cursor, limit)

    def is_behind(self, cursor: Cursor) -> bool:
        """Whether another process has written it, or the table was read for it, since the last poll; or
        nobody has, who knew this database as it is."""
        latest = self.latest
        if latest is None or cursor.database != self.database:
            return False
        return not latest.sees_all_of(cursor.position.whole())

    def kept_news(self, listener: Listener, cursor: Cursor, limit: int) -> Found | None:
        """None where not everything is kept that is new since, or the caller may have got a chart since; and
        for a cursor that is ahead of the last poll, perhaps of what there is."""
        latest, position = self.latest, cursor.position
        if latest is None or cursor.database != self.database or not position.covers(self.start):
            return None
        if self.is_behind(cursor):
            return None
        new = takewhile(lambda batch: not position.covers(batch.after), reversed(self.batches))
        found = {
            change.place: change
            for batch in new
            for change in batch.of(listener.caller, listener.chart)
            if not position.has_told(change.place)
        }
        if any(is_link(change, listener.caller) for change in found.values()):
            return None
        told = [found[place] for place in in_order(found, position)]
        if len(told) <= limit:
            return Found(told, latest, Position(latest), is_all=True)
        return Found(told[:limit], latest, position.after(told[limit - 1].place, latest), is_all=False)

    async def poll_always(self) -> None:
        """For as long as the service runs, but not while nobody waits."""
        await repeat(self.poll, POLL_SECONDS, log, "Nobody can be told what changes: %s")

    async def poll(self) -> tuple[bool, str]:
        if not self.listeners:
            self.forget()
            await self.wanted.wait()
        asked_at = monotonic()
        database, seen, found = await changes.of_everybody(self.reader, self.latest, MAX_KEPT + 1)
        # Afterwards, so that whoever has got a chart meanwhile is told what is in it.
        sessions = BySessions(sessions=[one.caller.session_id for one in self.listeners])
        people = {row.session_id: row for row in await self.reader.rows(self.signed_in, sessions)}
        for listener in self.listeners:
            if listener.checked_at < asked_at:
                listener.check(people.get(listener.caller.session_id), asked_at)
        if found:
            await self.settle()
        self.keep(database, seen, found)
        self.polled.set()
        self.next_poll.set()
        self.next_poll = asyncio.Event()
        return False, ""

    def forget(self) -> None:
        self.latest = None
        self.batches.clear()
        self.wanted.clear()
        self.polled.clear()

    def keep(self, database: str, seen: Snapshot, found: list[Change]) -> None:
        """Keep what was found, and wake whoever may know of it."""
        is_other = self.latest is not None and database != self.database
        if self.latest is None or is_other or len(found) > MAX_KEPT:
            self.batches.clear()
            self.database, self.start, self.latest = database, seen, seen
            for listener in self.listeners:
                listener.woken.set()  # to read the table, or to hear that theirs is another one
            return
        self.latest = seen
        if not found:
            return
        batch = Batch(found, seen)
        self.batches.append(batch)
        while sum(one.size for one in self.batches) > MAX_KEPT:
            self.start = self.batches.popleft().after
        for listener in self.listeners:
            if listener.may_have_chart or batch.of(listener.caller, listener.chart):
                listener.woken.set()

    async def watch_always(self) -> None:
        """End whoever may not wait on, whatever PostgreSQL does."""
        while True:
            unchecked = monotonic() - UNCHECKED_SECONDS
            for listener in self.listeners:
                if listener.is_over() or listener.checked_at < unchecked:
                    listener.end()
            await asyncio.sleep(WATCH_SECONDS)
