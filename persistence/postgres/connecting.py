"""Opening connections to PostgreSQL, or to a pooler that stands before it."""

from ssl import SSLCertVerificationError, SSLEOFError, SSLError, SSLZeroReturnError
from typing import Any

import asyncpg

from persistence.postgres.failures import reason_of

# 57P01 to 57P03 shutting down or starting, class 53 no connection or memory left, class 08 lost on the way.
PASSING = ("57P", "53", "08")
# What PgBouncer says under 08P01 as well, though no time will mend it.
LASTING = ("unsupported startup parameter", "no such database", "no such user")

# Whatever the server's default: a rule that is judged once its locks are held must see what was stored while
# it waited for them. And nothing is compiled for a second's query: that takes PostgreSQL longer than the few
# rows that most of them read.
SESSION = "SET default_transaction_isolation = 'read committed'; SET jit = off"


class NoConnectionError(ConnectionError):
    """PostgreSQL answered, and gave no connection. `lasting`: no time will mend that."""

    def __init__(self, reason: str, *, lasting: bool) -> None:
        super().__init__(reason)
        self.lasting = lasting


def is_passing(sqlstate: str | None, reason: str = "") -> bool:
    """Whether waiting may help where PostgreSQL, or a pooler before it, said this."""
    return str(sqlstate).startswith(PASSING) and not reason.startswith(LASTING)


def refusal(error: asyncpg.PostgresError) -> NoConnectionError:
    """In one line: what a hint adds is for whoever runs the pooler."""
    reason = reason_of(error)
    return NoConnectionError(reason, lasting=not is_passing(error.sqlstate, reason))


class Connector:
    """Opens asyncpg's connections, and finds out about a pooler between.

    Behind one, as PgBouncer in transaction mode, each transaction may be on another connection of the server:
    a named prepared statement would be missing there, or be somebody else's. So statements stay unnamed, and
    nothing remembers them. A direct connection keeps its named ones, which save half of a request's time.
    """

    def __init__(self, url: str, command_timeout: float | None) -> None:
        """`command_timeout`: seconds that one statement may take, or None for work that may take as long as
        it needs; TimeoutError after that."""
        self.dsn = url.replace("postgresql+asyncpg://", "postgresql://", 1)
        self.command_timeout = command_timeout
        self.is_pooled: bool | None = None  # until the first connection has told

    async def __call__(self, **_: Any) -> asyncpg.Connection:
        """Raises NoConnectionError, OSError or TimeoutError."""
        try:
            return await self.ready()
        except asyncpg.PostgresError as error:
            raise refusal(error) from error
        except asyncpg.InterfaceError as error:  # what the URL asks for is not to be had
            raise NoConnectionError(str(error), lasting=True) from error
        except SSLCertVerificationError as error:
            raise NoConnectionError(error.verify_message, lasting=True) from error
        except SSLError as error:
            if isinstance(error, SSLEOFError | SSLZeroReturnError):  # cut off
                raise
            raise NoConnectionError(f"TLS: {error.reason or error.args[-1]}", lasting=True) from error
        except ConnectionError as error:
            if "rejected SSL upgrade" not in str(error):
                raise
            raise NoConnectionError("it does not speak TLS, which sslmode asks for", lasting=True) from error

    async def ready(self) -> asyncpg.Connection:
        is_direct_so_far = not self.is_pooled  # another connection may find out while this one is opened
        connection = await self.open()
        try:
            if is_direct_so_far and not await is_direct(connection):
                self.is_pooled = True
                await connection.close()
                return await self.open()
            self.is_pooled = bool(self.is_pooled)
            if is_direct_so_far:  # of a single statement; in a pooler's session it would be others' as well
                await connection.execute(SESSION)
        except BaseException:  # nobody else knows of the connection, whose server would keep it
            connection.terminate()
            raise
        return connection

    async def open(self) -> asyncpg.Connection:
        return await asyncpg.connect(
            self.dsn,
            timeout=5,
            command_timeout=self.command_timeout,
            statement_cache_size=0 if self.is_pooled else 100,
            max_cached_statement_lifetime=0,  # none is prepared anew while its connection lives
            server_settings={"application_name": "medisecure", "timezone": "UTC"},
        )


async def is_direct(connection: asyncpg.Connection) -> bool:
    """Whether the process that was announced is the one that answers: a pooler announces one of its own."""
    answered = await connection.execute(f"SELECT WHERE pg_backend_pid() = {int(connection.get_server_pid())}")
    return bool(answered == "SELECT 1")
