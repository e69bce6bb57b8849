"""The real service in a thread: a real port, real PostgreSQL and Valkey, the limits on."""

import asyncio
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import asyncpg
import redis

from api.app import create_app
from api.http.server import listen_on_loopback, server_for
from api.settings import Settings
from tests.support.client import Browser

KEY = "a-key-for-tests-only-0123456789-0123456789"


@dataclass
class Backend:
    """A database and a Redis, empty or filled, on which any number of instances can run."""

    database_url: str
    redis_url: str

    def sql(self, statement: str, *args: Any) -> list[asyncpg.Record]:
        async def run() -> list[asyncpg.Record]:
            connection = await asyncpg.connect(self.database_url)
            try:
                return list(await connection.fetch(statement, *args))
            finally:
                await connection.close()

        return asyncio.run(run())

    def attributes(self, statement: str) -> list[tuple[str, str]]:
        """The names and PostgreSQL's types of what `statement`, with any values, answers."""

        async def run() -> list[tuple[str, str]]:
            connection = await asyncpg.connect(self.database_url)
            try:
                prepared = await connection.prepare(statement)
                return [(each.name, each.type.name) for each in prepared.get_attributes()]
            finally:
                await connection.close()

        return asyncio.run(run())

    def as_role(self, role: str) -> "Backend":
        """The same servers, with the database as this role of PostgreSQL."""
        return Backend(self.database_url.replace("postgres@", f"{role}@", 1), self.redis_url)

    @property
    def redis(self) -> "redis.Redis":
        return redis.Redis.from_url(self.redis_url, decode_responses=True)

    def copy(self) -> "Backend":
        """The same data in a database of its own, and an empty Redis."""
        name = f"test_{uuid4().hex}"
        folder, query = self.database_url.split("?", 1)
        maintenance = f"{folder.rsplit('/', 1)[0]}/postgres?{query}"
        template = folder.rsplit("/", 1)[1]
        Backend(maintenance, self.redis_url).sql(f"CREATE DATABASE {name} TEMPLATE {template}")
        with self.redis as connection:
            connection.flushall()
        return Backend(f"{folder.rsplit('/', 1)[0]}/{name}?{query}", self.redis_url)

    def settings(self, **changes: Any) -> Settings:
        """Everything as in production but the limits, which are on, and high."""
        values = {
            "database_url": self.database_url,
            "redis_url": self.redis_url,
            "secret_key": KEY,
            "rate_limit_per_minute": 1_000_000,
            "login_attempts": 1_000,
        }
        return Settings(**{**values, **changes})


@dataclass
class Service:
    """One running instance."""

    backend: Backend
    settings: Settings
    sockets: list[socket.socket] | None = None
    url: str = ""
    thread: threading.Thread = field(init=False)

    def __enter__(self) -> "Service":
        app = create_app(self.settings)
        sockets = self.sockets or listen_on_loopback(0)
        self.app = app
        self.url = f"http://localhost:{sockets[0].getsockname()[1]}"
        self.server = server_for(app, self.settings.timeouts)
        self.thread = threading.Thread(target=self.server.run, args=(list(sockets),), daemon=True)
        self.thread.start()
        while not self.server.started:
            if not self.thread.is_alive():
                raise RuntimeError("the service did not start")
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join()

    def browser(self, cookies: dict[str, str] | None = None) -> Browser:
        return Browser(self.url, dict(cookies or {}))

    def raw(self, request: bytes) -> bytes:
        """Send bytes as they are and read until the service closes or falls silent."""
        host, port = self.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=2) as connection:
            connection.sendall(request)
            received = b""
            try:
                while chunk := connection.recv(65536):
                    received += chunk
            except TimeoutError:
                pass
            return received
