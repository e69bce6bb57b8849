"""The two ways to PostgreSQL: a read connection and a write transaction."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, Self

from persistence.postgres import statements
from persistence.postgres.connector import Connector
from persistence.postgres.deadline import seconds_left
from persistence.postgres.failures import is_connection_lost
from persistence.postgres.hooks import AnyEvent, AnyKept, AnyQuery, CommitHook
from persistence.postgres.locks import taking_of
from persistence.postgres.pool import Pool
from persistence.postgres.statements import Query, R, Record, Statement, T, Values

COMMAND_TIMEOUT_SECONDS = 30  # for a statement that no request waits for, which has a deadline
FULL_SECONDS = 60.0  # for which PostgreSQL counts as full after its last word of that
JOURNAL_CONNECTIONS = 2  # used for events of the audit trail only
# As connector.SESSION_SETTINGS, for a pooler's connections, too.
BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"


class Source(ABC):
    """Where a statement is run."""

    @abstractmethod
    async def records(self, statement: Statement[T], parameters: T) -> Sequence[Record]:
        """What PostgreSQL answers."""

    async def rows(self, query: Query[T, R], parameters: T) -> list[R]:
        return query.rows(await self.records(query, parameters))

    async def first(self, query: Query[T, R], parameters: T) -> R | None:
        """The one row, or the first; None where there is none."""
        return next(iter(await self.rows(query, parameters)), None)

    async def run(self, statement: Statement[T], parameters: T) -> None:
        await self.records(statement, parameters)


class Reader(Source):
    """Reads, each statement on a connection of its own, and in a transaction of its own."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    async def records(self, statement: Statement[T], parameters: T) -> Sequence[Record]:
        """Ask once more where the connection had died in the pool, as after a restart of the server."""
        try:
            return await self.once(statement, parameters)
        except Exception as error:
            if not is_connection_lost(error):
                raise
            return await self.once(statement, parameters, alive=True)

    async def once(self, statement: Statement[T], parameters: T, *, alive: bool = False) -> Sequence[Record]:
        """`alive` as in Pool.acquire, for what must not be asked twice."""
        connection = await self.pool.acquire(alive=alive)
        try:
            found = await statements.fetch(connection, statement, parameters)
        except BaseException as error:
            self.pool.release(connection, error)
            raise
        self.pool.release(connection)
        return found


