"""The container image lacks packages that Litestar requires and the service never loads."""

import subprocess
import sys
import time
import tomllib
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.support.command import environment, settings_of
from tests.support.running import free_port
from tests.support.service import Backend

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
MODULES = {"markdown-it-py": "markdown_it", "rich-click": "rich_click"}
WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
from api.__main__ import main
main()
"""


def removed() -> set[str]:
    """The modules of the packages that the image does not have."""
    packages = tomllib.loads(PROJECT.read_text())["tool"]["uv"]["pip"]["no-emit-package"]
    return {MODULES.get(name, name) for name in packages}


def medisecure_without_them(*arguments: str) -> list[str]:
    return [sys.executable, "-c", WITHOUT.format(missing=removed()), *arguments]


def test_migrate_works_without_the_packages_that_the_image_lacks(backend: Backend) -> None:
    settings = environment(DATABASE_URL=backend.database_url)
    done = subprocess.run(
        medisecure_without_them("migrate"), env=settings, capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_serve_works_without_the_packages_that_the_image_lacks(backend: Backend) -> None:
    port = free_port()
    process = subprocess.Popen(
        medisecure_without_them("serve", "--port", str(port)),
        env=environment(**settings_of(backend)),
        stderr=subprocess.PIPE,
    )
    try:
        assert answer_of(process, f"http://127.0.0.1:{port}/openapi.json") == 200
        assert httpx.get(f"http://127.0.0.1:{port}/api/users/me").status_code == 401
    finally:
        process.terminate()
        process.communicate(timeout=60)


def answer_of(process: "subprocess.Popen[bytes]", url: str) -> int | None:
    """The status of the first answer; None if the process has ended."""
    while process.poll() is None:
        with suppress(httpx.TransportError):
            return httpx.get(url).status_code
        time.sleep(0.05)
    return None
