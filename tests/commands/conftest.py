import io
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from api.commands.main import main
from api.settings import REQUIRED_SETTINGS
from persistence import embedded
from persistence.migrations.commands import commands
from tests.support.audit_trail import wait_until_sealed
from tests.support.backups import Clinic, sign_in
from tests.support.command import Refusal, medisecure, settings_of
from tests.support.service import Backend, Service


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refusal:
    """Run a command that is refused, and give its last line on stderr. In this process, which is faster."""

    def run(*arguments: str, stdin: str = "", **settings: str) -> str:
        monkeypatch.setattr("sys.argv", ["medisecure", *arguments])
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        for name, value in {**dict.fromkeys(REQUIRED_SETTINGS, ""), "LOG_FORMAT": "text", **settings}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        assert shown.out == ""
        assert ended.value.code == (2 if "usage:" in shown.err else 1)
        return shown.err.splitlines()[-1]

    return run


@pytest.fixture
def new_database(servers: Backend) -> Callable[..., Backend]:
    """Creates databases with nothing in them, not even tables; takes the options of CREATE DATABASE."""

    def create(options: str = "") -> Backend:
        name = f"new_{uuid4().hex}"
        servers.sql(f"CREATE DATABASE {name} {options}")
        return Backend(servers.database_url.replace("/medisecure?", f"/{name}?"), servers.redis_url)

    return create


@pytest.fixture
def unmigrated(new_database: Callable[..., Backend]) -> Backend:
    """A database with nothing in it, not even tables."""
    return new_database()


@pytest.fixture
def migrated(servers: Backend) -> Backend:
    """A database with tables, and nobody in it."""
    return servers.copy()


@pytest.fixture(scope="module")
def new_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """Gives paths of data folders that do not exist yet; they are discarded in the end."""
    made = []

    def folder(name: str = "data") -> Path:
        made.append(tmp_path_factory.mktemp("medisecure") / name)
        return made[-1]

    yield folder
    for each in made:
        if each.exists():
            embedded.discard(each)


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    """The demo data on servers that no other module uses: a backup is of all that is on a server. Somebody is
    signed in, and the trail is sealed."""
    folder = tmp_path_factory.mktemp("clinic")
    with embedded.start(folder / "data", durable=False) as running:
        commands(running.database_url).upgrade()
        backend = Backend(running.database_url, running.redis_url)
        loaded = medisecure("load-demo", "--yes-known-passwords", **settings_of(backend))
        assert loaded.returncode == 0, loaded.stderr
        with Service(backend, backend.settings()) as service:
            sign_in(service)
            wait_until_sealed(backend)
        made = medisecure("backup-keygen", str(folder / "identity"))
        recipient = made.stdout.splitlines()[0].removeprefix("BACKUP_RECIPIENT=")
        yield Clinic(backend, folder, recipient)
    embedded.discard(folder / "data")
