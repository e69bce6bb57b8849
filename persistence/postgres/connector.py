"""Opening connections to PostgreSQL, or to a pooler that stands before it."""

from contextlib import suppress
from ssl import SSLCertVerificationError, SSLEOFError, SSLError, SSLZeroReturnError

import asyncpg

from persistence.postgres.database_url import each_host, wanted_of
from persistence.postgres.deadline import seconds_for, seconds_left
from persistence.postgres.failures import is_temporary, reason_of

# Whatever the server's defaults are. A rule that is checked after waiting for locks must see what was stored
# meanwhile. And to compile a query (JIT) takes PostgreSQL longer than to read the few rows of most queries.
MAX_CONNECT_SECONDS = 5.0  # for all hosts of a URL together
SESSION_SETTINGS = "SET default_transaction_isolation = 'read committed'; SET jit = off"

# It is gone, silent, starting, full, not what target_session_attrs asks for, or a pooler whose server is so.
NEXT_HOST_MAY_DO = (
    OSError,
    asyncpg.CannotConnectNowError,
    asyncpg.PostgresConnectionError,
    asyncpg.TooManyConnectionsError,
    asyncpg.TargetServerAttributeNotMatched,
)
# What target_session_attrs asks for, by its value.
IS_WANTED = {
    "read-write": "current_setting('transaction_read_only') = 'off'",
    "primary": "NOT pg_is_in_recovery()",
    "any": "",
}


class NoConnectionError(ConnectionError):
    """PostgreSQL answered, and gave no connection. `lasting`: waiting does not help."""

    def __init__(self, reason: str, *, lasting: bool) -> None:
        super().__init__(reason)
        self.lasting = lasting


def no_connection_error(error: asyncpg.PostgresError) -> NoConnectionError:
    return NoConnectionError(reason_of(error), lasting=not is_temporary(error))


class Connector:
    """Opens asyncpg's connections, and finds out whether a pooler is between.

    Of several hosts, the one that gave the last connection is asked first, and none may take the time of the
    others: one that has lost its power, or hangs, does not answer at all. (asyncpg itself tries them in the
    order of the URL, within one time-out, and believes what a pooler has heard of its server long ago.)

    Behind PgBouncer in transaction mode, each transaction may run on another connection of the server, where
    a named prepared statement is missing, or is another client's. So statements are unnamed there and not
    cached. A direct connection keeps named ones, which halve the time of a request.
    """

    def __init__(self, url: str, command_timeout: float | None) -> None:
        """`command_timeout`: seconds that one statement may take, or None for work that may take as long as
        it needs; TimeoutError after that."""
        url = url.replace("postgresql+asyncpg://", "postgresql://", 1)
        self.hosts = each_host(url)
        self.is_wanted = IS_WANTED[wanted_of(url)] if len(self.hosts) > 1 else ""
        self.command_timeout = command_timeout
        self.is_pooled: bool | None = None  # not known before the first connection

    async def __call__(self, **_: object) -> asyncpg.Connection:
        """Raises NoConnectionError, OSError or TimeoutError."""
        try:
            return await self.ready()
        except asyncpg.PostgresError as error:
            raise no_connection_error(error) from error
        except asyncpg.TargetServerAttributeNotMatched as error:
            raise NoConnectionError("no host is what target_session_attrs asks for", lasting=False) from error
        except asyncpg.InterfaceError as error:  # the URL asks for what the driver does not have
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
        hosts = list(self.hosts)
        seconds = seconds_for(MAX_CONNECT_SECONDS) / len(hosts)
        for host in hosts[:-1]:
            with suppress(*NEXT_HOST_MAY_DO):
                return await self.ready_at(host, seconds)
        return await self.ready_at(hosts[-1], seconds)

    async def ready_at(self, host: str, seconds: float) -> asyncpg.Connection:
        is_direct_so_far = not self.is_pooled  # another connection may find out while this one is opened
        connection = await self.open(host, seconds)
        patience = seconds if len(self.hosts) > 1 else seconds_left()
        try:
            if is_direct_so_far and not await is_direct(connection, patience):
                self.is_pooled = True
                await connection.close()
                connection = await self.open(host, seconds)
            elif is_direct_so_far:  # a pooler's session is shared with other clients
                self.is_pooled = bool(self.is_pooled)
                await connection.execute(SESSION_SETTINGS, timeout=patience)
            if self.is_wanted and not await holds(connection, self.is_wanted, patience):
                raise asyncpg.TargetServerAttributeNotMatched(host)
        except BaseException:  # otherwise the server would keep the connection
            connection.terminate()
            raise
        self.hosts.remove(host)
        self.hosts.insert(0, host)
        return connection

    async def open(self, host: str, seconds: float) -> asyncpg.Connection:
        return await asyncpg.connect(
            host,
            timeout=seconds,
            command_timeout=self.command_timeout,
            statement_cache_size=0 if self.is_pooled else 100,
            max_cached_statement_lifetime=0,  # for as long as the connection is open
            server_settings={"application_name": "medisecure", "timezone": "UTC"},
        )


async def is_direct(connection: asyncpg.Connection, seconds: float | None) -> bool:
    """Whether the process that the greeting named is the one that answers. A pooler names one of its own."""
    return await holds(connection, f"pg_backend_pid() = {int(connection.get_server_pid())}", seconds)


async def holds(connection: asyncpg.Connection, condition: str, seconds: float | None) -> bool:
    """Asked without a prepared statement, which a pooler may not know."""
    return bool(await connection.execute(f"SELECT WHERE {condition}", timeout=seconds) == "SELECT 1")
