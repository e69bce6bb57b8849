"""Schemathesis against the running service, once for each role and once without signing in: whatever
request it derives from openapi.yaml, the answer must conform to openapi.yaml.
`python -m tests.fuzz.run [CASES] [SEED]`; CASES is the number of random cases for each operation. Those of
the contract's bounds and examples come on top.
"""

import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from api.contract import contract
from persistence import embedded
from tests.support.command import COMMAND, SCRIPTS, environment, medisecure
from tests.support.openapi import is_secured, operations
from tests.support.service import KEY, Backend

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ANONYMOUS = ""
ROLES = ("admin", "doctor", "staff", "patient", ANONYMOUS)
LIMITS = ("RATE_LIMIT_PER_MINUTE", "LOGIN_ATTEMPTS", "LOGIN_FAILURES_PER_ADDRESS")
UNREACHABLE = "1000000000"  # the limits are on, and out of reach
HASHING = [
    "login",
    "register",
    "changeMyPassword",
    "setUserPassword",
]  # bcrypt takes 0.3 s of a core each time
STARTUP_SECONDS = 60  # seconds
SERVICE_URL = re.compile(r"http://localhost:[0-9]+")
SCENARIO_COUNT = re.compile(r"(?m)^ +Scenarios: +([0-9]+)$")
SUMMARY_LINE = re.compile(r"(?m)^ +(API Links:.*|[0-9]+ generated.*)$")
OPERATIONS = {operation["operationId"]: operation for _, _, operation in operations(contract())}


@dataclass
class Run:
    """What the run of one role came to. By operation: how often it answered how, how many requests were sent
    with the cookie of an account, and how many of these were turned away with 401."""

    role: str
    statuses: dict[str, Counter[str]] = field(default_factory=dict)
    signed_in: Counter[str] = field(default_factory=Counter)
    turned_away: Counter[str] = field(default_factory=Counter)
    outputs: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def name(self) -> str:
        return self.role or "anonymous"

    @property
    def sequences(self) -> int:
        return sum(int(found) for output in self.outputs for found in SCENARIO_COUNT.findall(output))

    def add(self, report: dict[str, Any]) -> None:
        for name, counts in report["statuses"].items():
            self.statuses.setdefault(name, Counter()).update(counts)
        self.signed_in.update(report["signed_in"])
        self.turned_away.update(report["turned_away"])


def must_refuse(operation: dict[str, Any], role: str) -> bool:
    """Whether the contract refuses everybody of this role."""
    if role == ANONYMOUS:
        return is_secured(contract(), operation)
    return role not in operation.get("x-roles", ROLES)


def min_sequences(cases: int) -> int:
    """How many sequences of up to eight steps."""
    return cases * 3


def configuration(role: str, cases: int) -> str:
    """schemathesis.toml, and what depends on the role: that an operation refuses everyone of the role is no
    reason for a warning where it must."""
    refused = [name for name, operation in OPERATIONS.items() if must_refuse(operation, role)]
    return f"""{(HERE / "schemathesis.toml").read_text()}
[[operations]]
include-operation-id = {json.dumps(HASHING)}
generation = {{ max-examples = {max(2, cases // 5)} }}

[[operations]]
include-operation-id = {json.dumps(refused)}
warnings = false

[phases.stateful.generation]
max-examples = {min_sequences(cases)}
"""


