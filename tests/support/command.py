"""The installed command, in processes of its own with an environment of their own."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(sys.executable).parent
COMMAND = str(SCRIPTS / "medisecure")


def environment(**settings: str) -> dict[str, str]:
    """Nothing of the environment that the tests run in but what every program, and coverage, needs."""
    measured = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
    return {"PATH": os.defpath, "HOME": os.environ.get("HOME", "/"), **measured, **settings}


def medisecure(
    *arguments: str, stdin: str = "", cwd: Path | None = None, **settings: str
) -> "subprocess.CompletedProcess[str]":
    """Run `medisecure` to its end, with `settings` as its environment."""
    return subprocess.run(
        [COMMAND, *arguments],
        input=stdin,
        env=environment(**settings),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def create_admin(database_url: str, email: str, name: str, password: str) -> None:
    """The first administrator, as the README has it done."""
    made = medisecure("create-admin", email, name, stdin=f"{password}\n", DATABASE_URL=database_url)
    assert made.returncode == 0, made.stderr
