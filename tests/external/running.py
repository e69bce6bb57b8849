"""The service as a user starts it, and a browser that can reach nothing else."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

ADMIN = {"email": "admin@example.com", "password": "medisecure-demo"}
STARTUP = 120  # seconds; a first start makes a database
SHUTDOWN = 30


@contextmanager
def service(folder: Path) -> Iterator[str]:
    """The base URL of `medisecure dev` on a free port, with new servers and a log of its own in `folder`."""
    port, log = free_port(), folder / "log"
    medisecure = Path(sys.executable).with_name("medisecure")
    environment = {
        name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "REDIS_URL"}
    }
    with log.open("w") as output:
        process = subprocess.Popen(
            [medisecure, "dev", "--port", str(port), "--data-dir", str(folder / "data")],
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
                raise RuntimeError(f"`medisecure dev` did not get ready:\n{log.read_text()}")
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(SHUTDOWN)


def free_port() -> int:
    with socket.create_server(("localhost", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", trust_env=False).is_success
    except httpx.TransportError:
        return False


@contextmanager
def browser() -> Iterator[Browser]:
    """The system's Chromium without a window, for which every name but localhost is unknown."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise RuntimeError("Chromium is missing; on Debian `apt-get install chromium` brings it")
    blocked = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost"
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=[blocked]) as launched,
    ):
        yield launched


def open_reference(page: Page, url: str) -> None:
    """Load /docs and wait until the last operation is drawn."""
    page.goto(f"{url}/docs")
    page.locator("#operations-Contract-getDocs").wait_for()
