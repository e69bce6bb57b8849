"""One connection to Redis for all requests of a worker. Commands are written as they come, without waiting
for the answers to those before; the answers come back in the order of the commands."""

import asyncio
from collections import deque
from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection, DefaultParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse
from redis.exceptions import TimeoutError as RedisTimeoutError

from security.availability import ANSWER_SECONDS, PROBE_AFTER_SECONDS, AvailabilityProbe, BusyError

# Commands without an answer. Each has some hundred bytes, so that this bounds the buffers too.
MAX_IN_FLIGHT = 1000
CONNECTION_ERRORS = (RedisConnectionError, RedisTimeoutError, InvalidResponse, OSError, TimeoutError)
INCOMPLETE = object()  # from the parser, while the rest of an answer is on its way
Reply = Any  # each command has its own
Argument = str | int | float | bytes


def encode_command(*command: Argument) -> bytes:
    return hiredis.pack_command(command)  # type: ignore[arg-type, no-any-return]  # its stub is wrong


PING = encode_command("PING")


class AwayError(RedisTimeoutError):
    """Redis did not answer here, and does not answer on another connection either."""


class Pipeline:
    """Executes commands over `connection`, which is opened when it is first needed, and again after a loss.

    A command that may have run is not repeated. Raises BusyError if Redis is there and does not answer in
    time, and what security.availability.UNAVAILABLE lists if it is away or answers with an error.
    """

    def __init__(self, connection: AbstractConnection, probe: AvailabilityProbe) -> None:
        self.connection = connection
        self.probe = probe
        self.protocol: PipelineProtocol | None = None
        self.connecting: asyncio.Task[PipelineProtocol] | None = None
        self.waiting = 0  # commands that wait for `connecting`

    async def execute(self, command: bytes) -> Reply:
        """What Redis answers to an encoded command. If the caller is cancelled, its answer is dropped."""
        try:
            protocol = self.protocol
            if protocol is None or protocol.transport.is_closing():
                protocol = await self.reconnect()
            return await protocol.send(command)
        except AwayError:
            raise
        except CONNECTION_ERRORS as error:
            if await self.probe.is_available():
                raise BusyError from error
            raise

    async def reconnect(self) -> "PipelineProtocol":
        """All who need a connection at the same time share one attempt."""
        if self.waiting >= MAX_IN_FLIGHT:
            raise BusyError
        if self.connecting is None or self.connecting.done():
            self.connecting = asyncio.create_task(self.connect())
        self.waiting += 1
        try:
            return await asyncio.shield(self.connecting)
        finally:
            self.waiting -= 1

    async def connect(self) -> "PipelineProtocol":
        await self.connection.disconnect(nowait=True)
        opening = asyncio.create_task(self.connection.connect())  # type: ignore[no-untyped-call]  # the library's
        try:
            await asyncio.wait({opening}, timeout=PROBE_AFTER_SECONDS)
            if not opening.done() and not await self.probe.is_available():
                raise AwayError("No connection in time")
            async with asyncio.timeout(ANSWER_SECONDS - PROBE_AFTER_SECONDS):
                await opening
        except CONNECTION_ERRORS:
            raise
        # redis-py's, for answers of another kind; uvloop's, if the other side disconnects meanwhile.
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise RedisConnectionError("No handshake of a Redis") from error
        finally:
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
        writer = self.connection._writer
        if writer is None or await self.connection.can_read():
            raise RedisConnectionError("Closed, or there is an answer to no command")
        self.protocol = PipelineProtocol(writer.transport, self.probe)
        if self.connection.health_check_interval:
            self.protocol.ping_every(self.connection.health_check_interval)
        return self.protocol

    def abandon(self) -> None:
        """An answer was of another kind: those behind it may belong to other commands."""
        if self.protocol:
            self.protocol.fail(InvalidResponse, "Not what a Redis answers")

    async def close(self) -> None:
        if self.connecting:
            self.connecting.cancel()
            await asyncio.gather(self.connecting, return_exceptions=True)
        if self.protocol:
            self.protocol.fail(RedisConnectionError, "The service stops")
        await self.connection.disconnect()


