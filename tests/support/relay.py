"""A line to a Redis or a PostgreSQL that can be slow, held up, cut, dead and spoilt."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress


class Wire:
    """One connection through the relay."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.client = client
        self.held = b""  # of answers, on their way to the client
        self.came = asyncio.Event()
        self.free = asyncio.Event()
        self.free.set()


class Relay:
    """`delay`: seconds before an answer goes on; `pieces`: bytes of it that go at once; `instead`: what comes
    in the place of an answer; `is_dead`: whatever is sent is lost, in both directions, and nobody is told."""

    def __init__(self, place: str) -> None:
        """`place`: the path of a socket, or host:port."""
        self.place = place
        self.port = 0
        self.delay = 0.0
        self.pieces = 65536
        self.is_dead = False
        self.instead = b""
        self.wires: list[Wire] = []  # all there ever were
        self.tasks: list[asyncio.Task[None]] = []

    @property
    def url(self) -> str:
        """Where the server is a Redis."""
        return f"redis://127.0.0.1:{self.port}"

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.place.startswith("/"):
            return await asyncio.open_unix_connection(self.place)
        host, _, port = self.place.partition(":")
        return await asyncio.open_connection(host, int(port))

    async def carried(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self.carry(client, answer))
        self.tasks.append(task)
        await asyncio.wait({task})

    async def carry(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        try:
            reader, writer = await self.dial()
        except OSError:
            answer.close()
            return
        wire = Wire(answer)
        self.wires.append(wire)
        tasks = [asyncio.create_task(self.back(reader, wire)), asyncio.create_task(self.forward(wire))]
        try:
            with suppress(ConnectionError):
                while chunk := await client.read(65536):
                    if not self.is_dead:
                        writer.write(chunk)
        finally:
            for task in tasks:
                task.cancel()
            writer.close()
            answer.close()

    async def back(self, reader: asyncio.StreamReader, wire: Wire) -> None:
        while chunk := await reader.read(65536):
            await asyncio.sleep(self.delay)
            if not self.is_dead:
                wire.held += self.instead or chunk
                wire.came.set()
        if not self.is_dead:
            wire.client.close()

    async def forward(self, wire: Wire) -> None:
        while not wire.client.is_closing():
            await wire.came.wait()
            await wire.free.wait()
            wire.came.clear()
            while wire.held and wire.free.is_set() and not wire.client.is_closing():
                piece, wire.held = wire.held[: self.pieces], wire.held[self.pieces :]
                wire.client.write(piece)
                await asyncio.sleep(0)

    def hold(self) -> None:
        """Answers on the connections that are there wait until they are let go."""
        for wire in self.wires:
            wire.free.clear()

    def let_go(self) -> None:
        for wire in self.wires:
            wire.free.set()
            wire.came.set()

    async def until_held(self, size: int) -> None:
        """Until so many bytes of answers wait."""
        while sum(len(wire.held) for wire in self.wires) < size:  # noqa: ASYNC110  # of many wires
            await asyncio.sleep(0.01)

    def cut(self, after: int = 0) -> None:
        """End the connections that are there, once so many bytes of what is held have gone."""
        for wire in self.wires:
            if not wire.client.is_closing():
                wire.client.write(wire.held[:after])
                wire.client.close()

    def say(self, words: bytes) -> None:
        """As if the server had said it."""
        for wire in self.wires:
            wire.client.write(words)


@asynccontextmanager
async def relayed(place: str) -> AsyncIterator[Relay]:
    """In front of the server at this place, or at a `unix://` URL."""
    relay = Relay(place.removeprefix("unix://"))
    server = await asyncio.start_server(relay.carried, "127.0.0.1", 0)
    relay.port = server.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        server.close()
        for task in relay.tasks:
            task.cancel()
        await asyncio.gather(*relay.tasks, return_exceptions=True)


class Line:
    """A relay that works in a thread of its own, for tests that do not."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.loop = asyncio.get_running_loop()
        self.over = asyncio.Event()

    def do(self, act: Callable[[Relay], None]) -> None:
        """Returns when it is done."""
        done = threading.Event()

        def work() -> None:
            act(self.relay)
            done.set()

        self.loop.call_soon_threadsafe(work)
        done.wait()


@contextmanager
def line_to(place: str) -> Iterator[Line]:
    lines: list[Line] = []
    is_up = threading.Event()

    async def work() -> None:
        async with relayed(place) as relay:
            lines.append(Line(relay))
            is_up.set()
            await lines[0].over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    is_up.wait()
    try:
        yield lines[0]
    finally:
        lines[0].loop.call_soon_threadsafe(lines[0].over.set)
        thread.join()
