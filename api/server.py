"""The HTTP server, uvicorn, as we run it."""

import errno
import re
import socket
from collections.abc import Sequence
from types import FrameType
from typing import Any

import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.edge import SECURITY
from api.schemas import ErrorDetail
from api.settings import Settings

UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
GRACE = 10  # seconds for requests under way when the server stops


class JsonProtocol(HttpToolsProtocol):
    """What the parser cannot read never reaches the application; its answer is an ErrorDetail all the same.

    An `Upgrade`, which curl and Java send to try HTTP/2, is ignored, as RFC 9110, 7.8 allows. httptools would
    drop the body of such a request and take it for the next one: where the header is not seen in time,
    because the request comes in pieces, it is refused.
    """

    in_message = False

    def data_received(self, data: bytes) -> None:
        if not self.in_message and UPGRADE.search(data):
            head, end, body = data.partition(b"\r\n\r\n")
            data = UPGRADE.sub(b"\r\nX-Ignored:", head) + end + body
        super().data_received(data)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            self.send_400_response("Upgrade")
            return
        super().on_headers_complete()

    def on_message_begin(self) -> None:
        self.in_message = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self.in_message = False
        if not self.transport.is_closing():
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        body = msgspec.json.encode(ErrorDetail("Invalid HTTP request"))
        head = {
            b"content-type": b"application/json",
            b"content-length": b"%d" % len(body),
            **SECURITY,
            b"connection": b"close",
        }
        lines = [b"HTTP/1.1 400 Bad Request", *(name + b": " + value for name, value in head.items())]
        self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        self.transport.close()


def options(settings: Settings) -> dict[str, Any]:
    """uvicorn's options: quiet about itself, no query string in any log (it holds patients' names), and
    X-Forwarded-For believed from the trusted proxies alone."""
    return {
        "http": JsonProtocol,
        "ws": "none",
        "access_log": False,
        "server_header": False,
        "proxy_headers": bool(settings.trusted_proxies),
        "forwarded_allow_ips": list(settings.trusted_proxies),
        "timeout_graceful_shutdown": GRACE,
    }


def loopback(port: int) -> Sequence[socket.socket]:
    """Listening sockets on localhost, for IPv4 and, where the machine has it, IPv6; `port` 0 takes a free
    one. OSError: the port is taken, on either."""
    ipv4 = listen(socket.AF_INET, "127.0.0.1", port)
    try:
        return [ipv4, listen(socket.AF_INET6, "::1", ipv4.getsockname()[1])]
    except OSError as error:
        if error.errno != errno.EADDRINUSE:  # no IPv6 here
            return [ipv4]
        ipv4.close()
        if port == 0:
            return loopback(0)
        raise


def listen(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()  # from here on the port is ours: without it, SO_REUSEADDR lets a second one in
    except OSError:
        listener.close()
        raise
    listener.set_inheritable(True)
    return listener


class PatientServer(uvicorn.Server):
    """A second signal changes nothing: the first one's stop takes at most GRACE, and ends in good order."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            super().handle_exit(sig, frame)


def server_for(app: Any, settings: Settings) -> uvicorn.Server:
    """A server of one process for `app`; `run(sockets)` it."""
    return PatientServer(uvicorn.Config(app, log_level="warning", **options(settings)))


def serve(settings: Settings, host: str, port: int, workers: int) -> None:
    """Serve until a signal stops it; each worker reads its settings from the environment."""
    uvicorn.run(
        "api.app:from_environment", factory=True, host=host, port=port, workers=workers, **options(settings)
    )
