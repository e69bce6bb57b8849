"""The service as a user starts it, pages from a web server, and a browser that can reach nothing else."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
from playwright.sync_api import Browser, sync_playwright

from persistence import embedded

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CONTRACT = ROOT / "openapi.yaml"
NODE_MODULES = HERE / "node_modules"
ADMIN = {"email": "admin@example.com", "password": "medisecure-demo"}
SECRET = "correct horse battery"
OPERATOR = {"email": "olga@clinic.example", "password": SECRET}
STAFF = {"email": "sam@clinic.example", "password": SECRET}
KEY = "a-key-for-tests-only-0123456789-0123456789"
MEDISECURE = Path(sys.executable).with_name("medisecure")
STARTUP_SECONDS = 120  # a first start makes a database
SHUTDOWN_SECONDS = 30
TOOL_SECONDS = 300


@contextmanager
def start_dev(folder: Path, port: int | None = None, **settings: str) -> Iterator[str]:
    """The base URL of `medisecure dev` with new servers and a log of its own in `folder`; on a free port, if
    none is given."""
    port = port or free_port()
    own = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "REDIS_URL"}}
    arguments = ("dev", "--port", str(port), "--data-dir", str(folder / "data"))
    with start(folder / "log", port, own | settings, *arguments) as url:
        yield url


@contextmanager
def start_production(folder: Path, **settings: str) -> Iterator[str]:
    """The base URL of `medisecure serve`, on new servers in `folder` that hold the account OPERATOR, an
    administrator, and STAFF, and nothing else."""
    with embedded.start(folder / "servers", durable=False) as servers:
        required = {"DATABASE_URL": servers.database_url, "REDIS_URL": servers.redis_url, "SECRET_KEY": KEY}
        environment = {**os.environ, **required, "DRAIN_SECONDS": "0", **settings}
        for arguments, stdin in (("migrate",), ""), (("create-admin", OPERATOR["email"], "Olga"), SECRET):
            medisecure(environment, *arguments, stdin=stdin).check_returncode()
        with start_serve(environment, folder / "log") as url:
            with httpx.Client(base_url=f"{url}/api", trust_env=False) as client:
                cookie = {"cookie": access_cookie(client.post("/auth/login", json=OPERATOR))}
                account = {**STAFF, "name": "Sam", "role": "staff"}
                client.post("/auth/register", json=account, headers=cookie).raise_for_status()
            yield url
    embedded.discard(folder / "servers")


@contextmanager
def start_serve(environment: Mapping[str, str], log: Path, workers: int = 1) -> Iterator[str]:
    """The base URL of `medisecure serve`, with nothing in its environment but this."""
    port = free_port()
    with start(log, port, environment, "serve", "--port", str(port), "--workers", str(workers)) as url:
        yield url


@contextmanager
def start(log: Path, port: int, environment: Mapping[str, str], *arguments: str) -> Iterator[str]:
    """The base URL of the command, once it is ready. It is ended afterwards."""
    with log.open("w") as output:
        process = subprocess.Popen(
            [MEDISECURE, *arguments], env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        url = f"http://localhost:{port}"
        deadline = time.monotonic() + STARTUP_SECONDS
        while not is_ready(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"`medisecure {arguments[0]}` did not get ready:\n{log.read_text()}")
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(SHUTDOWN_SECONDS)


def medisecure(
    environment: Mapping[str, str], *arguments: str, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with nothing in its environment but this."""
    return subprocess.run(
        [MEDISECURE, *arguments],
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=TOOL_SECONDS,
        check=False,
    )


def access_cookie(login: httpx.Response) -> str:
    """What a browser would send: httpx, unlike browsers, sends no Secure cookie to http://localhost."""
    login.raise_for_status()
    return login.headers.get_list("set-cookie")[0].partition(";")[0]


def free_port(*wanted: int) -> int:
    """The first of `wanted` that nobody listens on, or any that is free."""
    for port in (*wanted, 0):
        try:
            with socket.create_server(("localhost", port)) as server:
                free: int = server.getsockname()[1]
                return free
        except OSError:
            continue
    raise RuntimeError("no port is free")


class QuietFileHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serve_files(folder: Path, port: int | None = None) -> Iterator[int]:
    """The port at which the files of `folder` are served as they are, by localhost and by 127.0.0.1."""
    with ThreadingHTTPServer(
        ("127.0.0.1", port or 0), partial(QuietFileHandler, directory=str(folder))
    ) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """What a tool prints to its end; AssertionError with that and its errors, if it fails."""
    path = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ["PATH"]]
    )  # the Node of requirements.txt before any other
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=TOOL_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{command[0]}:\n{done.stdout}{done.stderr}"
    return done.stdout


def node(tool: str) -> Path:
    """The path of a tool that package.json installs."""
    return NODE_MODULES / ".bin" / tool


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", trust_env=False).is_success
    except httpx.TransportError:
        return False


@contextmanager
def launch_browser() -> Iterator[Browser]:
    """The system's Chromium without a window, for which every host but this one is unknown."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise RuntimeError("Chromium is missing; on Debian `apt-get install chromium` brings it")
    blocked = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=[blocked]) as launched,
    ):
        yield launched
