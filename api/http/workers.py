"""Several processes that serve on the same sockets."""

import contextlib
import os
import signal
import socket
import sys
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess, multiprocess

from api.http.draining import DrainingConfig, DrainingServer
from api.http.logs import LogFormat, configure_logging, log_uncaught, log_uncaught_exceptions


class Worker(multiprocess.Process):
    """It ends when its parent does, of whatever the parent died: then nobody is left at the other end of the
    pipe through which uvicorn asks whether the worker lives. That works on every system, and also for a
    worker that was still starting."""

    config: DrainingConfig

    def __getstate__(self) -> dict[str, Any]:  # Any: attributes
        """What the child gets. It must not hold the parent's end of the pipe."""
        return {name: value for name, value in self.__dict__.items() if name != "parent_conn"}

    @property
    def server(self) -> uvicorn.Server:
        if self._server is None:
            self._server = DrainingServer(self.config)
        return self._server

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        """In the worker. What ends it is in the log; multiprocessing would print its message."""
        configure_logging(LogFormat.of(os.environ.get("LOG_FORMAT")))
        log_uncaught_exceptions()
        try:
            super().target(sockets)
        except Exception as error:
            log_uncaught(type(error), error, error.__traceback__)
            sys.exit(1)  # and another worker takes its place

    def always_pong(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            super().always_pong()
        if self._server is None or not self._server.started:  # pragma: no cover  # ends unmeasured
            os._exit(STARTUP_FAILURE)  # an exception in the main thread, such as SIGINT raises, may be lost
        os.kill(os.getpid(), signal.SIGINT)

    def terminate(self) -> None:
        """As uvicorn's, but the pipe stays until the worker has ended."""
        self.send(signal.SIGTERM)

    def send(self, number: int) -> None:
        if self.process.pid is not None and self.process.exitcode is None:
            os.kill(self.process.pid, number)

    def join(self) -> None:
        super().join()
        self.parent_conn.close()
        self.child_conn.close()


multiprocess.Process = Worker  # type: ignore[misc]  # by this name Multiprocess makes each of its workers


class Workers(Multiprocess):
    """The parent. It passes signals on at once, because uvicorn's looks at them twice a second only, and a
    worker that does not know yet says that the service is ready."""

    processes: list[Worker]  # type: ignore[assignment]  # of our own kind

    def __init__(self, config: DrainingConfig, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.pass_on)

    def pass_on(self, number: int, frame: FrameType | None) -> None:
        for process in self.processes:
            process.send(number)
        self.signal_queue.append(number)

    def terminate_all(self) -> None:
        """The workers alone hold the sockets now, so that nobody gets in once the last has closed them."""
        for listener in self.sockets:
            listener.close()
        super().terminate_all()
