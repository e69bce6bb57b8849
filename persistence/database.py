"""The two ways to PostgreSQL: a read connection and a write transaction."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Executable, Row, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from persistence.connecting import Connector

COMMAND_TIMEOUT = 30  # seconds for a statement of a request
JOURNALS = 2  # connections that nothing but the audit trail's rows use


def create_engine(url: str, *, command_timeout: float | None, **options: Any) -> AsyncEngine:
    """An engine for a plain `postgresql://` URL. asyncpg reads the URL itself, so that everything libpq
    takes (sslmode, a socket folder as host, several hosts) means what it means to psql.

    `command_timeout`: seconds that one statement may take, or None for work that may take as long as it
    needs; TimeoutError after that.
    """
    return engine_of(Connector(url, command_timeout), **options)


def engine_of(connector: Connector, **options: Any) -> AsyncEngine:
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connector,
        hide_parameters=True,  # an error must not carry medical text into a log
        **options,
    )
    event.listen(engine.sync_engine, "connect", connector.adapt, insert=True)
    return engine


AnyRow = Row[*tuple[Any, ...]]


class Reader:
    """Reads, each statement on an autocommit connection of its own: no BEGIN, no ROLLBACK, no reset."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    async def rows(self, statement: Executable, **parameters: Any) -> Sequence[AnyRow]:
        """Ask once more where the connection had died in the pool, as after a restart of the server."""
        try:
            return await self.once(statement, parameters)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            return await self.once(statement, parameters)

    async def once(self, statement: Executable, parameters: dict[str, Any]) -> Sequence[AnyRow]:
        async with self.engine.connect() as connection:
            return (await connection.execute(statement, parameters)).all()


class Transaction:
    """The one transaction of a request. It begins at the first statement, so that a slow password hash
    before it, or a request refused before it, holds no connection."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.connection: AsyncConnection | None = None
        self.committed: list[Callable[[], Awaitable[None]]] = []
        self.undone: list[Callable[[], Awaitable[None]]] = []

    @property
    def has_begun(self) -> bool:
        return self.connection is not None

    async def rows(self, statement: Executable, **parameters: Any) -> Sequence[AnyRow]:
        rows: Sequence[AnyRow] = (await self.run(statement, **parameters)).all()
        return rows

    async def run(self, statement: Executable, **parameters: Any) -> Any:
        if self.connection is not None:
            return await self.connection.execute(statement, parameters)
        try:
            return await self.begin(statement, parameters)
        except DBAPIError as error:  # nothing is done yet: as with a read, ask once more
            if not error.connection_invalidated:
                raise
            await self.close()
            return await self.begin(statement, parameters)

    async def begin(self, statement: Executable, parameters: dict[str, Any]) -> Any:
        self.connection = await self.engine.connect()
        return await self.connection.execute(statement, parameters)

    async def close(self) -> None:
        """Roll back what is not committed, and give the connection back."""
        if self.connection is not None:
            await self.connection.close()
            self.connection = None

    def after_commit(self, act: Callable[[], Awaitable[None]]) -> None:
        """Do `act` once the transaction is stored, before the answer leaves."""
        self.committed.append(act)

    def unless_committed(self, act: Callable[[], Awaitable[None]]) -> None:
        """Do `act` if the transaction ends in any other way: an error of the handler's or of the COMMIT, or
        nobody who waits any more. It must not raise."""
        self.undone.append(act)


Source = Reader | Transaction


class Database:
    """The pools. Reads keep theirs to themselves: a write that waits for a lock cannot starve them.
    `command_timeout` as in create_engine."""

    def __init__(
        self,
        url: str,
        *,
        readers: int = 10,
        writers: int = 10,
        command_timeout: float | None = COMMAND_TIMEOUT,
    ) -> None:
        self.connector = Connector(url, command_timeout)
        self.connections = readers + writers + JOURNALS  # at most
        pool: dict[str, Any] = {"max_overflow": 0, "pool_timeout": 10}
        autocommit = {"isolation_level": "AUTOCOMMIT", "pool_reset_on_return": None, **pool}
        self.reads = engine_of(self.connector, pool_size=readers, **autocommit)
        # Whatever the server's default: a rule that is judged once its locks are held must see what was
        # stored while it waited for them.
        self.writes = engine_of(self.connector, pool_size=writers, isolation_level="READ COMMITTED", **pool)
        # Nothing may be asked twice there (see Journal), so a dead connection is found out beforehand.
        self.journal = engine_of(self.connector, pool_size=JOURNALS, pool_pre_ping=True, **autocommit)
        self.reader = Reader(self.reads)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Commit at the end, roll back on any error, then run what waits for the one or the other."""
        transaction = Transaction(self.writes)
        waiting = transaction.undone
        try:
            yield transaction
            if transaction.connection is not None:
                await transaction.connection.commit()
            waiting = transaction.committed
        finally:
            try:
                await transaction.close()
            finally:
                for act in waiting:
                    await act()

    async def close(self) -> None:
        await self.reads.dispose()
        await self.writes.dispose()
        await self.journal.dispose()
