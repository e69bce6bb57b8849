import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from persistence import embedded
from persistence.embedded.folders import postgres_home
from persistence.embedded.processes import ServerGroup
from persistence.migrations.commands import commands
from tests.reliability.load import Load
from tests.reliability.servers import PostgresServer, ValkeyServer
from tests.support.command import settings_of
from tests.support.factories import World, populate
from tests.support.running import Running, serving
from tests.support.service import Backend, Service


@dataclass(frozen=True)
class Filled:
    """A database that is not running, with an account of each role that has signed in: only copied."""

    data: Path
    cookies: dict[str, dict[str, str]]
    patient_id: str
    doctor_id: str


@dataclass
class Clinic:
    """A copy of it that runs, with a Valkey: a test may do to both as it likes."""

    postgres: PostgresServer
    valkey: ValkeyServer
    filled: Filled
    folder: Path
    group: ServerGroup
    cleanup: ExitStack

    @property
    def backend(self) -> Backend:
        return Backend(self.postgres.url, self.valkey.url)

    @contextmanager
    def serving(self, *options: str, **settings: str) -> Iterator[Running]:
        """`medisecure serve` in a process of its own, once it is ready."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        high = {"RATE_LIMIT_PER_MINUTE": "1000000", "LOGIN_ATTEMPTS": "1000"}
        values = settings_of(self.backend, **{**high, **settings})
        with serving(folder, *options, **values) as running:
            try:
                running.wait_until_ready()
                yield running
            finally:
                print(running.printed())  # pytest shows it where the test fails

    def load(self, *instances: Running | str) -> Load:
        urls = [each if isinstance(each, str) else each.url for each in instances]
        return Load(urls, self.filled.cookies, self.filled.patient_id, self.filled.doctor_id)


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    folder = tmp_path_factory.mktemp("filled")
    with embedded.start(folder, durable=False) as running:
        commands(running.database_url).upgrade()
        backend = Backend(running.database_url, running.redis_url)
        with Service(backend, backend.settings(access_token_expire_minutes=60)) as service:
            cookies = populate(service)
            world = World(service, {name: service.browser(jar) for name, jar in cookies.items()})
            patient_id, doctor_id = world.chart()["id"], world.doctor.me()["id"]
    with ExitStack() as cleanup:
        home = postgres_home(folder, cleanup)
    yield Filled(home / "postgres/data", cookies, patient_id, doctor_id)
    embedded.discard(folder)


@pytest.fixture
def clinic(filled: Filled) -> Iterator[Clinic]:
    folder = Path(tempfile.mkdtemp(prefix="medisecure-", dir="/tmp"))
    with ExitStack() as cleanup:
        cleanup.callback(embedded.discard, folder)
        group = cleanup.enter_context(ServerGroup())
        home = postgres_home(folder, cleanup)
        postgres = PostgresServer(home, group)
        postgres.embedded.folder.mkdir(mode=0o711)
        subprocess.run(["/bin/cp", "--archive", str(filled.data), str(postgres.data)], check=True)
        valkey = ValkeyServer(folder, group)
        for server in (postgres, valkey):
            server.start()
            cleanup.callback(server.kill)
        yield Clinic(postgres, valkey, filled, folder, group, cleanup)
    subprocess.run(["/bin/rm", "-r", str(folder)], check=True)
