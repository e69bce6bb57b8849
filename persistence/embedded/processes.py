"""Server processes that end when this process ends, however it ends."""

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

# How to end a server whose owner is gone. SIGQUIT is PostgreSQL's immediate shutdown, and right for its
# workers too when the postmaster was killed; what was committed is replayed at the next start.
_ENDINGS = {"postgres": signal.SIGQUIT, "valkey-server": signal.SIGTERM}


class EmbeddedError(RuntimeError):
    """A server cannot be started; the message says what to do, or ends with the last lines of its log."""


class ServerGroup:
    """A process group whose members get SIGINT when this process is gone, after kill -9 too.

    Ctrl-C in a terminal reaches the foreground group only, so the servers outlive the requests in progress.
    A pipe and not PR_SET_PDEATHSIG, which fires when the starting thread ends, and is for Linux only.
    """

    def __init__(self) -> None:
        # Nobody writes to the pipe this shell reads: `read` returns when the last writer, this process, is
        # gone. SIGINT then goes to the whole group; it is the orderly end the two servers have in common.
        self._leash = subprocess.Popen(
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
            self._leash.communicate(timeout=2)
        except subprocess.TimeoutExpired:  # a fork of this process still holds the pipe
            self._leash.kill()
            self._leash.wait()

    def run(self, command: list[str], log: Path, account: pwd.struct_passwd | None, text: str = "") -> None:
        """Run a program to its end with `text` as its input. EmbeddedError: it failed."""
        process = self._spawn(command, log, Path("/"), account, subprocess.PIPE)
        try:
            process.communicate(text.encode())
        except BaseException:  # a signal: whoever starts next must not meet it half done
            end(process)
            raise
        if process.returncode != 0:
            raise EmbeddedError(f"{command[0]} failed:\n{_last_lines(log)}")

    def serve(
        self,
        command: list[str],
        log: Path,
        folder: Path,
        ready: Callable[[], bool],
        account: pwd.struct_passwd | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a server in `folder`, return once it is ready. EmbeddedError: it ended, or took a minute."""
        process = self._spawn(command, log, folder, account, subprocess.DEVNULL)
        try:
            if not _within(60, lambda: process.poll() is not None or ready()):
                raise EmbeddedError(f"{command[0]} was not ready within a minute:\n{_last_lines(log)}")
            if process.returncode is not None:
                raise EmbeddedError(f"{command[0]} ended while starting:\n{_last_lines(log)}")
        except BaseException:
            end(process)
            raise
        return process

    def _spawn(
        self, command: list[str], log: Path, folder: Path, account: pwd.struct_passwd | None, stdin: int
    ) -> subprocess.Popen[bytes]:
        with open(log, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as output:
            return subprocess.Popen(  # noqa: S603 - the commands are this package's own
                command,
                stdin=stdin,
                stdout=output,
                stderr=output,
                cwd=folder,
                # Nothing of our own environment: there are secrets in it, PG* settings and a locale.
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
                user=account.pw_uid if account else None,
                group=account.pw_gid if account else None,
                extra_groups=[] if account else None,
                process_group=self._leash.pid,
            )


def end(process: subprocess.Popen[bytes]) -> None:
    """End a server in good order, or after ten seconds in any order."""
    for ending, patience in ((signal.SIGINT, 10), (signal.SIGQUIT, 3), (signal.SIGKILL, None)):
        process.send_signal(ending)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            return


def end_leftovers(*folders: Path) -> None:
    """End every server still at work in one of the folders. EmbeddedError: one survives even SIGKILL."""
    psutil: Any = importlib.import_module("psutil")  # comes with the PostgreSQL wheel, without types

    def servers() -> Iterator[tuple[str, Any]]:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):  # gone meanwhile, a zombie, or not ours to look at
                name = Path(process.exe()).name
                if name in _ENDINGS and Path(process.cwd()) in folders:
                    yield name, process

    for last_resort in (False, True):
        for name, process in servers():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL if last_resort else _ENDINGS[name])
        if _within(5, lambda: not any(servers())):
            return
    raise EmbeddedError(
        f"a server of an earlier start does not end; see the processes at work in {folders[0]}"
    )


def account_for(folder: Path) -> pwd.struct_passwd | None:
    """Who runs PostgreSQL, which refuses root: None for ourselves; for root the owner of `folder`, if any.

    Else a user for databases, made if there is none. Not `nobody`: other services run as that one, and could
    read the records. EmbeddedError: no user can be made.
    """
    if os.geteuid() != 0:
        return None
    if folder.exists() and (uid := folder.stat().st_uid) != 0:
        try:
            return pwd.getpwuid(uid)
        except KeyError:
            raise EmbeddedError(f"{folder} belongs to user {uid}, who is no more: choose another.") from None
    for name in ("medisecure-pg", "postgres"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    try:
        subprocess.run(
            ["/usr/sbin/useradd", "--system", "--shell", "/usr/sbin/nologin", "medisecure-pg"],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise EmbeddedError(
            f"PostgreSQL does not run as root, and no user can be made for it ({error}): "
            "start as an ordinary user, or set DATABASE_URL."
        ) from error
    return pwd.getpwnam("medisecure-pg")


def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])
