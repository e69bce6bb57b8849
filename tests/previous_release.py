"""Expand, then contract: the front-door tests of the last release, with that release's code, on the schema of
this one. `just previous-release` runs it; docs/baseline/RELEASE names the commit of that release."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
GIT = shutil.which("git") or "git"
RELEASE = ROOT / "docs/baseline/RELEASE"
# Those that take less than a second each, and the story through everything.
RUNS = (["-m", "not slow", "tests/api"], ["tests/test_story.py"])
MIGRATION = "commands(running.database_url).upgrade()"  # in the conftest of that release


def read_release() -> str:
    return RELEASE.read_text().strip()


def extract(repository: Path, commit: str, folder: Path) -> None:
    """What the commit holds, into this folder. SystemExit if the clone does not have it."""
    asked = [GIT, "cat-file", "-e", f"{commit}^{{commit}}"]
    if subprocess.run(asked, cwd=repository, capture_output=True, check=False).returncode != 0:
        sys.exit(
            f"This clone does not have {commit}, the last release (docs/baseline/RELEASE). "
            "`git fetch --unshallow` gets the whole history"
        )
    for arguments in (
        ["clone", "--quiet", "--shared", "--no-checkout", str(repository), str(folder)],
        ["-C", str(folder), "checkout", "--quiet", commit],
    ):
        subprocess.run([GIT, *arguments], check=True)


def use_our_schema(folder: Path) -> None:
    """Have the tests in this folder make their database with our migrations, run by our code."""
    conftest = folder / "tests/conftest.py"
    text = conftest.read_text()
    if MIGRATION not in text:
        sys.exit(f"The release's tests/conftest.py does not say {MIGRATION}; say in {__file__} what it says")
    conftest.write_text(text.replace(MIGRATION, "our_schema.make(running.database_url)"))
    with conftest.open("a") as opened:
        opened.write("\nfrom tests.support import our_schema\n")
    migration = [sys.executable, "-m", "alembic", "upgrade", "head"]
    settings = f"env={{**os.environ, 'PYTHONPATH': {str(ROOT)!r}, 'DATABASE_URL': url}}"
    (folder / "tests/support/our_schema.py").write_text(
        "import os, subprocess\n"
        "def make(url):\n"
        f"    subprocess.run({migration}, cwd={str(ROOT)!r}, {settings}, check=True)\n"
    )


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="medisecure-") as made:
        folder = Path(made)
        extract(ROOT, read_release(), folder)
        use_our_schema(folder)
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        environment.pop("PYTEST_ADDOPTS", None)
        for arguments in RUNS:
            command = [sys.executable, "-m", "pytest", "--quiet", *arguments]
            subprocess.run(command, cwd=folder, env=environment, check=True)


if __name__ == "__main__":
    main()
