"""Lines of the log that are not of a request (contract, "The log")."""

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import asyncpg
import pytest

from api.http import logs
from api.http.logs import LogFormat, LogHandler, configure_logging
from tests.support.command import environment, settings_of
from tests.support.running import wait_until
from tests.support.service import Backend

SECRET = "Quatermass"


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """Gives what the process has written there, with a log as JSON."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logging(LogFormat.JSON)
    yield lambda: capsys.readouterr().err
    root.handlers[:] = handlers
    root.setLevel(level)


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def test_an_exception_leaves_its_class_and_its_stack_but_no_message(stderr: Callable[[], str]) -> None:
    error = raised(asyncpg.UniqueViolationError(f"Key (email)=({SECRET}) already exists."))
    logging.getLogger("uvicorn.error").error("Exception in ASGI application\n", exc_info=error)
    written = stderr()
    line = json.loads(written)
    assert (line["level"], line["message"]) == ("error", "Exception in ASGI application")
    assert line["stack"].endswith("UniqueViolationError 23505")
    assert "test_logs.py" in line["stack"]
    assert SECRET not in written


def test_of_a_librarys_message_only_the_template_stays(stderr: Callable[[], str]) -> None:
    logging.getLogger("asyncpg").warning("cannot store %s\nhere", SECRET)
    loop = asyncio.new_event_loop()
    loop.call_exception_handler({"message": "Task exception", "exception": raised(ValueError(SECRET))})
    loop.close()
    written = stderr()
    first, second = map(json.loads, written.splitlines())
    assert first["message"] == "cannot store %s"
    assert second["message"] == "Task exception"
    assert second["stack"].endswith("ValueError")
    assert SECRET not in written


def test_our_own_lines_after_the_first_are_the_stack(stderr: Callable[[], str]) -> None:
    logging.getLogger("medisecure.errors").error("GET /x: %s\n%s", "broken", "where")
    written = stderr()
    line = json.loads(written)
    assert (line["message"], line["stack"]) == ("GET /x: broken", "where")
    assert "request_id" not in line


def test_what_we_tell_of_ourselves_is_written_and_what_libraries_do_is_not(stderr: Callable[[], str]) -> None:
    logging.getLogger("asyncpg").info("Reading %s", SECRET)
    for name in ("medisecure.no_shows", "uvicorn"):
        logging.getLogger(name).info("Something has happened")
    lines = [json.loads(line) for line in stderr().splitlines()]
    assert [(line["logger"], line["level"]) for line in lines] == [
        ("medisecure.no_shows", "info"), ("uvicorn", "info"),
    ]  # fmt: skip


def test_what_nobody_caught_is_told_without_its_message(stderr: Callable[[], str]) -> None:
    error = raised(ValueError(SECRET))
    logs.log_uncaught(type(error), error, error.__traceback__)
    written = stderr()
    line = json.loads(written)
    assert (line["level"], line["message"]) == ("critical", "A defect ended this")
    assert line["stack"].endswith("ValueError")
    assert SECRET not in written


@pytest.mark.parametrize(
    ("name", "is_terminal", "chosen"),
    [
        (None, True, "text"),
        ("", True, "text"),
        (None, False, "json"),
        ("json", True, "json"),
        ("text", False, "text"),
    ],
)
def test_the_log_is_text_on_a_terminal_and_json_elsewhere(
    monkeypatch: pytest.MonkeyPatch, name: str | None, is_terminal: bool, chosen: str
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: is_terminal)
    monkeypatch.setattr("sys.stderr", screen)
    assert LogFormat.of(name) == chosen


WRITER = """
import os, sys, threading, warnings
from api.http.logs import LogFormat, configure_logging, log_uncaught_exceptions
import logging
log = configure_logging(LogFormat.TEXT)
log_uncaught_exceptions()
log.start()
{act}
log.stop()
"""


def run(act: str) -> "subprocess.CompletedProcess[str]":
    return run_python(WRITER.format(act=act))


def run_python(script: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    command, own = [sys.executable, "-c", script], environment(**settings)
    return subprocess.run(command, env=own, stderr=subprocess.PIPE, text=True, timeout=60, check=False)


def test_lines_come_in_order_and_none_is_lost_at_the_end() -> None:
    act = "for n in range(1000):\n    log.write(b'%d\\n' % n)\nlogging.getLogger('medisecure').error('last')"
    lines = run(act).stderr.splitlines()
    assert lines[:1000] == [str(n) for n in range(1000)]
    assert lines[1000].endswith("ERROR medisecure: last")
    assert len(lines) == 1001


def test_a_line_that_comes_after_the_end_is_written_at_once() -> None:
    assert run("log.stop()\nlog.write(b'late\\n')").stderr == "late\n"


def test_an_exception_of_a_thread_has_no_message_in_the_log() -> None:
    act = f"thread = threading.Thread(target=lambda: int('{SECRET}'))\nthread.start()\nthread.join()"
    written = run(act).stderr
    assert "CRITICAL medisecure: A defect ended this\n" in written
    assert written.rstrip().endswith("ValueError")
    assert f"invalid literal for int() with base 10: '{SECRET}'" not in written


def test_what_python_passes_over_and_its_warnings_have_no_message_in_the_log() -> None:
    act = f"""
