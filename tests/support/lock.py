"""The files that pin versions: constraints.txt and those of deploy/."""

import re
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "constraints.txt"
LOCKS = {
    "runtime": ROOT / "deploy/requirements.txt",
    "full": ROOT / "deploy/full-requirements.txt",
    "build": ROOT / "deploy/build-requirements.txt",
}


def pinned(path: Path, *, python: str | None = None) -> dict[str, str]:
    """Names and versions; with `python`, a version such as 3.13.1, those for this system and that Python."""
    lines = re.findall(r"^\w[^#\n\\]*", path.read_text(), re.MULTILINE)
    return {
        canonicalize_name(pin.name): str(pin.specifier).removeprefix("==")
        for pin in map(Requirement, lines)
        if python is None
        or pin.marker is None
        or pin.marker.evaluate({"python_version": python.rpartition(".")[0], "python_full_version": python})
    }
