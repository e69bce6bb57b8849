"""docs/baseline/RELEASE, and what `just previous-release` does with it."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.previous_release import GIT, MIGRATION, extract, read_release, use_our_schema


def test_the_last_release_is_named_by_its_whole_hash() -> None:
    assert re.fullmatch(r"[0-9a-f]{40}", read_release())


def test_a_clone_without_the_last_release_is_told_how_to_get_it(tmp_path: Path) -> None:
    """As a clone with `--depth 1` is."""
    subprocess.run([GIT, "init", "--quiet", str(tmp_path)], check=True)
    with pytest.raises(SystemExit, match=r"does not have [0-9a-f]{40}.*`git fetch --unshallow`"):
        extract(tmp_path, read_release(), tmp_path)


def test_a_release_makes_its_database_as_this_check_expects(tmp_path: Path) -> None:
    assert MIGRATION in (Path(__file__).parents[1] / "conftest.py").read_text()  # of the next one
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/conftest.py").write_text("")
    with pytest.raises(SystemExit, match="does not say"):
        use_our_schema(tmp_path)
