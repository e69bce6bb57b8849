"""One connection to Redis for all requests of a worker. Commands are written as they come, without waiting
for the answers to those before; the answers come back in the order of the commands."""

import asyncio
from collections import deque
from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection, DefaultParser
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import InvalidResponse
from redis.exceptions import TimeoutError as Late

from security.availability import PATIENCE, SLOW, BusyError, SecondOpinion

MOST = 1000  # commands in flight. Each has some hundred bytes, so that this bounds the buffers, too.
LOST = (Disconnected, Late, InvalidResponse, OSError, TimeoutError)
INCOMPLETE = object()
Word = str | int | float | bytes


def packed(*command: Word) -> bytes:
    return hiredis.pack_command(command)  # type: ignore[arg-type, no-any-return]  # its stub is wrong


PING = packed("PING")


class AwayError(Late):
    """Neither did Redis answer, nor does it elsewhere."""


class Pipeline:
    """Asks over `connection`, which is opened when it is first needed, and again after it was lost.

    No command is asked twice that may have run. Raises BusyError where Redis is there and has no time for it,
    and what security.availability.UNAVAILABLE lists where Redis is away or objects.
    """

    def __init__(self, connection: AbstractConnection, opinion: SecondOpinion) -> None:
        self.connection = connection
        self.opinion = opinion
        self.line: Line | None = None
        self.opening: asyncio.Task[Line] | None = None
        self.waiting = 0

    async def ask(self, command: bytes) -> Any:
        """What Redis answers to a packed command. The answer to one that is cancelled is thrown away."""
        try:
            line = self.line
            if line is None or line.transport.is_closing():
                line = await self.reopened()
            return await line.ask(command)
        except AwayError:
            raise
        except LOST as error:
            if await self.opinion.is_there():
                raise BusyError from error
            raise

    async def reopened(self) -> "Line":
        """One for all who wait for it."""
        if self.waiting >= MOST:
            raise BusyError
        if self.opening is None or self.opening.done():
            self.opening = asyncio.create_task(self.open())
        self.waiting += 1
        try:
            return await asyncio.shield(self.opening)
        finally:
            self.waiting -= 1

    async def open(self) -> "Line":
        await self.connection.disconnect(nowait=True)
        connecting = asyncio.create_task(self.connection.connect())  # type: ignore[no-untyped-call]  # the library's
        try:
            await asyncio.wait({connecting}, timeout=PATIENCE)
            if not connecting.done() and not await self.opinion.is_there():
                raise AwayError("No connection in time")
            async with asyncio.timeout(SLOW - PATIENCE):
                await connecting
        except RuntimeError as error:  # uvloop's, where the other side hangs up during the handshake
            raise Disconnected("Closed during the handshake") from error
        finally:
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
        writer = self.connection._writer
        if writer is None or await self.connection.can_read():
            raise Disconnected("Closed, or something was said that nobody asked for")
        self.line = Line(writer.transport, self.opinion)
        if self.connection.health_check_interval:
            self.line.check_health_every(self.connection.health_check_interval)
        return self.line

    async def close(self) -> None:
        if self.opening:
            self.opening.cancel()
            await asyncio.gather(self.opening, return_exceptions=True)
        if self.line:
            self.line.fail(Disconnected, "The service stops")
        await self.connection.disconnect()


class Line(asyncio.Protocol):
    """Takes over a connection that redis-py has opened and signed in on: its own reading of an answer costs
    several times as much, and knows of one command at a time."""

    def __init__(self, transport: asyncio.WriteTransport, opinion: SecondOpinion) -> None:
        self.transport = transport
        self.before = transport.get_protocol()
        self.opinion = opinion
        self.loop = asyncio.get_running_loop()
        self.reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=DefaultParser.parse_error, notEnoughData=INCOMPLETE
        )
        self.asked: deque[tuple[asyncio.Future[Any], float]] = deque()  # and when
        self.timer: asyncio.TimerHandle | None = None
        self.overdue: asyncio.Future[Any] | None = None
        self.doubt: asyncio.Task[None] | None = None
        transport.set_protocol(self)

    def ask(self, command: bytes) -> asyncio.Future[Any]:
        if len(self.asked) >= MOST:
            raise BusyError
        if self.transport.is_closing():
            raise Disconnected("The connection was lost")
        answer = self.loop.create_future()
        self.asked.append((answer, self.loop.time()))
        self.transport.write(command)
        if self.timer is None:
            self.timer = self.loop.call_later(PATIENCE, self.look)
        return answer

    def data_received(self, data: bytes) -> None:
        try:
            self.reader.feed(data)
            while (answer := self.reader.gets()) is not INCOMPLETE:
                if not isinstance(answer, hiredis.PushNotification):
                    hand_out(answer, self.asked.popleft()[0])
        except (InvalidResponse, IndexError):  # IndexError: an answer to nothing
            self.fail(InvalidResponse, "Not what a Redis answers")

    def connection_lost(self, error: Exception | None) -> None:
        self.before.connection_lost(error)  # for which `connection.disconnect` waits
        self.fail(Disconnected, f"The connection was lost: {error}")

    def look(self) -> None:
        """Whether the oldest command waits for too long."""
        self.timer = None
        if not self.asked:
            return
        answer, asked = self.asked[0]
        waited = self.loop.time() - asked
        if waited < PATIENCE:
            again = PATIENCE - waited
        elif answer is not self.overdue:  # a loop that was full first reads what has come meanwhile
            self.overdue, again = answer, 0.01
        elif waited < SLOW:
            again = min(PATIENCE, SLOW - waited)
            if self.doubt is None or self.doubt.done():
                self.doubt = asyncio.create_task(self.ask_elsewhere(answer))
        else:
            self.fail(Late, "No answer in time")
            return
        self.timer = self.loop.call_later(again, self.look)

    async def ask_elsewhere(self, answer: asyncio.Future[Any]) -> None:
        """Answers that do not come from a Redis that is away hold up nobody any longer."""
        if not await self.opinion.is_there() and self.asked and self.asked[0][0] is answer:
            self.fail(AwayError, "No answer in time")

    def fail(self, kind: type[Exception], message: str) -> None:
        """Nothing of what is in flight will be answered."""
        self.transport.abort()
        while self.asked:
            hand_out(kind(message), self.asked.popleft()[0])

    def check_health_every(self, seconds: float) -> None:
        if not self.transport.is_closing():
            if not self.asked:
                self.ask(PING).add_done_callback(lambda pong: pong.cancelled() or pong.exception())
            self.loop.call_later(seconds, self.check_health_every, seconds)


def hand_out(answer: Any, waiting: asyncio.Future[Any]) -> None:
    if waiting.done():  # who asked has gone
        return
    if isinstance(answer, Exception):
        waiting.set_exception(answer)
    else:
        waiting.set_result(answer)
