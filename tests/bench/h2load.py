"""Runs h2load, of nghttp2: maintained, in Debian (`apt-get install nghttp2-client`) and elsewhere, and so
light that it leaves the machine to the service. It keeps each request's time, from which percentiles come."""

import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Measured:
    seconds: int
    taken: list[float] = field(default_factory=list)  # milliseconds of each answered request
    failed: int = 0  # of them, those that were answered with an error

    @property
    def requests(self) -> int:
        return len(self.taken)

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds

    @property
    def p50(self) -> float:
        return self.part(0.5)

    @property
    def p99(self) -> float:
        return self.part(0.99)

    def part(self, share: float) -> float:
        return sorted(self.taken)[int(len(self.taken) * share)] if self.taken else float("nan")


def require() -> None:
    if not shutil.which("h2load"):
        sys.exit("h2load is missing: apt-get install nghttp2-client, or nghttp2 of another system")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def run(urls: Sequence[str], cookie: str, connections: int, body: str, seconds: int) -> Measured:
    """Ask for one of `urls` after the other, with a POST where there is a `body`, for some seconds."""
    with tempfile.TemporaryDirectory() as folder:
        listed, sent, log = (Path(folder, name) for name in ("urls", "body", "log"))
        listed.write_text("".join(f"{url}\n" for url in urls))
        command = ["h2load", "--h1", f"--input-file={listed}", f"--clients={connections}"]
        command += [f"--duration={seconds}", f"--log-file={log}", f"--header=cookie: {cookie}"]
        if body:
            sent.write_text(body)
            command += [f"--data={sent}", "--header=content-type: application/json"]
        subprocess.run(command, check=True, capture_output=True)
        # A line is when it was sent, the status, and how long it took, in microseconds.
        answers = [line.split("\t") for line in log.read_text().splitlines()]
    failed = sum(not status.startswith("2") for _, status, _ in answers)
    return Measured(seconds, [int(took) / 1000 for _, _, took in answers], failed)
