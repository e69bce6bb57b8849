"""Debian's PgBouncer in front of a PostgreSQL of ours."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.external.running import SHUTDOWN_SECONDS, STARTUP_SECONDS, free_port

CONFIGURATION = """
[databases]
* = host={host} port={server} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
server_round_robin = 1
{settings}
logfile =
{account}
"""


@contextmanager
def start_pgbouncer(
    folder: Path, database_url: str, mode: str, size: int = 4, **settings: object
) -> Iterator[str]:
    """The URL of the same database behind PgBouncer, which has `size` connections to it and gives a client
    the one that was idle for longest: each transaction on another one. `settings`: others of PgBouncer's."""
    program = shutil.which("pgbouncer", path=os.environ["PATH"] + ":/usr/sbin")
    if program is None:
        raise RuntimeError("PgBouncer is missing; on Debian `apt-get install pgbouncer` brings it")
    parts, port = urlsplit(database_url), free_port()
    host = parse_qs(parts.query).get("host", [parts.hostname or ""])[0]
    owner = Path(host).owner() if host.startswith("/") else "nobody"
    account = f"user = {owner}" if os.geteuid() == 0 else ""  # PgBouncer refuses to run as root
    file = folder / "pgbouncer.ini"
    lines = "\n".join(f"{name} = {value}" for name, value in settings.items())
    place = {"host": host, "server": parts.port or 5432, "port": port}
    file.write_text(CONFIGURATION.format(**place, mode=mode, size=size, account=account, settings=lines))
    with (folder / "pgbouncer.log").open("w") as log:
        process = subprocess.Popen([program, file], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + STARTUP_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((folder / "pgbouncer.log").read_text()) from None
                time.sleep(0.05)
        yield f"postgresql://postgres@127.0.0.1:{port}{parts.path}"
    finally:
        process.terminate()
        process.wait(SHUTDOWN_SECONDS)
