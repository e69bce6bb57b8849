import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from persistence import embedded
from persistence.migrations.commands import commands
from security.roles import Role
from tests.support.client import Browser
from tests.support.conformance import CONTRACT
from tests.support.factories import World, populate
from tests.support.service import Backend, Service


def pytest_xdist_auto_num_workers() -> int:
    """More than there are cores: a worker waits for its servers half of the time."""
    return max(2, (os.cpu_count() or 1) * 3 // 2)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """PostgreSQL with the migrated, empty database, and Valkey."""
    folder: Path = tmp_path_factory.mktemp("servers")
    with embedded.start(folder, durable=False) as running:
        commands(running.database_url).upgrade()
        yield Backend(running.database_url, running.redis_url)
    embedded.discard(folder)


@pytest.fixture(scope="module")
def own_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Valkey that no other module uses."""
    folder = tmp_path_factory.mktemp("valkey")
    with embedded.start(folder, postgres=False) as running:
        yield running.redis_url
    embedded.discard(folder)


@pytest.fixture(scope="session")
def populated(servers: Backend) -> tuple[Backend, dict[str, dict[str, str]], float]:
    """A database with one signed-in account of each role (and a second doctor and patient), made through the
    front door, with their cookies and when they signed in. Never used itself, only copied. The access tokens
    live for an hour, which is longer than all tests take."""
    backend = servers.copy()
    with Service(backend, backend.settings(access_token_expire_minutes=60)) as service:
        cookies = populate(service)
    return backend, cookies, time.monotonic()


@pytest.fixture(scope="module")
def backend(populated: tuple[Backend, dict[str, dict[str, str]], float]) -> Backend:
    """A copy of the populated database for each module; nothing leaks from one to the next."""
    return populated[0].copy()


@pytest.fixture(scope="module")
def service(backend: Backend) -> Iterator[Service]:
    with Service(backend, backend.settings()) as running:
        yield running


@pytest.fixture(scope="module")
def world(service: Service, populated: tuple[Backend, dict[str, dict[str, str]], float]) -> World:
    """The populated clinic behind `service`: its people, and ways to make more of everything."""
    _, cookies, signed_in = populated
    people = {name: service.browser(jar) for name, jar in cookies.items()}
    if time.monotonic() - signed_in > 3000:  # their access tokens live for an hour
        for browser in people.values():
            assert browser.post("/api/auth/refresh").status_code == 200
    return World(service, people)


@pytest.fixture
def client_as(world: World) -> Callable[[Role], Browser]:
    """The signed-in account of a role."""
    return lambda role: world.people[role]


@pytest.fixture
def anonymous(service: Service) -> Browser:
    return service.browser()


# The modules that take longest go first, so that neither process is left alone with one at the end.
LONGEST = [
    *("test_synthea", "test_dev", "test_embedded", "test_examples", "test_error_examples", "test_auth"),
    "test_maintenance",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    last = len(LONGEST)
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else last)


# The traffic net's other half: in a run of the whole suite each operation is answered 2xx at least once.
succeeded: set[str] = set()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    succeeded.update(node.workeroutput.get("succeeded", ()))


def pytest_sessionfinish(session: pytest.Session) -> None:
    mine = {operation for operation, status in CONTRACT.answered if 200 <= status < 300}
    worker = getattr(session.config, "workeroutput", None)
    if worker is not None:
        worker["succeeded"] = sorted(mine)
        return
    config = session.config
    chosen = config.option.keyword or config.option.markexpr
    whole = config.args == config.getini("testpaths") and not chosen and not session.testsfailed
    missing = CONTRACT.operation_ids() - mine - succeeded
    if whole and not config.option.collectonly and missing:
        print(f"\nNo test got a 2xx answer of {', '.join(sorted(missing))}; openapi.yaml promises one")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
