"""Measures the service alone: `python -m tests.bench.run [--charts 10000] [--seconds 5] [--connections 16]`.

Fills an empty database (seed.py), starts `medisecure serve` on it, lets h2load ask for one thing after the
other, and prints a table. The servers are durable ones of its own, or those of DATABASE_URL and REDIS_URL;
of what such a PostgreSQL spends it does not know, and says 0.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import psutil

from persistence import embedded
from tests.bench import h2load, seed
from tests.bench.bookings import Bookings
from tests.bench.clinic import MIDDLES, PASSWORD, TAILS, Clinic, uid
from tests.bench.h2load import Measured
from tests.support.command import COMMAND, environment
from tests.support.service import KEY

CHARTS, DOCTORS = 500, 100  # how many different ones the requests name
UNLIMITED = "1000000000"  # all limits are on, and never reached


@dataclass
class Scenario:
    name: str
    role: str
    paths: list[str]
    body: str = ""
    connections: int = 0  # fewer than asked for, where PostgreSQL is what one waits for


@dataclass
class Running:
    url: str
    server: psutil.Process
    databases: list[psutil.Process]
    cookies: dict[str, str]

    def cpu(self) -> tuple[float, float]:
        """Seconds that the service has computed, and PostgreSQL."""
        service = [self.server, *self.server.children(recursive=True)]
        backends = [child for one in self.databases for child in (one, *one.children(recursive=True))]
        return spent(service), spent(backends)


def spent(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(one.user + one.system for one in times)


@contextmanager
def running(charts: int) -> Iterator[Running]:
    with ExitStack() as ending:
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory()), "data")
        database, redis = os.environ.get("DATABASE_URL", ""), os.environ.get("REDIS_URL", "")
        if not (database and redis):
            ending.callback(embedded.discard, folder)
            own = embedded.start(folder, postgres=not database, redis=not redis)
            ending.enter_context(own)
            database, redis = database or own.database_url, redis or own.redis_url
        clinic = Clinic(patients=charts, doctors=200, appointments=5 * charts, records=charts, events=charts)
        seed.make(database, clinic)
        port = h2load.free_port()
        settings = environment(
            DATABASE_URL=database,
            REDIS_URL=redis,
            SECRET_KEY=KEY,
            RATE_LIMIT_PER_MINUTE=UNLIMITED,
            LOGIN_ATTEMPTS=UNLIMITED,
        )
        server = subprocess.Popen([COMMAND, "serve", "--port", str(port)], env=settings)
        ending.callback(server.wait)
        ending.callback(server.terminate)
        url = f"http://127.0.0.1:{port}"
        wait_for(url, server)
        ours = psutil.Process().children()
        yield Running(
            url,
            psutil.Process(server.pid),
            [child for child in ours if child.name() == "postgres"],
            {role: sign_in(url, f"{role}@example.com") for role in ("admin", "staff0", "doctor0")},
        )


def wait_for(url: str, server: "subprocess.Popen[bytes]") -> None:
    while server.poll() is None:
        try:
            if httpx.get(f"{url}/health/ready").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise RuntimeError("the service did not start")


def sign_in(url: str, email: str) -> str:
    answer = httpx.post(f"{url}/api/auth/login", json={"email": email, "password": PASSWORD})
    answer.raise_for_status()
    return f"access_token={answer.cookies['access_token']}"


def scenarios(charts: int) -> list[Scenario]:
    ids = [uid("patient", number * charts // CHARTS) for number in range(CHARTS)]
    days = [f"2024-{month:02d}-{day:02d}" for month in range(1, 13) for day in range(1, 28)]
    last = charts // 10
    deep = [f"/api/patients?page={last * part // 100}" for part in range(85, 96)]
    names = [f"{middle}{tail}"[:5] for middle, tail in zip(MIDDLES, TAILS, strict=True)]
    body = (
        '{"name": "Test Newpatient", "email": "new@mail.example.com", "phone": "+15551230000", '
        '"dateOfBirth": "1980-05-17", "gender": "female", "address": "12 Main Street, Springfield"}'
    )
    return [
        Scenario("who am I", "staff0", ["/api/users/me"]),
        Scenario("charts, first page", "staff0", ["/api/patients"]),
        Scenario("charts, search", "staff0", [f"/api/patients?search={name}" for name in names]),
        Scenario("charts, deep page", "staff0", deep, connections=2),
        Scenario("one chart", "staff0", [f"/api/patients/{chart}" for chart in ids]),
        Scenario("appointments of a day", "staff0", [f"/api/appointments?date={day}" for day in days]),
        Scenario("records of a chart", "doctor0", [f"/api/records?patientId={chart}" for chart in ids]),
        Scenario("dashboard", "admin", ["/api/dashboard/stats"], connections=2),
        Scenario("new chart", "staff0", ["/api/patients"], body),
    ]


def report(service: Running, name: str, load: Callable[[int], Measured], seconds: int) -> int:
    """Print what `load` for so many seconds costs; how many answers were none that it asked for."""
    load(1)  # warms up
    before = service.cpu()
    measured = load(seconds)
    ours, database = ((after - then) * 1e6 for after, then in zip(service.cpu(), before, strict=True))
    requests = max(1, measured.requests)
    print(
        f"| {name} | {measured.per_second:,.0f} | {measured.p50:.2f} | {measured.p99:.2f} "
        f"| {ours / requests:,.0f} | {database / requests:,.0f} | {measured.failed} |",
        flush=True,
    )
    return measured.failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--charts", type=int, default=10_000)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=16)
    asked = parser.parse_args()
    h2load.require()
    failed = 0
    with running(asked.charts) as service:
        print(f"{asked.charts:,} charts, {asked.connections} connections, {os.cpu_count()} cores")
        print("\n| | req/s | p50 ms | p99 ms | service µs/req | PostgreSQL µs/req | failed |")
        print("|---|---|---|---|---|---|---|")
        for one in scenarios(asked.charts):
            urls = [service.url + path for path in one.paths]
            cookie, connections = service.cookies[one.role], one.connections or asked.connections
            load = partial(h2load.run, urls, cookie, connections, one.body)
            failed += report(service, one.name, load, asked.seconds)
        bookings = Bookings(service.url, service.cookies["staff0"], asked.connections)
        failed += report(service, "new appointment", bookings.load, asked.seconds)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
