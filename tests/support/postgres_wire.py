"""A wire to PostgreSQL that can be cut, and that can look like a pooler."""

import asyncio
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.support.service import Backend

# PostgreSQL's answer to an INSERT outside a transaction, which only the journal does: stored, and idle again.
STORED = b"INSERT 0 1\0Z\0\0\0\5I"
COMMITTED = b"C\0\0\0\x0bCOMMIT\0"  # what it says of a transaction that is stored
KEY_DATA = b"K\0\0\0\x0c"  # how PostgreSQL begins to announce a process, whose number follows


class Wire:
    """A socket before PostgreSQL's own. It can be cut once: when the journal's INSERT is stored, and the
    answer is on its way. `silent_at`: no answer goes on from one that has this. `is_pooler`: as a pooler
    does, it announces a process that is none of PostgreSQL's."""

    def __init__(self, backend: Backend, *, is_pooler: bool = False) -> None:
        self.backend = backend
        self.is_pooler = is_pooler
        self.cut = False
        self.silent_at = b""

    @contextmanager
    def laid(self) -> Iterator[Backend]:
        """The same database at the other end of the wire."""
        self.up, self.over = threading.Event(), asyncio.Event()
        _, server = self.backend.database_url.split("host=")
        with tempfile.TemporaryDirectory() as folder:
            thread = threading.Thread(target=lambda: asyncio.run(self.run(folder, server)))
            thread.start()
            self.up.wait()
            try:
                yield Backend(self.backend.database_url.replace(server, folder), self.backend.redis_url)
            finally:
                self.loop.call_soon_threadsafe(self.over.set)
                thread.join()

    async def run(self, folder: str, server: str) -> None:
        self.loop = asyncio.get_running_loop()

        async def connected(from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
            from_server, to_server = await asyncio.open_unix_connection(f"{server}/.s.PGSQL.5432")
            try:
                await asyncio.gather(self.pump(from_client, to_server), self.pump(from_server, to_client))
            finally:  # also where the wire is taken away while somebody still talks
                to_server.close()
                to_client.close()

        async with await asyncio.start_unix_server(connected, f"{folder}/.s.PGSQL.5432"):
            self.up.set()
            await self.over.wait()

    async def pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        is_silent = False
        with suppress(ConnectionError):
            while data := await source.read(65536):
                is_silent = is_silent or (self.silent_at != b"" and self.silent_at in data)
                if is_silent:
                    continue
                if self.cut and STORED in data:
                    self.cut = False
                    break
                target.write(with_another_process(data) if self.is_pooler else data)
        target.close()


def with_another_process(data: bytes) -> bytes:
    """Number 1, which no server of these tests has."""
    head, key_data, rest = data.partition(KEY_DATA)
    return head + key_data + b"\0\0\0\1" + rest[4:] if key_data else data