class PipelineProtocol(asyncio.Protocol):
    """Takes over a connection that redis-py has opened and signed in on. redis-py's own reading of an answer
    costs several times as much, and handles one command at a time."""

    def __init__(self, transport: asyncio.WriteTransport, probe: AvailabilityProbe) -> None:
        self.transport = transport
        self.replaced = transport.get_protocol()
        self.probe = probe
        self.loop = asyncio.get_running_loop()
        self.reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=DefaultParser.parse_error, notEnoughData=INCOMPLETE
        )
        self.in_flight: deque[tuple[asyncio.Future[Reply], float]] = deque()  # and when each was sent
        self.timer: asyncio.TimerHandle | None = None
        self.overdue: asyncio.Future[Reply] | None = None
        self.probing: asyncio.Task[None] | None = None
        transport.set_protocol(self)

    def send(self, command: bytes) -> asyncio.Future[Reply]:
        """The future answer. Raises BusyError or RedisConnectionError at once."""
        if len(self.in_flight) >= MAX_IN_FLIGHT:
            raise BusyError
        if self.transport.is_closing():
            raise RedisConnectionError("The connection was lost")
        answer = self.loop.create_future()
        self.in_flight.append((answer, self.loop.time()))
        self.transport.write(command)
        if self.timer is None:
            self.timer = self.loop.call_later(PROBE_AFTER_SECONDS, self.check_oldest)
        return answer

    def data_received(self, data: bytes) -> None:
        try:
            self.reader.feed(data)
            while (answer := self.reader.gets()) is not INCOMPLETE:
                if not isinstance(answer, hiredis.PushNotification):
                    resolve(self.in_flight.popleft()[0], answer)
        except (InvalidResponse, IndexError):  # IndexError: an answer to no command
            self.fail(InvalidResponse, "Not what a Redis answers")

    def connection_lost(self, error: Exception | None) -> None:
        self.replaced.connection_lost(error)  # for which `connection.disconnect` waits
        self.fail(RedisConnectionError, f"The connection was lost: {error}")

    def check_oldest(self) -> None:
        """Whether the oldest command has waited for too long."""
        self.timer = None
        if not self.in_flight:
            return
        answer, sent_at = self.in_flight[0]
        waited = self.loop.time() - sent_at
        if waited < PROBE_AFTER_SECONDS:
            again = PROBE_AFTER_SECONDS - waited
        elif answer is not self.overdue:  # an event loop that was full first reads what has come meanwhile
            self.overdue, again = answer, 0.01
        elif waited < ANSWER_SECONDS:
            again = min(PROBE_AFTER_SECONDS, ANSWER_SECONDS - waited)
            if self.probing is None or self.probing.done():
                self.probing = asyncio.create_task(self.fail_if_away(answer))
        else:
            self.fail(RedisTimeoutError, "No answer in time")
            return
        self.timer = self.loop.call_later(again, self.check_oldest)

    async def fail_if_away(self, oldest: asyncio.Future[Reply]) -> None:
        """If Redis is away, nobody needs to wait for ANSWER_SECONDS."""
        if not await self.probe.is_available() and self.in_flight and self.in_flight[0][0] is oldest:
            self.fail(AwayError, "No answer in time")

    def fail(self, kind: type[Exception], message: str) -> None:
        """Close the connection; every command in flight fails."""
        self.transport.abort()
        while self.in_flight:
            resolve(self.in_flight.popleft()[0], kind(message))

    def ping_every(self, seconds: float) -> None:
        if not self.transport.is_closing():
            if not self.in_flight:
                self.send(PING).add_done_callback(lambda pong: pong.cancelled() or pong.exception())
            self.loop.call_later(seconds, self.ping_every, seconds)


def resolve(future: asyncio.Future[Reply], answer: Reply) -> None:
    if future.done():  # cancelled: its caller does not wait any more
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
