"""Schemathesis against the running service, once for each role and once for nobody; the contract says what is
tried, and every answer must keep it: `python -m tests.fuzz.run [CASES] [SEED]`."""

import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from api.contract import contract
from persistence import embedded
from tests.command import COMMAND, SCRIPTS, environment, medisecure
from tests.nets import operations
from tests.service import KEY, Backend

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RAISED = "1000000000"  # the limits are on, and out of reach
LIMITS = ("RATE_LIMIT_PER_MINUTE", "LOGIN_ATTEMPTS", "LOGIN_FAILURES_PER_ADDRESS")
SLOW = ["login", "register", "changeMyPassword", "setUserPassword"]  # bcrypt takes 0.3 s of a core each time
STARTUP = 60  # seconds
TOLD = re.compile(r"(?m)^ +(?:Scenarios|API Links):.*$|^ +[0-9]+ generated.*$")  # of Schemathesis' own report
ADDRESS = re.compile(r"http://localhost:[0-9]+")
ROLES = ("admin", "doctor", "staff", "patient", "")
OPERATIONS = {operation["operationId"]: operation for _, _, operation in operations(contract())}


@dataclass
class Run:
    """What one role's run came to."""

    role: str
    output: str = ""
    seconds: float = 0.0
    statuses: dict[str, dict[str, int]] = field(default_factory=dict)
    signed_in: dict[str, int] = field(default_factory=dict)
    turned_away: dict[str, int] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.role or "anonymous"

    @property
    def cases(self) -> int:
        return sum(sum(counts.values()) for counts in self.statuses.values())


def needs_sign_in(operation: dict[str, Any]) -> bool:
    return {} not in operation.get("security", contract()["security"]) and operation.get("security") != []


def refused(role: str, operation: dict[str, Any]) -> bool:
    """Whether the contract lets nobody of this role through."""
    if not role:
        return needs_sign_in(operation)
    return "x-roles" in operation and role not in operation["x-roles"]


def configuration(role: str, cases: int) -> str:
    """schemathesis.toml with what depends on the role: an operation that must refuse it does so, and this is
    no reason for a warning."""
    names = [name for name, operation in OPERATIONS.items() if refused(role, operation)]
    return (HERE / "schemathesis.toml").read_text() + (
        f"\n[[operations]]\ninclude-operation-id = {json.dumps(SLOW)}\n"
        f"generation = {{ max-examples = {max(2, cases // 5)} }}\n"
        f"\n[[operations]]\ninclude-operation-id = {json.dumps(names)}\nwarnings = false\n"
        f"\n[phases.stateful.generation]\nmax-examples = {cases * 3}\n"
    )


@contextmanager
def service(backend: Backend, folder: Path) -> Iterator[str]:
    """The URL of `medisecure dev`, which serves the demo data, in a process of its own."""
    settings = {
        "DATABASE_URL": backend.database_url,
        "REDIS_URL": backend.redis_url,
        "SECRET_KEY": KEY,
        **dict.fromkeys(LIMITS, RAISED),
    }
    log = folder / "service.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [COMMAND, "dev", "--port", "0", "--data-dir", folder / "data"],
            env=environment(**settings), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + STARTUP
        while not ((found := ADDRESS.search(log.read_text())) and is_ready(found[0])):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the service did not get ready:\n{log.read_text()}")
            time.sleep(0.1)
        yield found[0]
    finally:
        process.terminate()
        process.wait(STARTUP)


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", trust_env=False).is_success
    except httpx.TransportError:
        return False


def fuzz(role: str, backend: Backend, folder: Path, cases: int, seed: int) -> Run:
    run = Run(role)
    folder.mkdir()
    config, report = folder / "schemathesis.toml", folder / "statuses.json"
    config.write_text(configuration(role, cases))
    began = time.monotonic()
    with service(backend, folder) as url:
        settings = {
            "FUZZ_ROLE": role,
            "FUZZ_URL": url,
            "FUZZ_DATABASE": backend.database_url,
            "FUZZ_REPORT": str(report),
        }
        command = [
            SCRIPTS / "schemathesis",
            "--config-file",
            config,
            "--no-color",
            "run",
            ROOT / "openapi.yaml",
        ]
        done = subprocess.run(
            [*command, "--url", url, "--seed", str(seed), "--max-examples", str(cases)],
            env=environment(**settings),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    run.seconds, run.output = time.monotonic() - began, done.stdout
    if report.exists():
        vars(run).update(json.loads(report.read_text()))
    if done.returncode:
        run.complaints.append(f"Schemathesis ended with {done.returncode}")
    logged = (folder / "service.log").read_text()
    if " ERROR " in logged:
        run.complaints.append(f"the service logged errors:\n{logged}")
    run.complaints += [*judged(run)]
    return run


def judged(run: Run) -> Iterator[str]:
    """What is wrong with how often each operation was answered how: a run that was not let in proves
    nothing."""
    for name, operation in OPERATIONS.items():
        counts = run.statuses.get(name, {})
        let_in = any(status.startswith("2") for status in counts)
        if refused(run.role, operation):
            if let_in or not counts:
                yield f"{name}: must refuse {run.name}, and answered {counts}"
            continue
        if not let_in:
            yield f"{name}: never answered 2xx, but {counts}"
        if needs_sign_in(operation) and run.turned_away[name] * 5 > run.signed_in[name]:
            yield f"{name}: {run.turned_away[name]} of {run.signed_in[name]} with a cookie are 401"


def table(run: Run) -> str:
    columns = sorted({status for counts in run.statuses.values() for status in counts})
    lines = [f"{'':24}" + "".join(f"{status:>6}" for status in columns)]
    for name, counts in run.statuses.items():
        lines.append(f"{name:24}" + "".join(f"{counts.get(status, ''):>6}" for status in columns))
    return "\n".join(lines)


def main() -> None:
    cases = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(2**31)
    print(f"Seed {seed}; once more the same: just fuzz {cases} {seed}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with embedded.start(folder / "servers", durable=False) as servers:
            loaded = medisecure("load-demo", "--yes-known-passwords", DATABASE_URL=servers.database_url)
            if loaded.returncode:
                sys.exit(loaded.stderr)
            template = Backend(servers.database_url, servers.redis_url)
            backends = [
                Backend(template.copy().database_url, f"{template.redis_url}?db={number}")
                for number, _ in enumerate(ROLES)
            ]
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                runs = list(
                    pool.map(
                        lambda role, backend: fuzz(
                            role, backend, folder / (role or "anonymous"), cases, seed
                        ),
                        ROLES,
                        backends,
                    )
                )
        embedded.discard(folder / "servers")
    for run in runs:
        print(
            f"\n== {run.name}: {run.cases} requests in {run.seconds:.0f} s",
            *TOLD.findall(run.output),
            sep="\n",
        )
        print(table(run))
        if run.complaints:
            print(run.output, *run.complaints, sep="\n")
    sys.exit(any(run.complaints for run in runs))


if __name__ == "__main__":
    main()
