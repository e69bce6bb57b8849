"""Reads on a replica, as long as it is near enough; the primary answers whatever it does not (decision 0046).

Positions are those of PostgreSQL's log (LSN), as numbers. The primary's is asked for every so often: what was
stored before it was asked for lies before it. A replica that has replayed a position shows all that was
stored before.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import text

from persistence.postgres import statements
from persistence.postgres.connector import Connector
from persistence.postgres.database import Reader
from persistence.postgres.pool import Pool
from persistence.postgres.statements import NOTHING, Nothing, Query, R, Record, Statement, T

MAX_LAG_SECONDS = 2.0  # behind the primary; a replica that is later is not asked
WATCH_SECONDS = 0.5  # between two looks at both, and for one look at the replica
READ_SECONDS = 3.0  # that a read on the replica may take; then the primary is asked


class PrimaryRow(NamedTuple):
    """`cluster`: the same number on a server and on its replicas."""

    position: int
    cluster: str


class ReplicaRow(NamedTuple):
    """`position`: None where the server is no replica, or not any more."""

    position: int | None
    cluster: str


CLUSTER_SQL = "(SELECT system_identifier FROM pg_control_system())::text AS cluster"
PRIMARY = Query(
    PrimaryRow,
    Nothing,
    text(rf"SELECT (pg_current_wal_insert_lsn() - '0/0'\:\:pg_lsn)::bigint AS position, {CLUSTER_SQL}"),
)
REPLICA = Query(
    ReplicaRow,
    Nothing,
    text(
        "SELECT CASE WHEN pg_is_in_recovery() "
        rf"THEN (pg_last_wal_replay_lsn() - '0/0'\:\:pg_lsn)::bigint END AS position, {CLUSTER_SQL}"
    ),
)


class Replica:
    """`answered`, `passed_on`: how many reads it answered, and how many the primary, since the start."""

    def __init__(self, url: str, primary: Reader, size: int = 10) -> None:
        connector = Connector(url, READ_SECONDS)
        self.pool = Pool(connector, size)
        self.watching = Reader(Pool(connector, 1))
        self.primary = primary
        self.max_lag = MAX_LAG_SECONDS
        # When the primary was asked for its position, and that.
        self.samples: deque[tuple[float, int]] = deque()
        self.is_near = False  # as far as the last look shows
        self.replayed: WeakKeyDictionary[Any, int] = WeakKeyDictionary()  # position by connection
        self.asking: asyncio.Task[ReplicaRow | None] | None = None  # the replica for its position
        self.answered = 0
        self.passed_on = 0

    async def sample(self) -> PrimaryRow:
        """Where the primary is. Raises what asking it raises."""
        asked_at = monotonic()
        row = await self.primary.first(PRIMARY, NOTHING)
        if row is None:  # pragma: no cover  # the statement always has a row
            raise LookupError
        self.samples.append((asked_at, row.position))
        while self.samples[0][0] < asked_at - self.max_lag:
            self.samples.popleft()
        return row

    def nearest(self, since: float) -> int | None:
        """What a replica must have replayed that is max_lag late at most and knows all that was
        stored before `since`, of the monotonic clock; None: that is not known."""
        earliest = max(since, monotonic() - self.max_lag)
        return next((position for asked_at, position in self.samples if asked_at >= earliest), None)

    async def look(self) -> tuple[int, str]:
        """Ask both servers where they are: the primary's position, and why the replica is not used, or ""."""
        try:
            primary = await self.sample()
        except BaseException:
            self.is_near = False
            raise
        trouble = await self.find_trouble(primary)
        self.is_near = not trouble
        return primary.position, trouble

    async def find_trouble(self, primary: PrimaryRow) -> str:
        try:
            async with asyncio.timeout(WATCH_SECONDS):
                found = await self.watching.first(REPLICA, NOTHING)
        except Exception as error:
            return f"it does not answer ({type(error).__name__})"
        if found is None or found.position is None:
            return "it is not a replica"
        if found.cluster != primary.cluster:
            return "it is a replica of another database"
        if found.position > primary.position and found.position > (await self.sample()).position:
            return "it has replayed what the primary does not have"
        asked_at, position = self.samples[0]
        is_late = found.position < position and asked_at < monotonic() - self.max_lag / 2
        return "it is late" if is_late else ""

    async def wait_until_replayed(self) -> None:
        """All that is stored by now; for max_lag at most, after which no instance asks a replica that
        has not. Where this one cannot reach the replica, another may, and it is waited for so long."""
        began_at = monotonic()
        try:
            async with asyncio.timeout(self.max_lag):
                position = (await self.sample()).position
                while not await self.has_reached(position):  # noqa: ASYNC110  # another server's state
                    await asyncio.sleep(0.01)
        except Exception:  # whatever it is, the time has to pass
            await asyncio.sleep(max(0.0, began_at + self.max_lag - monotonic()))

    async def has_reached(self, position: int) -> bool:
        if self.asking is None or self.asking.done():  # all who wait at once ask it once
            self.asking = asyncio.create_task(self.watching.first(REPLICA, NOTHING))
        found = await asyncio.shield(self.asking)
        return found is not None and found.position is not None and found.position >= position

    async def records(self, statement: Statement[T], parameters: T, position: int) -> Sequence[Record] | None:
        """What the replica answers once it has replayed `position`; None where it has not, or does not
        answer."""
        found = None
        if self.is_near and (self.pool.idle or self.pool.opened < self.pool.size):
            try:
                async with asyncio.timeout(READ_SECONDS):
                    found = await self.ask(statement, parameters, position)
            except Exception:  # whatever it is, the primary decides; and the next look shows how near it is
                found = None
        if found is None:
            self.passed_on += 1
        else:
            self.answered += 1
        return found

    async def ask(self, statement: Statement[T], parameters: T, position: int) -> Sequence[Record] | None:
        connection = await self.pool.acquire()
        try:
            if await self.has_replayed(connection, position):
                found = await statements.fetch(connection, statement, parameters)
            else:
                found = None
        except BaseException as error:
            self.pool.release(connection, error)
            raise
        self.pool.release(connection)
        return found

    async def has_replayed(self, connection: Any, position: int) -> bool:
        """Of the server of this very connection, which is asked only where it was not so far when it was last
        asked."""
        if self.replayed.get(connection, -1) < position:
            records = await statements.fetch(connection, REPLICA, NOTHING)
            self.replayed[connection] = REPLICA.rows(records)[0].position or -1
        return self.replayed[connection] >= position

    async def close(self) -> None:
        await self.pool.close()
        await self.watching.pool.close()


class NearReader(Reader):
    """Reads of one request: on the replica where it has replayed `position`, on the primary otherwise. What
    the replica does not find, the primary is asked for."""

    def __init__(self, replica: Replica, position: int) -> None:
        super().__init__(replica.primary.pool)
        self.replica = replica
        self.position = position

    async def records(self, statement: Statement[T], parameters: T) -> Sequence[Record]:
        found = await self.replica.records(statement, parameters, self.position)
        return await super().records(statement, parameters) if found is None else found

    async def first(self, query: Query[T, R], parameters: T) -> R | None:
        found = await super().first(query, parameters)
        return await self.replica.primary.first(query, parameters) if found is None else found
