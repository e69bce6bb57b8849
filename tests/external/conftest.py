"""What holds of every test in this folder."""

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.external.running import SHUTDOWN_SECONDS


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the tests have started in their folders ends with them."""
    folder = tmp_path_factory.getbasetemp()
    yield
    deadline = time.monotonic() + SHUTDOWN_SECONDS
    while left := commands_in(folder):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def commands_in(folder: Path) -> list[str]:
    """Those of the processes that work in this folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
    return found
