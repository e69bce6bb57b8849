"""The end of a service: what a proxy has sent is answered, and what it would send goes elsewhere."""

import asyncio
import logging
import signal
import socket
from collections.abc import Iterator
from functools import partial
from types import FrameType
from typing import Any

import uvicorn

from api.http.requests import DRAINING, STOPPING

IDLE_SECONDS = 0.5  # that idle connections outlive the listeners; a request may be on its way on one
log = logging.getLogger("uvicorn.error")


class DrainingConfig(uvicorn.Config):
    """`drain_seconds`: between SIGTERM and the end of listening."""

    # Any: what uvicorn takes.
    def __init__(self, *args: Any, drain_seconds: float, **options: Any) -> None:
        super().__init__(*args, **options)
        self.drain_seconds = drain_seconds


class DrainingServer(uvicorn.Server):
    """On SIGTERM it says for `drain_seconds` that it is not ready, and answers as before, but with
    `Connection: close`. Then it listens no more; a moment later it closes what is idle. On SIGINT it does not
    drain. Requests under way end within SHUTDOWN_TIMEOUT_SECONDS, which no further signal cuts short."""

    config: DrainingConfig
    loop: asyncio.AbstractEventLoop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.lifespan.state[STOPPING] = asyncio.Event()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            return
        if sig == signal.SIGTERM and self.started and self.config.drain_seconds:
            if sig not in self._captured_signals:
                self._captured_signals.append(sig)
                self.loop.call_soon_threadsafe(self.drain)
        else:
            super().handle_exit(sig, frame)

    def drain(self) -> None:
        log.info("Draining for %s seconds", self.config.drain_seconds)
        self.refuse_further_requests()
        self.loop.call_later(self.config.drain_seconds, self.stop)

    def stop(self) -> None:
        self.should_exit = True

    def refuse_further_requests(self) -> None:
        """From now on each answer is the last of its connection."""
        self.lifespan.state[DRAINING] = True
        self.lifespan.state[STOPPING].set()
        for connection in list(self.server_state.connections):
            connection.drain()  # type: ignore[union-attr]  # each is a StrictProtocol

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.refuse_further_requests()
        await self.stop_listening(sockets or [])
        if self.config.drain_seconds:
            await asyncio.sleep(IDLE_SECONDS)
        await super().shutdown(sockets)

    async def stop_listening(self, listeners: list[socket.socket]) -> None:
        """Whoever the system has let in already is served: closing a listener would reset them."""
        queues = [listener.dup() for listener in listeners]
        for server in self.servers:
            server.close()
        for listener in listeners:
            listener.close()
        for queue in queues:
            await self.serve_waiting(queue)

    async def serve_waiting(self, listener: socket.socket) -> None:
        serve = partial(  # type: ignore[call-arg]  # what each protocol of uvicorn takes
            self.config.http_protocol_class,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        waiting = list(accept_waiting(listener))
        listener.close()
        for connection in waiting:
            await self.loop.connect_accepted_socket(serve, connection)


def accept_waiting(listener: socket.socket) -> Iterator[socket.socket]:
    listener.setblocking(False)
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # nobody is left, or they have gone
            break
        connection.setblocking(False)
        yield connection
