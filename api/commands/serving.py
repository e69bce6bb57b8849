"""`medisecure serve`: the service in production, also while PostgreSQL or Redis cannot be reached yet."""

import argparse
import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

from api.commands.checks import UnreachableError, find_problem
from api.commands.environment import CommandError
from api.http import server
from api.http.exposition import metrics_listener
from api.http.metrics import PROCESS_REGISTRY, shared, shared_folder
from api.settings import Settings, find_misspelt_names

RETRY_SECONDS = 1.0  # between two attempts to reach both servers
log = logging.getLogger("medisecure.start")


def serve(arguments: argparse.Namespace) -> None:
    settings = Settings.read()
    for name, meant in find_misspelt_names(os.environ).items():
        log.warning("%s is no setting; perhaps %s is meant", name, meant)
    with checked_servers(settings, arguments.workers), told_metrics(settings, arguments):
        try:
            sockets = server.listen_on(arguments.host, arguments.port)
        except (OSError, UnicodeError) as error:
            raise cannot_listen(error, arguments.host, arguments.port, "--port") from error
        server.serve(sockets, arguments.workers, settings.timeouts)


def cannot_listen(error: OSError | UnicodeError, host: str, port: int, chosen_by: str) -> CommandError:
    """`chosen_by`: what an operator can change instead of the host."""
    reason = getattr(error, "strerror", None) or "it is no name of a host"
    return CommandError(f"cannot listen on {host} at port {port} ({reason}); try --host or {chosen_by}")


@contextmanager
def told_metrics(settings: Settings, arguments: argparse.Namespace) -> Iterator[None]:
    """Answer on METRICS_PORT within this block, for all workers."""
    with ExitStack() as stack:
        registry = PROCESS_REGISTRY
        if settings.has_metrics and arguments.workers > 1:
            registry = shared(stack.enter_context(shared_folder()))
        if settings.metrics_port is not None:
            host, port = arguments.host, settings.metrics_port
            try:
                stack.enter_context(metrics_listener(host, port, registry))
            except (OSError, UnicodeError) as error:
                raise cannot_listen(error, host, port, "METRICS_PORT") from error
        yield


@contextmanager
def checked_servers(settings: Settings, workers: int) -> Iterator[None]:
    """Serve within this block. Raises CommandError, before or after it, if the service must not run on its
    PostgreSQL and Redis. A server that cannot be reached is waited for; until then /health/ready is 503 for
    PostgreSQL, and degraded for Redis."""
    try:
        problem = asyncio.run(find_problem(settings, workers))
    except UnreachableError as unreachable:
        meanwhile = "/health/ready is 503" if unreachable.is_needed else "people can sign in and work"
        log.warning("%s. Waiting for it; %s meanwhile", unreachable, meanwhile)
        watcher = ServerWatcher(settings, workers)
        signal.signal(signal.SIGTERM, watcher.handle_sigterm)
        watcher.start()
        yield
        problem = watcher.problem
    else:
        if problem is None:
            yield
    if problem:
        raise CommandError(problem)


class ServerWatcher(threading.Thread):
    """Checks both servers as soon as they can be reached. If the service must not run on them, ends this
    process and its workers as SIGTERM does, and leaves the reason in `problem`."""

    problem: str | None = None

    def __init__(self, settings: Settings, workers: int) -> None:
        super().__init__(daemon=True)
        self.settings = settings
        self.workers = workers

    def run(self) -> None:
        while True:
            time.sleep(RETRY_SECONDS)
            try:
                self.problem = asyncio.run(find_problem(self.settings, self.workers))
            except UnreachableError:
                continue
            break
        if self.problem:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            log.warning("PostgreSQL and Redis are there")

    def handle_sigterm(self, number: int, frame: FrameType | None) -> None:
        """Called once uvicorn has stopped, which then raises the signal again."""
        if self.problem:
            raise CommandError(self.problem)
        signal.signal(number, signal.SIG_DFL)  # pragma: no cover  # ends the process, unmeasured
        signal.raise_signal(number)  # pragma: no cover  # as above
