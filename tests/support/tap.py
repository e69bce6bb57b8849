"""Counts, on the wire, what the service asks of PostgreSQL and of Redis, without asking any
layer of ours: `with Tap(backend) as tap`, and instances that run on `tap.backend`."""

import asyncio
import struct
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from tests.support.service import Backend

connections = count()


class Cost(NamedTuple):
    statements: int  # that PostgreSQL runs: BEGIN, COMMIT and what a pool sends are some, too
    trips: int  # how often somebody waits for PostgreSQL, once its statements are prepared
    redis: int  # commands


TRIP = ""  # in the place of a statement: somebody waits for the answers
# What the service does by itself, now and then: it folds counts, seals the trail, looks how far the primary
# is and how late, and forgets what has lapsed. A transaction may have only begun when it is looked at.
BACKGROUND_STATEMENTS = (
    "fold_counts(", "_audit_seal(", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    "pg_current_wal_insert_lsn(", "backup_proofs", "AS double precision) AS epoch",
    "DELETE FROM idempotency_keys",
)  # fmt: skip


@dataclass
class Counts:
    redis: int = 0
    asked: list[tuple[int, str]] = field(default_factory=list)  # over which connection, and what

    def since(self, place: int, redis: int) -> tuple[Cost, list[str]]:
        """What requests cost after `asked` had `place` entries, and the statements."""
        transactions = group_by_transaction(self.asked[place:])
        ours = [text for one in transactions if not is_background_work(one) for text in one]
        statements = [text for text in ours if text != TRIP]
        return Cost(len(statements), ours.count(TRIP), self.redis - redis), statements


def is_background_work(transaction: list[str]) -> bool:
    return any(work in text for work in BACKGROUND_STATEMENTS for text in transaction)


def group_by_transaction(asked: Iterable[tuple[int, str]]) -> list[list[str]]:
    """By transactions, a statement alone is one, too. Each connection has one at a time."""
    done: list[list[str]] = []
    open_ones: dict[int, list[str]] = defaultdict(list)
    for connection, text in asked:
        one = open_ones[connection]
        one.append(text)
        begins = one[0].startswith("BEGIN")
        ends = any(earlier in ("COMMIT", "ROLLBACK") for earlier in one)
        if text == TRIP and (ends or not begins):
            done.append(open_ones.pop(connection))
    return done + list(open_ones.values())


class Statements:
    """What one client sends to PostgreSQL, message by message (its documentation, "Message Formats")."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self.connection = next(connections)
        self.prepared: dict[bytes, str] = {}
        self.bound: dict[bytes, bytes] = {}
        self.rest = b""
        self.started = False

    def __call__(self, data: bytes) -> None:
        self.rest += data
        while True:
            head = 1 if self.started else 0  # only the first message has no letter in front
            if len(self.rest) < head + 4:
                return
            [length] = struct.unpack_from("!I", self.rest, head)
            if len(self.rest) < head + length:
                return
            kind, body = self.rest[:head], self.rest[head + 4 : head + length]
            self.rest = self.rest[head + length :]
            self.started = True
            self.handle_message(kind, body)

    def handle_message(self, kind: bytes, body: bytes) -> None:
        names = body.split(b"\0")
        if kind == b"Q":
            for text in filter(None, map(str.strip, names[0].decode().split(";"))):
                self.record(text)
            self.record(TRIP)
        elif kind == b"P":
            self.prepared[names[0]] = names[1].decode()
        elif kind == b"B":
            self.bound[names[0]] = names[1]
        elif kind == b"E":
            self.record(self.prepared[self.bound[names[0]]])
        elif kind == b"S":  # not Flush, behind which a connection prepares a statement once
            self.record(TRIP)

    def record(self, text: str) -> None:
        self.counts.asked.append((self.connection, text))


class Commands:
    """What one client sends to Redis: each command is an array of strings (RESP)."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self.rest = b""
        self.left = 0  # strings of the command that has begun

    def __call__(self, data: bytes) -> None:
        self.rest += data
        while (end := self.rest.find(b"\r\n")) >= 0:
            number = int(self.rest[1:end])
            if self.left:
                if len(self.rest) < end + 2 + number + 2:
                    return
                self.rest = self.rest[end + 2 + number + 2 :]
                self.left -= 1
            else:
                self.counts.redis += 1
                self.rest, self.left = self.rest[end + 2 :], number


class Tap:
    def __init__(self, backend: Backend) -> None:
        self.source = backend
        self.counts = Counts()
        self.servers: list[asyncio.Server] = []
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> "Tap":
        self.folder = tempfile.TemporaryDirectory(prefix="tap")
        database = self.source.database_url
        [host] = parse_qs(urlsplit(database).query)["host"]
        name = ".s.PGSQL.5432"
        redis = self.source.redis_url.removeprefix("unix://")
        self.thread.start()
        self.listen(f"{self.folder.name}/{name}", f"{host}/{name}", Statements)
        self.listen(f"{self.folder.name}/redis", redis, Commands)
        self.backend = Backend(database.replace(host, self.folder.name), f"unix://{self.folder.name}/redis")
        return self

    def __exit__(self, *_: object) -> None:
        async def end() -> None:
            for server in self.servers:
                server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
        self.folder.cleanup()

    def listen(self, path: str, beyond: str, watch: Callable[[Counts], Callable[[bytes], None]]) -> None:
        async def pass_on(
            reader: asyncio.StreamReader,
            writer: asyncio.StreamWriter,
            see: Callable[[bytes], None] = lambda data: None,
        ) -> None:
            while data := await reader.read(65536):
                see(data)
                writer.write(data)
            writer.close()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_unix_connection(beyond)
            try:
                await asyncio.gather(
                    pass_on(reader, far_writer, watch(self.counts)),
                    pass_on(far_reader, writer),
                    return_exceptions=True,
                )
            finally:
                far_writer.close()
                writer.close()

        starting = asyncio.start_unix_server(serve, path)
        self.servers.append(asyncio.run_coroutine_threadsafe(starting, self.loop).result())
