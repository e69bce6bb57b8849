"""Rolling restarts behind HAProxy and nginx with the settings of deploy/. Two instances are restarted in
turns while clients on connections that stay open send GETs and POSTs. RESTARTS=20 for the long version."""

import asyncio
import os
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
import trustme

from persistence import embedded
from tests.external.deployed import deployed_haproxy, deployed_nginx
from tests.external.running import KEY, OPERATOR, SECRET, access_cookie, free_port, medisecure, start

RESTARTS = int(os.environ.get("RESTARTS", "6"))
CLIENTS = 2  # of each kind, at each proxy
PAUSE_SECONDS = 0.02  # between an answer and the next request of the same client
NOTICE_SECONDS = 60  # at most, until HAProxy's checks have seen that an instance is there again
FORGED = {
    "X-Forwarded-For": "198.51.100.7",
    "X-Request-Id": str(UUID(int=7)),
    "Forwarded": "for=198.51.100.7",
}


@dataclass
class Client:
    """Sends one request after the other, each on the connection of the one before."""

    url: str
    context: ssl.SSLContext
    cookie: str
    method: str
    made: list[str] = field(default_factory=list)  # ids of what the service says it has stored
    outcomes: "Counter[str]" = field(default_factory=Counter)

    def run(self, over: threading.Event) -> None:
        with httpx.Client(
            base_url=self.url,
            verify=self.context,
            trust_env=False,
            headers={"Cookie": self.cookie, **FORGED},
            timeout=60,
        ) as client:
            while not over.wait(PAUSE_SECONDS):
                try:
                    self.count(client.get("/api/doctors") if self.method == "GET" else add_chart(client))
                except httpx.TransportError as error:
                    self.outcomes[f"{type(error).__name__}: {error}"] += 1

    def count(self, answer: httpx.Response) -> None:
        self.outcomes["served" if answer.is_success else f"{answer.status_code} {answer.text}"] += 1
        if answer.is_success and self.method == "POST":
            self.made.append(answer.json()["id"])

    def failed(self) -> dict[str, int]:
        return {outcome: times for outcome, times in self.outcomes.items() if outcome != "served"}


def add_chart(client: httpx.Client) -> httpx.Response:
    body = {
        "name": "Pat Patient", "email": f"{uuid4().hex}@clinic.example", "phone": "+15550100",
        "dateOfBirth": "1990-01-01", "gender": "other", "address": "1 Main Street",
    }  # fmt: skip
    return client.post("/api/patients", json=body)


@dataclass
class Clinic:
    """Two instances on one database."""

    database_url: str
    environment: dict[str, str]
    folder: Path
    ports: tuple[int, int]
    running: list[ExitStack] = field(default_factory=list)

    def start(self, instance: int) -> None:
        port, log = self.ports[instance], self.folder / f"{instance}-{uuid4().hex}.log"
        self.running[instance].enter_context(start(log, port, self.environment, "serve", "--port", str(port)))

    def count(self, query: str, *values: object) -> int:
        async def run() -> int:
            connection = await asyncpg.connect(self.database_url)
            try:
                return int(await connection.fetchval(query, *values))
            finally:
                await connection.close()

        return asyncio.run(run())

    def restart(self, instance: int, haproxy_log: Path) -> None:
        """As the head of deploy/haproxy.cfg says, but that it does not guess when HAProxy has noticed."""
        seen = f"Server medisecure/{('one', 'two')[instance]} is UP"
        before = haproxy_log.read_text().count(seen)
        self.running[instance].close()
        self.start(instance)
        deadline = time.monotonic() + NOTICE_SECONDS
        while haproxy_log.read_text().count(seen) == before:
            assert time.monotonic() < deadline, "HAProxy does not see the instance"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    folder = tmp_path_factory.mktemp("clinic")
    with embedded.start(folder / "servers", durable=False) as servers, ExitStack() as stack:
        environment = {
            **os.environ,
            "DATABASE_URL": servers.database_url,
            "REDIS_URL": servers.redis_url,
            "SECRET_KEY": KEY,
            "TRUSTED_PROXIES": "127.0.0.1",
            "RATE_LIMIT_PER_MINUTE": "1000000",
            "DRAIN_SECONDS": "1",
        }
        for arguments, stdin in (("migrate",), ""), (("create-admin", OPERATOR["email"], "Olga"), SECRET):
            medisecure(environment, *arguments, stdin=stdin).check_returncode()
        clinic = Clinic(servers.database_url, environment, folder, (free_port(), free_port()))
        for instance in (0, 1):
            clinic.running.append(stack.enter_context(ExitStack()))
            clinic.start(instance)
        yield clinic
    embedded.discard(folder / "servers")


@contextmanager
def under_load(clients: list[Client]) -> Iterator[None]:
    over = threading.Event()
    threads = [threading.Thread(target=client.run, args=[over]) for client in clients]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_rolling_restarts_lose_no_request(clinic: Clinic, tmp_path: Path) -> None:
    """contract: "a service that stops loses no request"."""
    authority, context = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(context)
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "tls.pem")
    folders = [tmp_path / "haproxy", tmp_path / "nginx"]
    for folder in folders:
        folder.mkdir()
    with (
        deployed_haproxy(folders[0], clinic.ports, tmp_path / "tls.pem") as haproxy,
        deployed_nginx(folders[1], clinic.ports, tmp_path / "tls.pem") as nginx,
    ):
        urls = {"HAProxy": f"https://localhost:{haproxy}", "nginx": f"https://localhost:{nginx}"}
        with httpx.Client(base_url=urls["nginx"], verify=context, trust_env=False) as client:
            cookie = access_cookie(client.post("/api/auth/login", json=OPERATOR))
            require_closed_paths(client)
        clients = {
            (proxy, method): [Client(url, context, cookie, method) for _ in range(CLIENTS)]
            for proxy, url in urls.items()
            for method in ("GET", "POST")
        }
        with under_load([each for some in clients.values() for each in some]):
            for restart in range(RESTARTS):
                clinic.restart(restart % 2, folders[0] / "proxy.log")
    failed = {kind: [each.failed() for each in some if each.failed()] for kind, some in clients.items()}
    served = {kind: sum(each.outcomes["served"] for each in some) for kind, some in clients.items()}
    print(f"{RESTARTS} restarts; served: {served}; failed: {failed}")
    assert min(served.values()) > RESTARTS
    assert not failed["HAProxy", "GET"]
    assert not failed["HAProxy", "POST"]
    assert not failed["nginx", "GET"]
    require_stored_once(clinic, [id for some in clients.values() for each in some for id in each.made])


def require_closed_paths(client: httpx.Client) -> None:
    assert client.get("/metrics").status_code == 403
    assert client.get("/health/live").status_code == 200


def require_stored_once(clinic: Clinic, made: list[str]) -> None:
    """Every chart that was acknowledged is there, once; and nothing that a caller claimed was believed."""
    assert len(set(made)) == len(made)
    assert clinic.count("SELECT count(*) - count(DISTINCT email) FROM patients") == 0
    assert clinic.count("SELECT count(*) FROM patients WHERE id = ANY($1::uuid[])", made) == len(made)
    assert (
        clinic.count("SELECT count(*) FROM audit_events WHERE address = $1", FORGED["X-Forwarded-For"]) == 0
    )
