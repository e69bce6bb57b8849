"""The HTTP server: uvicorn, as we run it."""

import contextlib
import errno
import gc
import logging
import resource
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv6Address
from typing import Any

from litestar.types import ASGIApp
from uvicorn.config import STARTUP_FAILURE

from api.http.draining import DrainingConfig, DrainingServer
from api.http.protocol import StrictProtocol
from api.http.workers import Workers

SHUTDOWN_TIMEOUT_SECONDS = 10  # for requests under way when the server stops
OPEN_FILES = 65536  # for connections; many systems give a process 1,024, and let it take more
WORKER_START_SECONDS = 60  # after which a worker that says nothing is replaced; 5 kill one that still imports


@dataclass(frozen=True)
class Timeouts:
    """`keep_alive_seconds`: how long an idle connection stays open. `body_seconds`: as StrictProtocol's
    `body_timeout`. `drain_seconds`: how long the service is still there after SIGTERM (DrainingServer)."""

    keep_alive_seconds: int
    body_seconds: int
    drain_seconds: int


def uvicorn_options(timeouts: Timeouts) -> dict[str, Any]:  # Any: each option has a type of its own
    """No access log, because query strings hold patients' names. No proxy headers, because
    api/http/proxies.py decides which of them to trust."""
    return {
        "http": partial(StrictProtocol, body_timeout=timeouts.body_seconds),
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "timeout_keep_alive": timeouts.keep_alive_seconds,
        "timeout_graceful_shutdown": SHUTDOWN_TIMEOUT_SECONDS,
        "drain_seconds": timeouts.drain_seconds,
        "timeout_worker_healthcheck": WORKER_START_SECONDS,
    }


def listen_on_loopback(port: int) -> Sequence[socket.socket]:
    """Listening sockets on localhost, for IPv4 and, if the machine has it, IPv6. `port` 0 takes a free one.
    Raises OSError if the port is taken on either."""
    ipv4 = open_listener(socket.AF_INET, "127.0.0.1", port)
    try:
        return [ipv4, open_listener(socket.AF_INET6, "::1", ipv4.getsockname()[1])]
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return [ipv4]  # pragma: no cover  # only on a machine without IPv6
        ipv4.close()
        if port == 0:
            return listen_on_loopback(0)  # pragma: no cover  # only if IPv6 has the free port of IPv4 in use
        raise


def listen_on(host: str, port: int) -> list[socket.socket]:
    """Listening sockets on every address of `host`, all with one port; `::` takes IPv4 as well. Raises
    OSError if there is no such host or the port is not free."""
    if is_any_address(host):
        return [open_listener(socket.AF_INET6, "::", port, accepts_ipv4=True)]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners: list[socket.socket] = []
    try:
        for family, *_, address in dict.fromkeys(found):
            listeners.append(open_listener(family, str(address[0]), port))
            port = listeners[0].getsockname()[1]
    except OSError:
        for listener in listeners:
            listener.close()  # pragma: no cover  # only if `host` has several addresses
        raise
    return listeners


def is_any_address(host: str) -> bool:
    try:
        return IPv6Address(host).is_unspecified
    except ValueError:
        return False


def open_listener(
    family: socket.AddressFamily, host: str, port: int, *, accepts_ipv4: bool = False
) -> socket.socket:
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not accepts_ipv4)
        listener.bind((host, port))
        listener.listen()  # now, because until then SO_REUSEADDR lets another process bind the same port
    except OSError:
        listener.close()
        raise
    listener.set_inheritable(True)
    return listener


def raise_file_limit() -> None:
    """Let this process, and its workers, have as many connections open as the system lets it: each of those
    who listen to changes holds one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def server_for(app: ASGIApp, timeouts: Timeouts) -> DrainingServer:
    """A server for `app` in this process; call `run(sockets)`."""
    return DrainingServer(DrainingConfig(app, log_level="warning", **uvicorn_options(timeouts)))


def serve(sockets: list[socket.socket], workers: int, timeouts: Timeouts) -> None:
    """Serve on `sockets` until a signal says to stop. Each worker reads its settings from the environment."""
    raise_file_limit()
    config = DrainingConfig(
        "api.app:from_environment", factory=True, workers=workers, **uvicorn_options(timeouts)
    )
    for listener in sockets:
        host, port, *_ = listener.getsockname()
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        logging.getLogger("uvicorn.error").info("MediSecure is at http://%s", place)
    if workers > 1:
        Workers(config, sockets).run()
        return
    server = DrainingServer(config)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets)
    if not server.started:
        sys.exit(STARTUP_FAILURE)  # pragma: no cover  # only if the signal comes before the service is up


def freeze_garbage_collector() -> None:
    """Exempt all that exists from garbage collection. It stays as long as the process, and to walk over it
    takes a tenth of a second, in which no request is answered."""
    gc.collect()
    gc.freeze()