@contextmanager
def service(backend: Backend, folder: Path) -> Iterator[str]:
    """The URL of `medisecure dev`, which may serve the demo data, in a process of its own."""
    settings = {
        "DATABASE_URL": backend.database_url,
        "REDIS_URL": backend.redis_url,
        "SECRET_KEY": KEY,
        **dict.fromkeys(LIMITS, UNREACHABLE),
    }
    log = folder / "service.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [COMMAND, "dev", "--port", "0", "--data-dir", folder / "data"],
            env=environment(**settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + STARTUP_SECONDS
        while not ((found := SERVICE_URL.search(log.read_text())) and is_ready(found[0])):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the service did not get ready:\n{log.read_text()}")
            time.sleep(0.1)
        yield found[0]
    finally:
        process.terminate()
        process.wait(STARTUP_SECONDS)


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", trust_env=False).is_success
    except httpx.TransportError:
        return False


def fuzz(role: str, backend: Backend, folder: Path, cases: int, seed: int) -> Run:
    """All phases once; then sequences again, each time from another seed, until there were enough. Hypothesis
    ends them early when a step that it repeats is answered differently, as a service that remembers may."""
    run = Run(role)
    folder.mkdir()
    began = time.monotonic()
    with service(backend, folder) as url:
        run_schemathesis(run, url, backend, folder, cases, seed, "examples,coverage,fuzzing,stateful")
        for more in range(1, 10):
            if run.complaints or run.sequences >= min_sequences(cases):
                break
            run_schemathesis(run, url, backend, folder, cases, seed + more, "stateful")
    logged = (folder / "service.log").read_text()
    if " ERROR " in logged:
        run.complaints.append(f"the service logged errors:\n{logged}")
    run.complaints += find_complaints(run)
    run.seconds = time.monotonic() - began
    return run


def run_schemathesis(
    run: Run, url: str, backend: Backend, folder: Path, cases: int, seed: int, phases: str
) -> None:
    config, report = folder / "schemathesis.toml", folder / "report.json"
    config.write_text(configuration(run.role, cases))
    settings = {
        "FUZZ_ROLE": run.role,
        "FUZZ_URL": url,
        "FUZZ_DATABASE": backend.database_url,
        "FUZZ_REPORT": str(report),
    }
    options = ["--url", url, "--seed", str(seed), "--max-examples", str(cases), "--phases", phases]
    done = subprocess.run(
        [SCRIPTS / "schemathesis", "--config-file", config, "--no-color", "run", "openapi.yaml", *options],
        env=environment(**settings),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    run.outputs.append(done.stdout)
    if done.returncode:
        run.complaints.append(f"Schemathesis ended with {done.returncode}")
    if report.exists():
        run.add(json.loads(report.read_text()))
        report.unlink()


def find_complaints(run: Run) -> Iterator[str]:
    """What is wrong with how often an operation answered how: a run that never got through proves nothing."""
    for name, operation in OPERATIONS.items():
        counts = run.statuses.get(name, Counter())
        let_in = any(status.startswith("2") for status in counts)
        if must_refuse(operation, run.role):
            if let_in or not counts:
                yield f"{name} must refuse {run.name}, and answered {dict(counts)}"
            continue
        if not let_in:
            yield f"{name} never answered 2xx, but {dict(counts)}"
        if is_secured(contract(), operation) and run.turned_away[name] * 5 > run.signed_in[name]:
            yield f"{name}: of {run.signed_in[name]} requests with a cookie {run.turned_away[name]} were 401"


def format_report(run: Run) -> str:
    requests = sum(counts.total() for counts in run.statuses.values())
    columns = sorted({status for counts in run.statuses.values() for status in counts})
    lines = [
        f"\n== {run.name}: {requests} requests, {run.sequences} sequences, {run.seconds:.0f} s",
        *(line for output in run.outputs for line in SUMMARY_LINE.findall(output)),
        f"{'':20}" + "".join(f"{status:>6}" for status in columns),
    ]
    for name, counts in run.statuses.items():
        lines.append(f"{name:20}" + "".join(f"{counts[status] or '':>6}" for status in columns))
    if run.complaints:
        lines += [*run.outputs, *(f"FAILED {complaint}" for complaint in run.complaints)]
    return "\n".join(lines)


def main() -> None:
    cases = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(2**31)
    print(f"Seed {seed}; the same once more: just fuzz {cases} {seed}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with embedded.start(folder / "servers", durable=False) as servers:
            loaded = medisecure("load-demo", "--yes-known-passwords", DATABASE_URL=servers.database_url)
            if loaded.returncode:
                sys.exit(loaded.stderr)
            demo = Backend(servers.database_url, servers.redis_url)
            backends = [
                Backend(demo.copy().database_url, f"{demo.redis_url}?db={number}")
                for number in range(len(ROLES))
            ]
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                futures = [
                    pool.submit(fuzz, role, backend, folder / f"run-{role}", cases, seed)
                    for role, backend in zip(ROLES, backends, strict=True)
                ]
                runs = [future.result() for future in futures]
        embedded.discard(folder / "servers")
    print(*map(format_report, runs), sep="\n")
    sys.exit(any(run.complaints for run in runs))


if __name__ == "__main__":
    main()
