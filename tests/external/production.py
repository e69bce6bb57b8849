"""`medisecure serve` and the commands as an operator runs them: nothing in the environment but settings."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from running import SHUTDOWN, STARTUP, free_port, is_ready

MEDISECURE = str(Path(sys.executable).with_name("medisecure"))
KEY = "a-key-for-tests-only-0123456789-0123456789"


def medisecure(
    environment: Mapping[str, str], *arguments: str, stdin: str = ""
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [MEDISECURE, *arguments],
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@contextmanager
def served(environment: Mapping[str, str], log: Path, workers: int = 1) -> Iterator[str]:
    """The URL of `medisecure serve`, once it is ready."""
    port = free_port()
    with log.open("w") as output:
        process = subprocess.Popen(
            [MEDISECURE, "serve", "--port", str(port), "--workers", str(workers)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        url = f"http://localhost:{port}"
        deadline = time.monotonic() + STARTUP
        while not is_ready(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"`medisecure serve` did not get ready:\n{log.read_text()}")
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(SHUTDOWN)
