"""Books appointments: each takes a body of its own, which h2load cannot send."""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count

from tests.bench.clinic import uid
from tests.bench.h2load import Measured

FIRST = datetime(2100, 1, 1, tzinfo=UTC)
PEOPLE = 100  # doctors, and patients, who have an appointment at each time


def bodies() -> Iterator[bytes]:
    """Never the same doctor, nor patient, twice at a time."""
    for number in count():
        begins = FIRST + timedelta(hours=number // PEOPLE)
        body = {
            "patientId": uid("patient", number % PEOPLE),
            "doctorId": uid("doctor", number % PEOPLE),
            "date": begins.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "reason": "Follow-up",
            "notes": "Bring previous lab results.",
        }
        yield json.dumps(body).encode()


@dataclass
class Bookings:
    url: str
    cookie: str
    connections: int
    bodies: Iterator[bytes] = field(default_factory=bodies)

    def load(self, seconds: int) -> Measured:
        """Book for some seconds, each client its next appointment once it has the last."""
        return asyncio.run(self.book(seconds))

    async def book(self, seconds: int) -> Measured:
        measured = Measured(seconds)
        ends = time.perf_counter() + seconds
        await asyncio.gather(*(self.client(ends, measured) for _ in range(self.connections)))
        return measured

    async def client(self, ends: float, measured: Measured) -> None:
        host, port = self.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        while time.perf_counter() < ends:
            body = next(self.bodies)
            head = f"POST /api/appointments HTTP/1.1\r\nHost: {host}:{port}\r\nCookie: {self.cookie}\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            sent = time.perf_counter()
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = answer.lower().split(b"content-length: ")[1].split(b"\r")[0]
            await reader.readexactly(int(length))
            measured.taken.append((time.perf_counter() - sent) * 1000)
            measured.failed += not answer.startswith(b"HTTP/1.1 201")
        writer.close()
