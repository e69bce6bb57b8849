"""The service as a user starts it, and a browser that can reach nothing else."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

ADMIN = {"email": "admin@example.com", "password": "medisecure-demo"}
STARTUP = 120  # seconds; a first start makes a database
SHUTDOWN = 30


@contextmanager
def service(data_dir: Path) -> Iterator[str]:
    """The base URL of `medisecure dev` on a free port, with its own database in `data_dir`."""
    port = free_port()
    command = Path(sys.executable).with_name("medisecure")
    environment = {
        name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "REDIS_URL"}
    }
    arguments = [command, "dev", "--port", str(port), "--data-dir", data_dir / "data"]
    with (data_dir / "output").open("w+") as output:
        process = subprocess.Popen(
            arguments, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            url = f"http://localhost:{port}"
            deadline = time.monotonic() + STARTUP
            while not is_ready(url):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(
                        f"`medisecure dev` did not get ready:\n{(data_dir / 'output').read_text()}"
                    )
                time.sleep(0.2)
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(SHUTDOWN)


def free_port() -> int:
    with socket.create_server(("localhost", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health/ready", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


@contextmanager
def browser() -> Iterator[Browser]:
    """Headless Chromium of the system, for which every name but localhost is unknown."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        raise RuntimeError("Chromium is not installed; `apt-get install chromium` brings it")
    blocked = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=[blocked])
        yield chromium
        chromium.close()


def open_reference(page: Page, url: str) -> None:
    """Load /docs and wait until every operation group is drawn."""
    page.goto(f"{url}/docs")
    page.locator("#operations-Contract-getDocs").wait_for()
