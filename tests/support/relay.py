"""A line to a Redis that can be slow, held up, cut and spoilt."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Wire:
    """One connection through the relay."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.client = client
        self.held = b""  # of answers, on their way to the client
        self.came = asyncio.Event()
        self.free = asyncio.Event()
        self.free.set()


class Relay:
    """`delay`: seconds before an answer goes on; `pieces`: bytes of it that go at once."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.url = ""
        self.delay = 0.0
        self.pieces = 65536
        self.wires: list[Wire] = []  # all there ever were
        self.tasks: list[asyncio.Task[None]] = []

    async def carried(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self.carry(client, answer))
        self.tasks.append(task)
        await asyncio.wait({task})

    async def carry(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        reader, writer = await asyncio.open_unix_connection(self.path)
        wire = Wire(answer)
        self.wires.append(wire)
        tasks = [asyncio.create_task(self.back(reader, wire)), asyncio.create_task(self.forward(wire))]
        try:
            with suppress(ConnectionError):
                while chunk := await client.read(65536):
                    writer.write(chunk)
        finally:
            for task in tasks:
                task.cancel()
            writer.close()
            answer.close()

    async def back(self, reader: asyncio.StreamReader, wire: Wire) -> None:
        while chunk := await reader.read(65536):
            await asyncio.sleep(self.delay)
            wire.held += chunk
            wire.came.set()
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
        """As if Redis had said it."""
        for wire in self.wires:
            wire.client.write(words)


@asynccontextmanager
async def relayed(url: str) -> AsyncIterator[Relay]:
    """In front of the server at this `unix://` URL."""
    relay = Relay(url.removeprefix("unix://"))
    server = await asyncio.start_server(relay.carried, "127.0.0.1", 0)
    relay.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield relay
    finally:
        server.close()
        for task in relay.tasks:
            task.cancel()
        await asyncio.gather(*relay.tasks, return_exceptions=True)
