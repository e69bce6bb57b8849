"""Start both servers on a data folder, stop them, and delete what they left."""

import shutil
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from persistence.embedded import postgresql, valkey
from persistence.embedded.folders import claim, postgres_home, remove_sockets
from persistence.embedded.processes import ServerGroup, stop_leftovers
from persistence.embedded.wheels import require_wheel


@dataclass
class EmbeddedServers:
    """Running servers, until `stop` or the end of the `with` block. The URL of one not asked for is empty."""

    database_url: str = ""
    redis_url: str = ""
    created: bool = False  # the database is new, made by this start
    cleanup: ExitStack = field(default_factory=ExitStack, repr=False)

    def stop(self) -> None:
        """Stop the servers in good order and release the data folder; a second call does nothing."""
        self.cleanup.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start(
    data_dir: Path, *, postgres: bool = True, redis: bool = True, durable: bool = True, version: int = 18
) -> EmbeddedServers:
    """Start the servers on what `data_dir` holds; an empty or missing folder becomes a new database.

    `durable=False`, for tests, is faster: a crash may lose the last commits, and one of the machine the whole
    database. Valkey keeps nothing in either case. `version` is PostgreSQL's, 16 or 18. EmbeddedError: the
    wheels are missing; the folder is in use, another user's, or another version's; a server does not start.
    """
    require_wheels(postgres=postgres, redis=redis)  # before anything is written
    with ExitStack() as cleanup:
        data_dir = claim(data_dir, cleanup)
        group = cleanup.enter_context(ServerGroup())
        servers = EmbeddedServers()
        if postgres:
            home = postgres_home(data_dir, cleanup)
            server = postgresql.Postgres(home, data_dir / "postgres.log", group, version, durable)
            servers.database_url, servers.created = server.start(cleanup)
        if redis:
            servers.redis_url = valkey.start_valkey(data_dir, group, cleanup)
        servers.cleanup = cleanup.pop_all()
    return servers


def require_wheels(*, postgres: bool, redis: bool) -> None:
    if postgres or redis:
        require_wheel("psutil")
    if postgres:
        require_wheel(postgresql.WHEEL)
    if redis:
        require_wheel(valkey.WHEEL)


def discard(data_dir: Path) -> None:
    """Delete the database and all else `start` wrote, root's part included. EmbeddedError: it is in use."""
    with ExitStack() as cleanup:
        data_dir = claim(data_dir, cleanup)
        home = postgres_home(data_dir, cleanup)
        stop_leftovers(home / "postgres/data", home / "postgres/new", data_dir / "valkey")
        for folder in (home / "postgres", data_dir / "valkey"):
            remove_sockets(folder)
            shutil.rmtree(folder, ignore_errors=True)
        if home != data_dir:  # pragma: no branch  # root runs the measured tests
            shutil.rmtree(home)
        for name in ("servers", "postgres.log", "valkey.log"):
            (data_dir / name).unlink(missing_ok=True)
