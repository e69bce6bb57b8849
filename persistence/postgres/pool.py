"""A few connections to PostgreSQL, shared by all requests of a process.

asyncpg's own pool takes as much CPU as a query does: a proxy object and a task for every use. This one hands
out the connections themselves; what they do, time-outs and cancellation included, stays asyncpg's.
"""

import asyncio
from collections import deque
from contextlib import suppress
from math import inf
from time import monotonic

import asyncpg

from persistence.postgres.connector import Connector
from persistence.postgres.deadline import in_time, seconds_for
from persistence.postgres.failures import is_connection_lost, is_disk_full, is_read_only

MAX_WAIT_SECONDS = 10.0  # for a free connection
TRUSTED_SECONDS = 1.0  # a connection that was used so recently is taken to be alive
PING_SECONDS = 2.0  # for the answer of one that is asked whether it is
CLOSE_TIMEOUT_SECONDS = 5.0  # then a connection that is being closed is cut off


class Pool:
    """At most `size` connections, opened as they are needed, the one used last handed out first."""

    def __init__(self, connector: Connector, size: int) -> None:
        self.connector = connector
        self.size = size
        self.opened = 0  # those that are being opened, too
        self.idle: list[tuple[asyncpg.Connection, float]] = []  # a connection, and when it was last used
        self.waiting: deque[asyncio.Future[asyncpg.Connection | None]] = deque()
        self.leaving: set[asyncio.Task[None]] = set()
        self.full_at = -inf  # when PostgreSQL last had no room; forgotten once something works

    async def acquire(self, *, alive: bool = False) -> asyncpg.Connection:
        """A connection, to be given back. `alive`: for what must not be sent twice, one that was not used
        lately is asked whether it is alive. Raises PoolTimeoutError, and what Connector does."""
        while True:
            if self.idle:
                connection, used = self.idle.pop()
                usable = False
                try:
                    usable = await is_usable(connection, used, alive=alive)
                finally:  # also where the request was cancelled meanwhile
                    if not usable:
                        self.discard(connection)
                if usable:
                    return connection
            elif self.opened < self.size:
                return await self.open()
            else:
                connection = await self.wait()
                if connection is not None:
                    return connection

    async def open(self) -> asyncpg.Connection:
        self.opened += 1
        try:
            return await self.connector()
        except BaseException:
            self.make_room()
            raise

    async def wait(self) -> asyncpg.Connection | None:
        """A connection that somebody gives back; None where there is room for another one."""
        turn: asyncio.Future[asyncpg.Connection | None] = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        try:
            return await in_time(turn, MAX_WAIT_SECONDS)
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:  # handed over just then
                self.hand_on(turn.result())
            raise

    def release(self, connection: asyncpg.Connection, error: BaseException | None = None) -> None:
        """`error`: what ended its use. Only PostgreSQL's own leave a connection as it should be: after a
        time-out or a cancellation the statement may still run. asyncpg has then asked PostgreSQL to stop it,
        and the connection is closed behind that. Where PostgreSQL is gone or silent, what is idle goes too:
        otherwise each of those connections would cost a request its time."""
        is_lost = error is not None and self.is_of_no_use(error)
        self.full_at = monotonic() if error is not None and is_disk_full(error) else -inf
        is_sound = error is None or (isinstance(error, asyncpg.PostgresError) and not is_lost)
        while is_lost and self.idle:
            self.discard(self.idle.pop()[0])
        if is_sound and not connection.is_closed():
            self.hand_on(connection)
        else:
            self.discard(connection)

    def is_of_no_use(self, error: BaseException) -> bool:
        """Whether other connections to the same server will fail as well."""
        if len(self.connector.hosts) > 1 and is_read_only(error):  # another host can write by now
            return True
        return is_connection_lost(error) or isinstance(error, TimeoutError)

    def hand_on(self, connection: asyncpg.Connection | None) -> None:
        """Give the connection to the request that waits longest; if none waits, keep it. None: that
        request may open one."""
        while self.waiting:
            turn = self.waiting.popleft()
            if not turn.done():
                turn.set_result(connection)
                return
        if connection is not None:
            self.idle.append((connection, monotonic()))

    def discard(self, connection: asyncpg.Connection) -> None:
        if not connection.is_closed():
            ending = asyncio.ensure_future(close_quietly(connection))
            self.leaving.add(ending)
            ending.add_done_callback(self.leaving.discard)
        self.make_room()

    def make_room(self) -> None:
        self.opened -= 1
        self.hand_on(None)

    async def close(self) -> None:
        """Close the idle connections. Those in use are not closed."""
        while self.idle:
            self.discard(self.idle.pop()[0])
        if self.leaving:
            await asyncio.wait(self.leaving)


async def is_usable(connection: asyncpg.Connection, used: float, *, alive: bool) -> bool:
    if connection.is_closed():
        return False
    if not alive or monotonic() - used < TRUSTED_SECONDS:
        return True
    try:
        await connection.execute("SELECT", timeout=seconds_for(PING_SECONDS))
    except Exception as error:
        if is_connection_lost(error) or isinstance(error, TimeoutError):
            return False
        raise
    return True


async def close_quietly(connection: asyncpg.Connection) -> None:
    with suppress(Exception):
        await connection.close(timeout=CLOSE_TIMEOUT_SECONDS)
