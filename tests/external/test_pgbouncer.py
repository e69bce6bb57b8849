"""The service behind Debian's PgBouncer, which gives each transaction another connection of PostgreSQL."""

import asyncio
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from persistence import embedded
from persistence.postgres.connector import Connector
from tests.external.pooler import start_pgbouncer
from tests.external.running import KEY, medisecure, start_serve

PASSWORD = "correct horse battery"
CONCURRENT = 24


@dataclass
class Clinic:
    direct: str
    pooled: str
    environment: dict[str, str]
    url: str = ""
    cookies: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        return medisecure(self.environment, *arguments, stdin=stdin)

    def call(self, method: str, path: str, email: str = "", body: Any = None) -> httpx.Response:
        headers = {"Cookie": f"access_token={self.cookies[email]}"} if email else {}
        return httpx.request(method, self.url + path, headers=headers, json=body, timeout=60, trust_env=False)

    def sign_in(self, email: str) -> None:
        answer = self.call("POST", "/api/auth/login", body={"email": email, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        first = answer.headers.get_list("set-cookie")[0]
        self.cookies[email] = first.partition(";")[0].partition("=")[2]

    def create(self, path: str, email: str, body: Any) -> Any:
        answer = self.call("POST", path, email, body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def sql(self, statement: str) -> list[asyncpg.Record]:
        async def run() -> list[asyncpg.Record]:
            connection = await asyncpg.connect(self.direct)
            try:
                return list(await connection.fetch(statement))
            finally:
                await connection.close()

        return asyncio.run(run())


@pytest.fixture(params=["transaction", "session"])
def clinic(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Clinic]:
    folder = tmp_path / "data"
    size = 5 if request.param == "transaction" else 60  # in session mode each of ours needs one for itself
    with (
        embedded.start(folder, durable=False) as servers,
        start_pgbouncer(tmp_path, servers.database_url, request.param, size) as pooled,
    ):
        environment = {
            "DATABASE_URL": pooled,
            "REDIS_URL": servers.redis_url,
            "SECRET_KEY": KEY,
            "DRAIN_SECONDS": "0",
        }
        yield Clinic(servers.database_url, pooled, environment)
    embedded.discard(folder)


def test_commands_and_service_work_behind_pgbouncer(clinic: Clinic, tmp_path: Path) -> None:
    """No setting is needed, in either mode of the pooler."""
    with ThreadPoolExecutor() as pool:  # two instances at once, as at a roll-out
        for migrated in [pool.submit(clinic.run, "migrate") for _ in range(2)]:
            assert migrated.result().returncode == 0, migrated.result().stderr
    made = clinic.run("create-admin", "admin@clinic.example", "Ada", stdin=f"{PASSWORD}\n")
    assert made.returncode == 0, made.stderr

    log = tmp_path / "serve.log"
    limits = {"LOGIN_ATTEMPTS": "100", "RATE_LIMIT_PER_MINUTE": "100000"}
    with (
        start_serve(clinic.environment | limits, log, workers=2) as clinic.url,
        ThreadPoolExecutor(CONCURRENT) as pool,
    ):
        clinic.sign_in("admin@clinic.example")
        people = {"doctor": "doctor@clinic.example", "staff": "staff@clinic.example"}
        for role, email in people.items():
            body = {"name": role, "email": email, "password": PASSWORD, "role": role}
            clinic.create("/api/auth/register", "admin@clinic.example", body)
            clinic.sign_in(email)
        doctor = clinic.call("GET", "/api/users/me", people["doctor"]).json()["id"]
        charts = [
            clinic.create(
                "/api/patients",
                people["staff"],
                {
                    "name": f"Patient {number}",
                    "email": f"p{number}@example.com",
                    "phone": "1",
                    "dateOfBirth": "1980-01-01",
                    "gender": "other",
                    "address": "Here",
                },
            )["id"]
            for number in range(CONCURRENT)
        ]

        def book(chart: str) -> int:
            body = {"patientId": chart, "doctorId": doctor, "date": "2042-05-04T09:30:00Z", "reason": "Flu"}
            return clinic.call("POST", "/api/appointments", people["staff"], body).status_code

        assert Counter(pool.map(book, charts)) == {201: 1, 400: CONCURRENT - 1}

        def look(number: int) -> tuple[int, int]:
            chart = charts[number % CONCURRENT]
            paths = (f"/api/patients/{chart}", "/api/patients?search=patient", "/api/dashboard/stats",
                     "/api/appointments?status=scheduled", "/api/doctors", "/api/users/me")  # fmt: skip
            answers = [clinic.call("GET", path, people["staff"]) for path in paths]
            return max(answer.status_code for answer in answers), answers[1].json()["total"]

        assert set(pool.map(look, range(60))) == {(200, CONCURRENT)}
        [(backends,)] = clinic.sql(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        assert backends > 1  # else nothing was ever on another connection

        deadline = time.monotonic() + 60
        while "\n0 events in the unsealed tail" not in (verified := clinic.run("verify-audit")).stdout:
            assert time.monotonic() < deadline, verified.stdout + verified.stderr
        assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "prepared statement" not in log.read_text()
    assert "Traceback" not in log.read_text()


# What PgBouncer itself sets for a client, on whatever connection it gives it; and what asyncpg does, while it
# looks types up.
OF_OTHERS = {
    "application_name", "TimeZone", "DateStyle", "client_encoding", "standard_conforming_strings", "jit",
}  # fmt: skip


def test_every_command_works_and_leaves_no_trace_in_shared_connections(clinic: Clinic) -> None:
    """A setting or a lock that stayed in one would meet another client."""

    async def settings() -> dict[str, str]:
        clients = [await asyncpg.connect(clinic.pooled, statement_cache_size=0) for _ in range(5)]
        transactions = [client.transaction() for client in clients]
        found: dict[str, str] = {}
        for client, transaction in zip(clients, transactions, strict=True):  # each on another connection
            await transaction.start()
            rows = await client.fetch("SELECT name, setting FROM pg_settings WHERE source = 'session'")
            found |= dict(rows)
            assert await client.fetch("SELECT FROM pg_locks WHERE locktype = 'advisory'") == []
        for client, transaction in zip(clients, transactions, strict=True):
            await transaction.rollback()
            await client.close()
        return found

    asyncio.run(settings())  # opens the connections
    clinic.sql("CREATE ROLE lesser LOGIN")
    for arguments, stdin in (
        (("migrate", "--grant-to", "lesser"), ""),
        (("migrate",), ""),
        (("load-demo", "--yes-known-passwords"), ""),
        (("create-admin", "admin@clinic.example", "Ada"), PASSWORD),
        (("set-password", "admin@clinic.example"), "another correct horse"),
        (("downtime-sheet", "--days", "1"), ""),
        (("check-counters",), ""),
        (("check-counters", "--repair"), ""),
        (("verify-audit", "--max-age", "3600"), ""),
    ):
        done = clinic.run(*arguments, stdin=f"{stdin}\n")
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    found = asyncio.run(settings())
    assert {name: value for name, value in found.items() if name not in OF_OTHERS} == {}


def test_parameter_that_pgbouncer_refuses_is_reported_in_one_line(clinic: Clinic) -> None:
    clinic.environment["DATABASE_URL"] = f"{clinic.pooled}?options=-cwork_mem%3D8MB"
    refused = clinic.run("migrate")
    assert refused.returncode == 1
    assert refused.stderr.startswith("medisecure: the database cannot be used: unsupported startup parameter")
    assert "ignore_startup_parameters" in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("mode", "size", "setting", "named"),
    [
        ("transaction", 1, {"query_wait_timeout": 2}, "default_pool_size"),
        ("transaction", 5, {"max_client_conn": 1}, "max_client_conn"),
        ("statement", 5, {}, "pool_mode"),
    ],
)
def test_setting_of_pgbouncer_that_is_in_the_way_is_named(
    mode: str, size: int, setting: dict[str, int], named: str, tmp_path: Path
) -> None:
    with (
        embedded.start(tmp_path / "data", redis=False, durable=False) as servers,
        start_pgbouncer(tmp_path, servers.database_url, mode, size, **setting) as pooled,
    ):
        refused = medisecure({"DATABASE_URL": pooled}, "migrate")
    embedded.discard(tmp_path / "data")
    assert refused.returncode == 1
    assert named in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_connection_opened_while_another_finds_the_pooler_works(clinic: Clinic) -> None:
    class Overtaken(Connector):
        async def open(self, host: str, seconds: float) -> asyncpg.Connection:
            connection = await super().open(host, seconds)
            self.is_pooled = True
            return connection

    async def ask(connection: asyncpg.Connection) -> None:
        for number in range(20):
            assert await connection.fetchval("SELECT $1::int", number) == number

    async def main() -> None:
        connections = [await Overtaken(clinic.pooled, command_timeout=30)() for _ in range(3)]
        await asyncio.gather(*map(ask, connections))
        for connection in connections:
            await connection.close()

    asyncio.run(main())
