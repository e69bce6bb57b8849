"""Servers as child processes that end when this process ends, however it ends."""

import contextlib
import importlib
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

# Nobody ever writes to the pipe this shell reads: `read` returns when the last writer, our process, is gone.
# SIGINT then goes to the shell's own group; it is the orderly end that PostgreSQL and Valkey have in common.
_LEASH = "trap '' INT; read -r _; kill -INT 0"

# How to end a server whose owner is gone. SIGQUIT is PostgreSQL's immediate shutdown, right for each of its processes
# even when the postmaster is no more; what was committed is replayed at the next start.
_ENDINGS = {"postgres": signal.SIGQUIT, "valkey-server": signal.SIGTERM}


class EmbeddedError(RuntimeError):
    """A server could not be started; the message says what to do, or ends with the last lines of its log."""


class ServerGroup:
    """A process group whose members get SIGINT when this process is gone, after kill -9 too.

    Ctrl-C in a terminal reaches the foreground group only, so the servers outlive the requests still being answered.
    A pipe and not PR_SET_PDEATHSIG, which fires when the starting thread ends, and exists on Linux only.
    """

    def __init__(self) -> None:
        quiet = subprocess.DEVNULL
        self._leash = subprocess.Popen(
            ["/bin/sh", "-c", _LEASH], stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, cwd="/", process_group=0
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._leash.communicate(timeout=2)
        except subprocess.TimeoutExpired:  # a fork of this process still holds the pipe
            self._leash.kill()
            self._leash.wait()

    def spawn(
        self, command: list[str], log: Path, cwd: Path, owner: pwd.struct_passwd | None, stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        """Start a member that writes to `log`, as `owner` or, for None, as ourselves."""
        with log.open("ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as output:
            return subprocess.Popen(
                command,
                stdin=stdin,
                stdout=output,
                stderr=output,
                cwd=cwd,
                # Nothing of our own environment: secrets, PG* settings and locales are in it.
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
                user=owner.pw_uid if owner else None,
                group=owner.pw_gid if owner else None,
                extra_groups=[] if owner else None,
                process_group=self._leash.pid,
            )

    def run(self, command: list[str], log: Path, cwd: Path, owner: pwd.struct_passwd | None, text: str = "") -> None:
        """Run a member to its end with `text` as its input. EmbeddedError: it failed."""
        process = self.spawn(command, log, cwd, owner, subprocess.PIPE)
        process.communicate(text.encode())
        if process.returncode != 0:
            raise EmbeddedError(f"{command[0]} failed:\n{_last_lines(log)}")

    def serve(
        self, command: list[str], log: Path, cwd: Path, owner: pwd.struct_passwd | None, ready: Callable[[], bool]
    ) -> subprocess.Popen[bytes]:
        """Start a member and return it once `ready()`. EmbeddedError: it ended instead, or took over a minute."""
        process = self.spawn(command, log, cwd, owner)
        try:
            if not _within(60, lambda: process.poll() is not None or ready()):
                raise EmbeddedError(f"{command[0]} was not ready within a minute:\n{_last_lines(log)}")
            if process.returncode is not None:
                raise EmbeddedError(f"{command[0]} ended while starting:\n{_last_lines(log)}")
        except BaseException:
            end(process)
            raise
        return process


def end(process: subprocess.Popen[bytes]) -> None:
    """End a server in good order, or after ten seconds in any order."""
    for ending, patience in ((signal.SIGINT, 10), (signal.SIGQUIT, 3), (signal.SIGKILL, None)):
        process.send_signal(ending)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            return


def end_leftovers(*folders: Path) -> None:
    """End every server still working in one of the folders. EmbeddedError: one survives even SIGKILL."""
    psutil: Any = importlib.import_module("psutil")  # comes with the PostgreSQL wheel, without types

    def servers() -> Iterator[tuple[str, Any]]:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):  # gone meanwhile, a zombie, or not ours to look at
                if (name := Path(process.exe()).name) in _ENDINGS and Path(process.cwd()) in folders:
                    yield name, process

    for kill in (False, True):
        for name, process in servers():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL if kill else _ENDINGS[name])
        if _within(5, lambda: not any(servers())):
            return
    raise EmbeddedError(f"A server from an earlier start does not end, see the processes in {folders[0]}")


def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])
