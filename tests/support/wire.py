"""A connection on which bytes go as they are written, in the packets in which they are written."""

import json
import re
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from tests.support.service import Service

INVALID = {"detail": "Invalid HTTP request"}
LATE = {"detail": "body: must arrive within 1 seconds"}
KIB = 1024
LIVE = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
LOGIN = b"POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
ANSWER = re.compile(rb"HTTP/1\.1 (\d{3}) .*?\r\n\r\n", re.DOTALL)


class Connection:
    def __init__(self, opened: socket.socket) -> None:
        self.socket = opened
        self.received = b""

    def send(self, *pieces: bytes, pause: float = 0.05) -> None:
        """Each in a packet of its own."""
        for piece in pieces:
            self.socket.sendall(piece)
            if piece is not pieces[-1]:
                time.sleep(pause)

    def answers(self, count: int = 1000) -> list[tuple[int, Any]]:
        """The next `count` answers, or all of them until the service closes: statuses and what they say."""
        found: list[tuple[int, Any]] = []
        while len(found) < count:
            head = ANSWER.match(self.received)
            length = re.search(rb"content-length: (\d+)", head[0], re.IGNORECASE) if head else None
            size = int(length[1]) if length else 0
            if head and len(self.received) >= head.end() + size:
                body = self.received[head.end() : head.end() + size]
                self.received = self.received[head.end() + size :]
                found.append((int(head[1]), json.loads(body) if body else None))
                continue
            chunk = self.socket.recv(65536)
            if not chunk:
                assert self.received == b""
                break
            self.received += chunk
        return found

    def head(self) -> bytes:
        """Of the next answer, which stays to be read."""
        while not (found := ANSWER.match(self.received)):
            self.received += self.socket.recv(65536)
        return found[0]

    def half_close(self) -> None:
        """Say that nothing more comes, and go on reading."""
        self.socket.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """Close without a goodbye, as a client does that crashes: a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def drip(self, piece: bytes, seconds: float, pause: float = 0.1) -> None:
        """Send `piece` again and again, until the service is done with it."""
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                self.socket.sendall(piece)
                time.sleep(pause)
        except OSError:
            return

    def is_closed(self, within: float) -> bool:
        self.socket.settimeout(within)
        try:
            return self.socket.recv(1) == b""
        except TimeoutError:
            return False
        except ConnectionError:
            return True


def connected(service: Service) -> AbstractContextManager[Connection]:
    return connected_to(service.url)


@contextmanager
def connected_to(url: str) -> Iterator[Connection]:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as opened:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield Connection(opened)


def answers(service: Service, *pieces: bytes) -> list[tuple[int, Any]]:
    """All that comes back until the service closes."""
    with connected(service) as connection:
        connection.send(*pieces)
        return connection.answers()


def statuses(service: Service, *pieces: bytes) -> list[int]:
    return [status for status, _ in answers(service, *pieces)]


def closing(head: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join([head, *fields, b"Connection: close", b"", b""])


def chunks(body: bytes, *trailer: bytes) -> bytes:
    return b"%x\r\n%s\r\n0\r\n" % (len(body), body) + b"".join(line + b"\r\n" for line in trailer) + b"\r\n"


def credentials(address: str) -> bytes:
    """Of nobody."""
    return json.dumps({"email": address, "password": "not right"}).encode()
