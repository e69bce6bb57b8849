"""The image is built from the versions that were tested, each by its hashes: `just lock` writes them."""

import platform
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.lock import CONSTRAINTS, LOCKS, ROOT, pinned

RENEW = "constraints.txt and deploy/ differ: run `just lock`"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def needed(package: str, extras: frozenset[str] = frozenset()) -> Iterator[str]:
    """All that the package needs on this machine, but what the image is told to do without."""
    left_out = set(PROJECT["tool"]["uv"]["pip"]["no-emit-package"])
    for requirement in map(Requirement, requires(package) or []):
        name, marker = canonicalize_name(requirement.name), requirement.marker
        if name in left_out or not (
            marker is None or any(marker.evaluate({"extra": extra}) for extra in extras | {""})
        ):
            continue
        yield name
        yield from needed(name, frozenset(requirement.extras))


@pytest.mark.parametrize("lock", LOCKS.values(), ids=LOCKS)
def test_every_package_of_the_image_has_hashes_and_no_address(lock: Path) -> None:
    packages = re.split(r"^(?=\w)", lock.read_text(), flags=re.MULTILINE)[1:]
    assert packages
    for package in packages:
        first, *hashes = package.rstrip().split(" \\\n")
        assert re.fullmatch(r"[\w.-]+==[\w.!+-]+( ; .+)?", first)
        assert hashes
        assert all(re.fullmatch(r" {4}--hash=sha256:[0-9a-f]{64}", line) for line in hashes)


@pytest.mark.parametrize("lock", LOCKS.values(), ids=LOCKS)
def test_the_image_has_the_versions_that_are_tested(lock: Path) -> None:
    tested = pinned(CONSTRAINTS)
    for name, version in pinned(lock).items():
        assert version == tested.get(name, version), RENEW


@pytest.mark.parametrize("file", ["Containerfile", "docs/deployment.md"])
def test_whoever_takes_packages_by_their_hashes_asks_for_no_others(file: str) -> None:
    """pip would want those that the image does without, and find no hash of them."""
    text = (ROOT / file).read_text().replace("\\\n", " ")
    commands = re.findall(r".*--require-hashes.*", text)
    assert commands
    assert [command for command in commands if "--no-deps" not in command] == []


@pytest.mark.parametrize(("lock", "extras"), [("runtime", []), ("full", ["otel", "pdf"])])
def test_the_image_has_all_that_the_service_needs_and_nothing_else(lock: str, extras: list[str]) -> None:
    installed = pinned(LOCKS[lock], python=platform.python_version()).keys()
    assert installed == set(needed("medisecure", frozenset(extras))), RENEW
    assert installed <= pinned(CONSTRAINTS).keys()
