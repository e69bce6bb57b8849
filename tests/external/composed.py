"""One machine as deploy/compose.yaml sets it up: our image under its options, with its secrets; the servers
beside it are those of the wheels, with its settings."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from persistence import embedded
from persistence.embedded.postgresql import PROGRAMS, WHEEL
from persistence.embedded.valkey import find_program
from persistence.embedded.wheels import require_wheel
from tests.external.containers import IMAGE, Podman, options_of
from tests.external.proxies import start_server
from tests.external.running import OPERATOR, ROOT, is_ready, run
from tests.support.settings import unset_in

DEPLOY = ROOT / "deploy"
SERVICES = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
# What compose.yaml takes from its user.
SETTINGS = unset_in(SERVICES["one"]) | {
    "CORS_ORIGINS": "https://clinic.example",
    "PUBLIC_URL": "https://clinic.example",
    "CLINIC_NAME": "Clinic",
    "CLINIC_TIMEZONE": "UTC",
}
READY_SECONDS = 60
RELAY = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen postgresql
    bind {gateway}:5432
    server postgresql unix@{sockets}/.s.PGSQL.5432
"""


@dataclass(frozen=True)
class Machine:
    podman: Podman
    secrets: Path
    network: list[str]  # options

    def options_of(self, service: str) -> list[str]:
        settings = [f"--env={name}={value}" for name, value in SETTINGS.items()]
        return [*self.network, *options_of(SERVICES[service], self.secrets), *settings]

    def run(self, service: str, *command: str, stdin: str = "") -> None:
        self.podman("run", "--rm", "--interactive", *self.options_of(service), IMAGE, *command, stdin=stdin)

    @contextmanager
    def serve(self, name: str, port: int | None = None) -> Iterator[str]:
        """The URL of the instance, once it is ready; also at `port` of this machine."""
        published = [f"--publish=127.0.0.1:{port}:8000"] if port else []
        with self.podman.start(*self.options_of(name), *published, IMAGE, name=name) as address:
            url, deadline = f"http://{address}:8000", time.monotonic() + READY_SECONDS
            while not is_ready(url):
                assert time.monotonic() < deadline, self.podman("logs", name).stderr
                time.sleep(0.1)
            yield url


@contextmanager
def start_machine(podman: Podman, folder: Path) -> Iterator[Machine]:
    """With the tables and an administrator, OPERATOR, made as the guide says."""
    secrets = folder / "secrets"
    run(DEPLOY / "secrets.sh", secrets)
    with ExitStack() as stack:
        network, gateway = stack.enter_context(podman.network())
        start_postgresql(folder, secrets, gateway, stack)
        start_valkey(folder, secrets, gateway, stack)
        hosts = [f"--add-host={name}:{gateway}" for name in ("postgresql", "valkey")]
        machine = Machine(podman, secrets, ["--network", network, *hosts])
        machine.run("migration", *SERVICES["migration"]["command"])
        create = "medisecure", "create-admin", OPERATOR["email"], "Olga"
        machine.run("one", *create, stdin=OPERATOR["password"])
        yield machine


def start_postgresql(folder: Path, secrets: Path, gateway: str, stack: ExitStack) -> None:
    """With the owner that the image of PostgreSQL would make, and what deploy/roles.sql makes."""
    stack.callback(embedded.discard, folder / "servers")
    servers = stack.enter_context(embedded.start(folder / "servers", redis=False, durable=False))
    sockets = servers.database_url.partition("host=")[2]
    roles = (DEPLOY / "roles.sql").read_text().replace("/run/secrets", str(secrets))
    (folder / "roles.sql").write_text(f"CREATE ROLE medisecure SUPERUSER LOGIN;\n{roles}")
    psql = require_wheel(WHEEL) / PROGRAMS[18] / "psql"
    run(psql, servers.database_url, "--no-psqlrc", "--set=ON_ERROR_STOP=1", f"--file={folder}/roles.sql")
    (folder / "relay.cfg").write_text(RELAY.format(gateway=gateway, sockets=sockets))
    stack.enter_context(
        start_server(folder / "relay.log", 5432, "haproxy", "-db", "-f", folder / "relay.cfg", host=gateway)
    )


def start_valkey(folder: Path, secrets: Path, gateway: str, stack: ExitStack) -> None:
    _, *arguments = [word.replace("/run/secrets", str(secrets)) for word in SERVICES["valkey"]["command"]]
    command = find_program(), *arguments, "--bind", gateway, "--dir", folder
    stack.enter_context(start_server(folder / "valkey.log", 6379, *command, host=gateway))
