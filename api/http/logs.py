"""The log: each event a line on stderr, as JSON for machines or as text for people on a terminal.

No line holds what a request carried: PostgreSQL's messages quote values, so an exception leaves its class and
its stack, and a library's message its first line without what was put into it.
"""

import logging
import os
import select
import sys
import threading
import time
import traceback
import warnings
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from types import TracebackType
from typing import TextIO
from uuid import UUID

import msgspec
from msgspec import Struct

from persistence.postgres.failures import kind_of

BATCH_SECONDS = 0.05  # for which lines wait for others, so that many are written at once
MAX_WAITING_BYTES = 8 * 1024 * 1024  # of lines, while nobody reads stderr; what comes beyond is dropped
FLUSH_SECONDS = 2.0  # that the end of the process waits for somebody to read stderr
STDERR = 2
OURS = ("medisecure", "uvicorn")  # whose messages hold no values but those that we chose
encode = msgspec.json.Encoder().encode


class LogFormat(StrEnum):
    JSON = "json"
    TEXT = "text"

    @classmethod
    def of(cls, name: str | None) -> "LogFormat":
        """By default, text where a person reads it."""
        if name is not None and name in {*cls}:
            return cls(name)
        return cls.TEXT if sys.stderr.isatty() else cls.JSON


class EventLine(Struct, omit_defaults=True):
    """`stack`: where an exception came from, and its class. `request_id`: if it is about one request."""

    time: datetime
    level: str
    logger: str
    message: str
    request_id: UUID | None = None
    stack: str | None = None

    @classmethod
    def of(cls, record: logging.LogRecord) -> "EventLine":
        message, _, stack = message_of(record).strip().partition("\n")
        if record.exc_info and record.exc_info[1]:
            stack = format_traceback(record.exc_info[1])
        return cls(
            datetime.fromtimestamp(record.created, UTC),
            record.levelname.lower(),
            record.name,
            message,
            getattr(record, "request_id", None),
            stack or None,
        )


def message_of(record: logging.LogRecord) -> str:
    """Ours, as it is, with the stack in its further lines."""
    name = record.name.partition(".")[0]
    if name == "medisecure":
        return record.getMessage()
    message = record.getMessage() if name in OURS else str(record.msg)
    return message.strip().partition("\n")[0]


def format_traceback(error: BaseException) -> str:
    """Where it happened and which kind it is, without its message: PostgreSQL's messages quote values."""
    return f"{''.join(traceback.format_tb(error.__traceback__))}{kind_of(error)}"


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return encode(EventLine.of(record)).decode()


class TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = EventLine.of(record)
        stack = f"\n{line.stack}" if line.stack else ""
        return f"{self.formatTime(record)} {record.levelname} {record.name}: {line.message}{stack}"


class LogHandler(logging.Handler):
    """Writes to stderr: between `start` and `stop` from a thread, so that neither a slow disk nor a reader
    that has stopped holds up a request. What nobody reads is dropped in the end, and counted."""

    def __init__(self, format: LogFormat) -> None:
        super().__init__()
        self.log_format = format
        self.setFormatter(JsonFormatter() if format is LogFormat.JSON else TextFormatter())
        self.dropped = 0  # lines
        self.waiting: list[bytes] = []
        self.waiting_bytes = 0
        self.counting = threading.Lock()  # for these three, which several threads change
        self.wake = threading.Event()
        self.is_idle = threading.Event()
        self.is_started = False

    def emit(self, record: logging.LogRecord) -> None:
        self.write(f"{self.format(record)}\n".encode(errors="backslashreplace"))

    def write(self, line: bytes) -> None:
        """Has the line written behind those before it: soon, or, where no thread does that, at once."""
        if not self.is_started:
            with suppress(OSError):  # nobody will ever read it
                print(line.decode(), end="", file=sys.stderr, flush=True)
            return
        with self.counting:
            if self.waiting_bytes > MAX_WAITING_BYTES:
                self.dropped += 1
                return
            self.waiting.append(line)
            self.waiting_bytes += len(line)
        if not self.wake.is_set():
            self.wake.set()

    def start(self) -> None:
        self.is_started = True
        self.is_idle.clear()
        threading.Thread(target=self.run, name="log", daemon=True).start()

    def stop(self) -> None:
        """Later lines are written at once."""
        self.is_started = False
        self.wake.set()
        self.is_idle.wait(FLUSH_SECONDS)

    def run(self) -> None:
        while self.is_started:
            self.wake.wait()
            if self.is_started:
                time.sleep(BATCH_SECONDS)
            self.wake.clear()
            self.write_waiting()
        self.write_waiting()  # what came while the last lines were being written
        self.is_idle.set()

    def write_waiting(self) -> None:
        with self.counting:
            lines, self.waiting, self.waiting_bytes = self.waiting, [], 0
        try:
            write_to_stderr(b"".join(lines))
        except OSError:  # nobody will ever read it
            with self.counting:
                self.dropped += len(lines)


def write_to_stderr(text: bytes) -> None:
    rest = memoryview(text)
    while rest:
        try:
            rest = rest[os.write(STDERR, rest) :]
        except BlockingIOError:  # another process that writes there wants it so
            select.select((), (STDERR,), ())


def configure_logging(format: LogFormat) -> LogHandler:
    """Send every log of this process to one handler."""
    handler = LogHandler(format)
    root = logging.getLogger()
    for other in [each for each in root.handlers if isinstance(each, LogHandler)]:
        root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name in OURS:
        logging.getLogger(name).setLevel(logging.INFO)
    return handler


def log_uncaught_exceptions() -> None:
    """In the place of Python, which would print their messages, as those of its warnings."""
    sys.excepthook = log_uncaught
    threading.excepthook = lambda failed: log_uncaught(
        failed.exc_type, failed.exc_value or failed.exc_type(), failed.exc_traceback
    )
    sys.unraisablehook = lambda failed: logging.getLogger("medisecure").error(
        "A defect was passed over", exc_info=failed.exc_value
    )
    warnings.showwarning = log_warning


def log_uncaught(kind: type[BaseException], error: BaseException, stack: TracebackType | None) -> None:
    logging.getLogger("medisecure").critical("A defect ended this", exc_info=(kind, error, stack))


def log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    logging.getLogger("medisecure").warning("%s of Python at %s:%s", category.__name__, filename, lineno)
