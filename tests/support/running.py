"""`medisecure` in a process that serves until it is stopped."""

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import psutil

from persistence import demo
from tests.support.client import Browser
from tests.support.command import COMMAND, environment

WAIT_SECONDS = 60


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Return once the condition holds. AssertionError: it did not within WAIT_SECONDS."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {WAIT_SECONDS} seconds"
        time.sleep(0.02)


def is_running(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def processes_in(folder: Path) -> list[psutil.Process]:
    """Every process whose command line or working folder is in the data folder, or in root's part of it."""
    places = {str(folder), str((folder / "servers").resolve())}
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(place in text for place in places for text in [*process.cmdline(), process.cwd()]):
                found.append(process)
    return [process for process in found if is_running(process)]


def names_of(processes: list[psutil.Process]) -> set[str]:
    return {process.name() for process in processes}


def free_port() -> int:
    """A port that was free just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@dataclass
class Running:
    """The process of a command, what it has printed, and the processes that it has started."""

    process: "subprocess.Popen[bytes]"
    output: Path
    url: str = ""

    def printed(self) -> str:
        return self.output.read_text()

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def answers(self, path: str) -> bool:
        """Whether GET on the path is 200; AssertionError: the process has ended."""
        assert self.process.poll() is None, self.printed()
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}{path}").status_code == 200
        return False

    def wait_until_alive(self) -> None:
        wait_until(lambda: self.answers("/health/live"), "an answer")

    def wait_until_ready(self) -> None:
        wait_until(lambda: self.answers("/health/ready"), "readiness")

    def browser(self, address: str = "", password: str = demo.PASSWORD) -> Browser:
        """A browser in which the account has signed in."""
        browser = Browser(self.url)
        if address:
            answer = browser.login(address, password)
            assert answer.status_code == 200, answer.text
        return browser

    def stop(self, number: signal.Signals) -> int:
        """Send the signal to the whole group, as Ctrl-C does; returns the exit status."""
        os.killpg(self.process.pid, number)
        return self.process.wait(WAIT_SECONDS)


@contextmanager
def started(arguments: list[str], output: Path, settings: dict[str, str], cwd: Path) -> Iterator[Running]:
    """The command with these arguments; it is stopped at the end of the block."""
    with open(output, "wb") as opened:
        process = subprocess.Popen(
            [COMMAND, *arguments],
            env=environment(**settings),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=opened,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    try:
        yield Running(process, output)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(WAIT_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def serving(folder: Path, *options: str, **settings: str) -> Iterator[Running]:
    """`medisecure serve` on a free port, with its log in this folder; it may not answer yet."""
    port = free_port()
    arguments = ["serve", "--port", str(port), *options]
    with started(arguments, folder / "serve.log", settings, folder) as running:
        running.url = f"http://localhost:{port}"
        yield running


@contextmanager
def dev(folder: Path, **settings: str) -> Iterator[Running]:
    """`medisecure dev` on this data folder and a free port, once it is ready."""
    output = folder.with_name(f"{uuid4().hex[:6]}.log")
    data_dir = [] if folder.name == ".medisecure" else ["--data-dir", str(folder)]  # or the default
    arguments = ["dev", "--port", "0", *data_dir]
    with started(arguments, output, settings, folder.parent) as running:

        def is_welcoming() -> bool:
            assert running.process.poll() is None, running.printed()
            welcome = re.search(r"MediSecure is at (http://localhost:\d+),", running.printed())
            running.url = welcome[1] if welcome else ""
            return bool(welcome)

        wait_until(is_welcoming, "the welcome")
        running.wait_until_ready()
        yield running