class Broken:
    def __del__(self): int('{SECRET}')
Broken()
warnings.warn('{SECRET}')
"""
    first, *stack, second = run(act).stderr.splitlines()
    assert first.endswith("ERROR medisecure: A defect was passed over")
    assert stack[-1] == "ValueError"
    assert second.endswith("WARNING medisecure: UserWarning of Python at <string>:12")


def test_a_defect_of_a_command_has_no_message_in_the_log() -> None:
    """`serve` itself: of several workers it is the parent."""
    script = f"""
import sys
from api import __main__
from api.http import server
def broken(*_): raise ValueError('{SECRET}')
server.listen_on = broken
sys.argv = ["medisecure", "serve", "--workers", "2"]
__main__.main()
"""
    away = Backend("postgresql://nobody@127.0.0.1:1/x", "redis://127.0.0.1:1")
    failed = run_python(script, **settings_of(away, LOG_FORMAT="json"))
    assert failed.returncode == 1
    line = json.loads(failed.stderr.splitlines()[-1])
    assert (line["level"], line["message"]) == ("critical", "A defect ended this")
    assert SECRET not in failed.stderr


def test_a_defect_of_a_worker_has_no_message_in_the_log() -> None:
    script = f"""
from api.http.draining import DrainingConfig
from api.http.workers import Worker
config = DrainingConfig(lambda: int('{SECRET}'), factory=True, log_config=None, drain_seconds=0)
Worker(config, []).target([])
"""
    failed = run_python(script)
    assert failed.returncode == 1
    assert "CRITICAL medisecure: A defect ended this\n" in failed.stderr
    assert f"invalid literal for int() with base 10: '{SECRET}'" not in failed.stderr


def test_a_log_that_nobody_reads_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines beyond a bound are dropped, and counted."""
    reading, writing = os.pipe()
    monkeypatch.setattr(logs, "STDERR", writing)
    monkeypatch.setattr(logs, "MAX_WAITING_BYTES", 1_000_000)
    handler = LogHandler(LogFormat.JSON)
    handler.start()
    began = time.monotonic()
    for _ in range(3000):
        handler.write(b"x" * 999 + b"\n")
    assert time.monotonic() - began < 3
    assert 0 < handler.dropped < 3000
    received = []
    reader = threading.Thread(target=lambda: received.append(read_all(reading)))
    reader.start()
    wait_until(lambda: handler.waiting_bytes == 0, "everything is written")
    handler.stop()
    os.close(writing)
    reader.join()
    assert len(received[0]) == 1000 * (3000 - handler.dropped)


def read_all(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as opened:
        return opened.read()


def test_stderr_may_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.setattr(logs, "STDERR", writing)
    handler = LogHandler(LogFormat.JSON)
    handler.start()
    handler.write(b"lost\n")
    handler.stop()
    os.close(writing)
    assert (handler.waiting_bytes, handler.dropped) == (0, 1)


LONG = b"x" * 199_999 + b"\n"  # longer than a pipe takes at once


@pytest.mark.parametrize("is_blocking", [True, False])
def test_a_slow_reader_gets_every_line(monkeypatch: pytest.MonkeyPatch, is_blocking: bool) -> None:
    """Also what comes while the thread waits for them, just before the end; also where another process that
    has stderr does not want to be blocked by it."""
    reading, writing = os.pipe()
    os.set_blocking(writing, is_blocking)
    monkeypatch.setattr(logs, "STDERR", writing)
    handler = LogHandler(LogFormat.JSON)
    handler.start()
    handler.write(LONG)
    wait_until(lambda: not handler.waiting, "the thread has the line")
    handler.write(b"last\n")
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(read_all(reading)))
    threading.Timer(0.2, reader.start).start()
    handler.stop()
    os.close(writing)
    wait_until(lambda: received, "all of it")
    assert received == [LONG + b"last\n"]
    assert handler.dropped == 0
