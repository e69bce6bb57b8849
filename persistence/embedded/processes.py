"""Server processes that end when this process ends, however it ends."""

import contextlib
import importlib
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

START_SECONDS = 60  # that a server may take until it is ready
# How to stop a server whose starter is gone. SIGQUIT is PostgreSQL's immediate shutdown, and also the right
# one for its workers if the postmaster was killed; what was committed is replayed at the next start.
STOP_SIGNALS = {"postgres": signal.SIGQUIT, "valkey-server": signal.SIGTERM}
LEFTOVER_SECONDS = 5  # for such a server to stop, before SIGKILL
# Nothing of this process's environment: it has secrets in it, PG* settings and a locale.
EMPTY_ENVIRONMENT = MappingProxyType({"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"})
ACCOUNT = "medisecure-pg"  # the user that is made for PostgreSQL where root starts it


class EmbeddedError(RuntimeError):
    """A server cannot be started; the message says what to do, or ends with the last lines of its log."""


class ServerGroup:
    """A process group whose members get SIGINT when this process is gone, even after SIGKILL.

    Ctrl-C in a terminal reaches the foreground group only, so the servers outlive the requests in progress.
    A pipe, and not PR_SET_PDEATHSIG, which fires when the starting thread ends and exists on Linux only.
    """

    def __init__(self) -> None:
        # Nobody writes to the pipe that this shell reads: `read` returns when the last writer, this process,
        # is gone. SIGINT then goes to the whole group; both servers end in good order on it.
        self.watchdog = subprocess.Popen(
            ["/bin/sh", "-c", "trap '' INT; read -r _; kill -INT 0"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            process_group=0,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.watchdog.communicate(timeout=2)
        except subprocess.TimeoutExpired:  # a fork of this process still holds the pipe
            self.watchdog.kill()
            self.watchdog.wait()

    def run(self, command: list[str], log: Path, account: pwd.struct_passwd | None, text: str = "") -> None:
        """Run a program to its end with `text` as its input. EmbeddedError: it failed."""
        process = self.spawn(command, log, Path("/"), account, subprocess.PIPE)
        try:
            process.communicate(text.encode())
        except BaseException:  # a signal: the next start must not find the program still at work
            stop_process(process)
            raise
        if process.returncode != 0:
            raise EmbeddedError(f"{command[0]} failed:\n{last_lines(log)}")

    def serve(
        self,
        command: list[str],
        log: Path,
        folder: Path,
        is_ready: Callable[[], bool],
        account: pwd.struct_passwd | None = None,
        seconds: float | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a server in `folder`, and return once it is ready. EmbeddedError: it ended, or took longer
        than `seconds`, or START_SECONDS."""
        seconds = START_SECONDS if seconds is None else seconds
        process = self.spawn(command, log, folder, account, subprocess.DEVNULL)
        try:
            if not wait_for(lambda: process.poll() is not None or is_ready(), seconds):
                raise EmbeddedError(f"{command[0]} was not ready within {seconds:g} s:\n{last_lines(log)}")
            if process.returncode is not None:
                raise EmbeddedError(f"{command[0]} ended while starting:\n{last_lines(log)}")
        except BaseException:
            stop_process(process)
            raise
        return process

    def spawn(
        self,
        command: list[str],
        log: Path,
        folder: Path,
        account: pwd.struct_passwd | None,
        stdin: int,
        environment: Mapping[str, str] = EMPTY_ENVIRONMENT,
    ) -> subprocess.Popen[bytes]:
        with open(log, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as output:
            return subprocess.Popen(  # noqa: S603 - the commands are this package's own
                command,
                stdin=stdin,
                stdout=output,
                stderr=output,
                cwd=folder,
                env=environment,
                user=account.pw_uid if account else None,
                group=account.pw_gid if account else None,
                extra_groups=[] if account else None,
                process_group=self.watchdog.pid,
            )


def stop_process(process: subprocess.Popen[bytes]) -> None:
    """Stop a server by SIGINT; if it still runs after ten seconds by SIGQUIT, and at last by SIGKILL."""
    attempts = ((signal.SIGINT, 10), (signal.SIGQUIT, 3), (signal.SIGKILL, None))
    for number, timeout in attempts:  # pragma: no branch  # the last one waits without an end
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout)
            return


def stop_leftovers(*folders: Path) -> None:
    """Stop every server that still works in one of the folders. EmbeddedError: one survives even SIGKILL."""
    psutil: Any = importlib.import_module("psutil")  # comes with the PostgreSQL wheel, without types

    def servers() -> Iterator[tuple[str, Any]]:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):  # it has ended, or belongs to another user
                name = Path(process.exe()).name
                if name in STOP_SIGNALS and Path(process.cwd()) in folders:
                    yield name, process

    for is_last_attempt in (False, True):
        for name, process in servers():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL if is_last_attempt else STOP_SIGNALS[name])
        if wait_for(lambda: not any(servers()), LEFTOVER_SECONDS):
            return
    raise EmbeddedError(  # pragma: no cover  # what survives SIGKILL is stuck in the kernel
        f"a server of an earlier start does not end; see the processes at work in {folders[0]}"
    )


def postgres_account(folder: Path) -> pwd.struct_passwd | None:
    """The user who runs PostgreSQL: None for the one who runs this process. PostgreSQL refuses root, so that
    root needs another one: the owner of `folder`, or else a user for databases, made if there is none. Not
    `nobody`, because other services run as that user, and could read the records. EmbeddedError: no user can
    be made."""
    if os.geteuid() != 0:
        return None  # pragma: no cover  # root runs the measured tests
    if folder.exists() and (uid := folder.stat().st_uid) != 0:
        try:
            return pwd.getpwuid(uid)
        except KeyError:
            raise EmbeddedError(f"{folder} belongs to user {uid}, who is no more: choose another.") from None
    for name in (ACCOUNT, "postgres"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    make_postgres_account()  # pragma: no cover  # only at root's first start on a machine
    return pwd.getpwnam(ACCOUNT)  # pragma: no cover  # as above


def make_postgres_account() -> None:  # pragma: no cover  # as above, and it changes the machine
    """EmbeddedError: it cannot be made."""
    try:
        subprocess.run(  # noqa: S603 - nothing in it comes from outside
            ["/usr/sbin/useradd", "--system", "--shell", "/usr/sbin/nologin", ACCOUNT],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise EmbeddedError(
            f"PostgreSQL does not run as root, and no user can be made for it ({error}): "
            "start as an ordinary user, or set DATABASE_URL."
        ) from error


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until the condition is true. False: it was not within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def last_lines(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])
