"""The installed command, in processes of its own with an environment of their own."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from api.commands.checks import find_problem
from tests.support.service import KEY, Backend

SCRIPTS = Path(sys.executable).parent
COMMAND = str(SCRIPTS / "medisecure")


class Refusal(Protocol):
    """Of the fixture `refusal` in tests/commands/conftest.py."""

    def __call__(self, *arguments: str, stdin: str = "", **settings: str) -> str: ...


def environment(**settings: str) -> dict[str, str]:
    """Nothing of the environment that the tests run in but what every program, and coverage, needs; and a log
    as on a terminal."""
    measured = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
    plain = {"LOG_FORMAT": "text", "LOG_REQUESTS": "false"}
    return {"PATH": os.defpath, "HOME": os.environ.get("HOME", "/"), **plain, **measured, **settings}


def settings_of(backend: Backend, **changes: str) -> dict[str, str]:
    """The environment variables of a service on these servers, which stops at once."""
    urls = {"DATABASE_URL": backend.database_url, "REDIS_URL": backend.redis_url}
    return {**urls, "SECRET_KEY": KEY, "DRAIN_SECONDS": "0", **changes}


def find_problem_of(backend: Backend, workers: int = 1, **changes: Any) -> str:
    """What keeps `serve` from these servers, or nothing; `changes`: of the settings."""
    return asyncio.run(find_problem(backend.settings(**changes), workers)) or ""


def medisecure(*arguments: str, stdin: str = "", **settings: str) -> "subprocess.CompletedProcess[str]":
    """Run `medisecure` to its end, with `settings` as its environment."""
    return subprocess.run(
        [COMMAND, *arguments],
        input=stdin,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@contextmanager
def granted_role(owner: Backend) -> Iterator[Backend]:
    """The database of its owner, as a role sees it that may do what the service needs."""
    name = f"app_{uuid4().hex[:12]}"
    owner.sql(f"CREATE ROLE {name} LOGIN")
    granted = medisecure("migrate", "--grant-to", name, **settings_of(owner))
    assert granted.returncode == 0, granted.stderr
    yield owner.as_role(name)
    owner.sql(f"DROP OWNED BY {name}")
    owner.sql(f"DROP ROLE {name}")


def create_admin(database_url: str, email: str, name: str, password: str) -> None:
    """The first administrator, as the README has it done."""
    made = medisecure("create-admin", email, name, stdin=f"{password}\n", DATABASE_URL=database_url)
    assert made.returncode == 0, made.stderr