class Transaction(Source):
    """The one transaction of a request. It begins at the first statement, so that a slow password hash
    before it, or a request refused before it, holds no connection."""

    def __init__(self, pool: Pool, hook: CommitHook | None = None) -> None:
        self.pool = pool
        self.hook = hook
        self.joined: CommitHook | None = None  # the hook, once it went with a statement
        self.connection: Any = None  # one of asyncpg's, from the first statement to the last
        self.failure: BaseException | None = None  # of what was sent last
        self.is_committed = False
        # Whether `conclude` leaves the COMMIT to the end of the request: a handler may refuse until then.
        self.commits_late = False
        self.committed: list[Callable[[], Awaitable[None]]] = []
        self.undone: list[Callable[[], Awaitable[None]]] = []

    @property
    def has_begun(self) -> bool:
        return self.connection is not None

    def note(self, event: AnyEvent) -> None:
        """Have a row of the audit trail stored with what is written: both or neither."""
        if self.hook is None:
            raise RuntimeError("nothing can be noted in this transaction")
        self.hook.note(event)

    def keep(self, kept: AnyKept) -> None:
        """Have rows stored that the event vouches for which is noted in this transaction (contents.py)."""
        if self.hook is None:
            raise RuntimeError("nothing can be kept in this transaction")
        self.hook.keep(kept)

    def skip_session_check(self) -> None:
        """The caller's session was checked in this transaction already: it is not checked at the end."""
        if self.hook is not None:
            self.hook.skip_session_check()

    async def records(self, statement: Statement[T], parameters: T) -> Sequence[Record]:
        if self.connection is None:
            await self.begin()
        return await self.ask(statement, parameters)

    async def conclude(self, query: Query[T, R], parameters: T) -> list[R]:
        """Run the last statement with what the hook adds, and commit. If it is the first statement as well,
        all of that is one message to PostgreSQL. Nothing can be run afterwards. The hook adds nothing if the
        statement writes nothing by its own conditions (`only_if`)."""
        keys = tuple(parameters)
        values: Values = parameters
        joined = self.hook.join(query) if self.hook else None
        if joined is not None:
            self.joined, self.hook = self.hook, None
            query, hook_values = joined
            values = {**parameters, **hook_values}
        is_whole = self.connection is None and self.hook is None and not self.is_committed
        if is_whole and self.pool.connector.is_pooled is False:
            return query.rows(await self.store_at_once(query, values, keys))
        if self.connection is None:
            await self.begin()
        found = await self.ask(query, values, keys)
        if not self.commits_late:
            await self.commit()
        return query.rows(found)

    def reopen(self) -> None:
        """Go on after `conclude` of a statement that has written nothing by its own conditions, and forget
        what was noted with it."""
        self.hook, self.joined = self.joined or self.hook, None
        self.is_committed = False
        if self.hook is not None:
            self.hook.forget()

    async def store_at_once(
        self, statement: AnyQuery, values: Values, keys: tuple[str, ...]
    ) -> Sequence[Record]:
        """PostgreSQL's own transaction around a single statement, which must not be sent twice."""
        self.connection = await self.pool.acquire(alive=True)
        try:
            found = await self.ask(statement, values, keys)
        finally:
            self.release()
        self.is_committed = True
        return found

    async def commit(self) -> None:
        own = self.hook.own_statement(is_first=not self.has_begun) if self.hook else None
        self.hook = None
        if own is not None:
            await self.run(*own)
        if self.connection is not None:
            if await self.send("COMMIT") != "COMMIT":  # what it says where a statement before has failed
                raise RuntimeError("a statement of the transaction has failed")
            self.release()
        self.is_committed = True

    async def close(self) -> None:
        """Roll back what is not committed, and give the connection back."""
        if self.connection is None:
            return
        try:
            if not self.connection.is_closed() and not is_unfinished(self.failure):
                await self.send("ROLLBACK")
        finally:
            self.release()

    async def lock(self, *keys: int) -> None:
        """Wait for PostgreSQL's advisory locks on these keys, one after the other, and hold them until the
        end. Later statements see what the earlier holders of the locks have stored."""
        taking = f"SELECT {', '.join(map(taking_of, keys))}"  # from left to right
        if self.connection is None:
            await self.begin(taking)
        else:
            await self.send(taking)

    async def set_savepoint(self) -> None:
        """Something has been run before it."""
        await self.send("SAVEPOINT before_locks")

    async def return_to_savepoint(self) -> None:
        """Undo what was run since, and give back what was locked."""
        await self.send("ROLLBACK TO SAVEPOINT before_locks")

    async def begin(self, *then: str) -> None:
        """Once more where the connection had died in the pool: nothing is done yet. `then`: what waits for
        others, and goes with it."""
        if self.is_committed:
            raise RuntimeError("the transaction is over")
        try:
            await self.open("; ".join((BEGIN, *then)))
        except Exception as error:
            if not is_connection_lost(error):
                raise
            await self.open("; ".join((BEGIN, *then)), alive=True)

    async def open(self, command: str, *, alive: bool = False) -> None:
        self.connection = await self.pool.acquire(alive=alive)
        try:
            await self.send(command)
        except BaseException:
            await self.close()  # the transaction may have begun before its first statement failed
            raise

    async def ask(
        self, statement: AnyQuery, values: Values, keys: tuple[str, ...] | None = None
    ) -> Sequence[Record]:
        try:
            return await statements.fetch(self.connection, statement, values, keys)
        except BaseException as error:
            self.failure = error
            raise

    async def send(self, command: str) -> str:
        try:
            return str(await self.connection.execute(command, timeout=seconds_left()))
        except BaseException as error:
            self.failure = error
            raise

    def release(self) -> None:
        connection, self.connection = self.connection, None
        self.pool.release(connection, self.failure)
        self.failure = None

    def after_commit(self, act: Callable[[], Awaitable[None]]) -> None:
        """Do `act` once the transaction is stored, before the answer leaves."""
        self.committed.append(act)

    def unless_committed(self, act: Callable[[], Awaitable[None]]) -> None:
        """Do `act` if the transaction ends in any other way: an error of the handler's or of the COMMIT, or
        a cancelled request. It must not raise."""
        self.undone.append(act)


def is_unfinished(failure: BaseException | None) -> bool:
    """Whether a statement may still run, as after a time-out or a cancellation: nothing is sent behind it."""
    return failure is not None and (isinstance(failure, TimeoutError) or not isinstance(failure, Exception))


class Database:
    """The pools. Reads keep theirs to themselves: a write that waits for a lock cannot starve them.
    `command_timeout` as in Connector."""

    def __init__(
        self,
        url: str,
        *,
        readers: int = 10,
        writers: int = 10,
        command_timeout: float | None = COMMAND_TIMEOUT_SECONDS,
    ) -> None:
        self.connector = Connector(url, command_timeout)
        self.connections = readers + writers + JOURNAL_CONNECTIONS  # at most
        self.reads = Pool(self.connector, readers)
        self.writes = Pool(self.connector, writers)
        self.journal = Pool(self.connector, JOURNAL_CONNECTIONS)
        self.reader = Reader(self.reads)

    @property
    def is_full(self) -> bool:
        """Whether the last that was to be stored found no room."""
        return monotonic() - max(self.writes.full_at, self.journal.full_at) < FULL_SECONDS

    @asynccontextmanager
    async def transaction(self, hook: CommitHook | None = None) -> AsyncIterator[Transaction]:
        """Commit at the end, with what `hook` brings; roll back on any error; then run what waits for the
        one or the other."""
        transaction = Transaction(self.writes, hook)
        try:
            yield transaction
            await transaction.commit()
        finally:
            try:
                await transaction.close()
            finally:
                for act in transaction.committed if transaction.is_committed else transaction.undone:
                    await act()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        for pool in (self.reads, self.writes, self.journal):
            await pool.close()
