"""What the audit trail costs a read: `python -m tests.bench.audit_cost`.

The same service twice, once with the journal's write cut out, each in a process of its own, on durable
servers (fsync on); requests in turn A B A B …, so that a machine that speeds up or slows down does so for
both. Prints the machine, CPU of the server process and latency per request, and the ratios of the pairs.
"""

import asyncio
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from persistence import embedded
from persistence.migrations.commands import commands
from tests.support.command import environment
from tests.support.factories import World, populate
from tests.support.service import KEY, Backend, Service

SERVE = (
    "import sys\nfrom api.commands.main import main\n"
    "sys.argv = ['medisecure', 'serve', '--port', '{port}']\nmain()\n"
)
WITHOUT = (
    "import persistence.audit as audit\nasync def nothing(self, event): pass\naudit.Journal.write = nothing\n"
)
ROUNDS, REQUESTS, CONNECTIONS = 7, 2000, 16


@dataclass
class Target:
    name: str
    url: str
    process: "subprocess.Popen[bytes]"

    def cpu(self) -> float:
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system


def start(name: str, port: int, backend: Backend, patch: str) -> Target:
    settings = environment(
        DATABASE_URL=backend.database_url,
        REDIS_URL=backend.redis_url,
        SECRET_KEY=KEY,
        RATE_LIMIT_PER_MINUTE="1000000000",
    )
    process = subprocess.Popen(
        [sys.executable, "-c", patch + SERVE.format(port=port)], env=settings, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    while True:
        try:
            if httpx.get(f"{url}/health/ready").status_code == 200:
                return Target(name, url, process)
        except httpx.TransportError:
            time.sleep(0.1)


async def load(target: Target, path: str, cookie: str) -> tuple[float, float, float]:
    """(server CPU, median and 99th percentile of the latency) per request, in microseconds."""
    host, port = target.url.removeprefix("http://").split(":")
    request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nCookie: {cookie}\r\n\r\n".encode()
    taken: list[float] = []

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        for _ in range(REQUESTS // CONNECTIONS):
            begun = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(head.decode())
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r")[0])
            await reader.readexactly(length)
            taken.append(time.perf_counter() - begun)
        writer.close()

    before = target.cpu()
    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    cpu = (target.cpu() - before) / len(taken)
    taken.sort()
    return cpu * 1e6, statistics.median(taken) * 1e6, taken[int(len(taken) * 0.99)] * 1e6


def main() -> None:
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder, embedded.start(Path(folder, "data")) as servers:
        backend = Backend(servers.database_url, servers.redis_url)
        commands(backend.database_url).upgrade()
        with Service(backend, backend.settings()) as service:
            cookies = populate(service)
            world = World(service, {name: service.browser(jar) for name, jar in cookies.items()})
            patient = world.chart()
            for _ in range(50):
                world.chart()
        cookie = f"access_token={cookies['doctor']['access_token']}"
        targets = [start("with", 8471, backend, ""), start("without", 8472, backend, WITHOUT)]
        try:
            for path in (f"/api/patients/{patient['id']}", "/api/patients?limit=10"):
                measure(targets, path, cookie)
        finally:
            for target in targets:
                target.process.terminate()
                target.process.wait()
    embedded.discard(Path(folder, "data"))


def measure(targets: list[Target], path: str, cookie: str) -> None:
    for target in targets:
        asyncio.run(load(target, path, cookie))  # warms up
    rounds = [[asyncio.run(load(target, path, cookie)) for target in targets] for _ in range(ROUNDS)]
    print("\nGET", re.sub("[0-9a-f-]{36}", "{id}", path))
    for place, name in enumerate(("server CPU us", "p50 us", "p99 us")):
        trail, none = (statistics.median(pair[side][place] for pair in rounds) for side in (0, 1))
        ratio = statistics.median(pair[0][place] / pair[1][place] for pair in rounds)
        print(f"{name:>14}: {trail:8.0f} with the trail, {none:8.0f} without; ratio of pairs {ratio:.2f}")


if __name__ == "__main__":
    main()
