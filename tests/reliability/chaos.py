"""Chaos: two instances at the highest steady rate of every kind of request, while their servers, their lines
and they themselves fail: `python -m tests.reliability.chaos MINUTES SEED`.

The same seed brings the same faults in the same order, and the same kinds of requests; not the same moments.
Exit status 1: something does not hold; what, stands at the end.
"""

import argparse
import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random, randrange

from persistence import embedded
from persistence.embedded.folders import postgres_home
from persistence.embedded.processes import ServerGroup
from persistence.migrations.commands import commands
from tests.bench.clinic import PASSWORD, Clinic, uid
from tests.bench.seed import fill
from tests.reliability.chaos_checks import count_lost, problems
from tests.reliability.chaos_clients import Checks, Memory
from tests.reliability.chaos_crowd import Crowd
from tests.reliability.chaos_faults import Instance, Misfortune, Site
from tests.reliability.chaos_leaks import Gauge, Growth
from tests.reliability.listeners import Audience, Listener, Poller, Stream, following
from tests.reliability.servers import PostgresServer, ValkeyServer
from tests.support.calls import CHART, DOCTOR
from tests.support.client import Browser
from tests.support.command import settings_of
from tests.support.relay import line_to
from tests.support.service import Backend

CLINIC = Clinic(
    patients=2000, doctors=110, appointments=6000, records=2000, events=2000, staff=1, patient_accounts=150
)
PEOPLE = {"admin": "admin", "doctor": "doctor0", "staff": "staff0", "patient": "patient0"}
RECORD = uid("rec", 0)  # which the cases ask for
THEIRS = f"UPDATE medical_records SET doctor_id = '{DOCTOR}', patient_id = '{CHART}' WHERE id = '{RECORD}'"
begun = time.monotonic()


def say(what: str) -> None:
    print(f"{time.monotonic() - begun:7.1f} s  {what}", flush=True)


@contextmanager
def site(seed: int, minutes: float) -> Iterator[Site]:
    """A filled clinic, its servers, and two instances: one of two workers, one on a line that can fail."""
    folder = Path(tempfile.mkdtemp(prefix="medisecure-", dir="/tmp"))
    with ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, folder)
        filled = folder / "filled"
        filled.mkdir()
        with embedded.start(filled, durable=False) as running:
            commands(running.database_url).upgrade()
            asyncio.run(fill(running.database_url, CLINIC))
        cleanup.callback(embedded.discard, filled)
        group = cleanup.enter_context(ServerGroup())
        with ExitStack() as found:
            home = postgres_home(filled, found)
        postgres = PostgresServer(home, group)
        valkey = ValkeyServer(folder, group)
        for server in (postgres, valkey):
            server.start()
            cleanup.callback(server.stop)
        postgres.sql(THEIRS)
        line = cleanup.enter_context(line_to(postgres.place))
        settings = settings_for(postgres, valkey, line.relay.port, minutes)
        instances = [Instance(folder, each, workers) for each, workers in zip(settings, (2, 1), strict=True)]
        for instance in instances:
            cleanup.callback(instance.kill)
            instance.start()
        yield Site(postgres, valkey, instances, line, Random(seed))  # noqa: S311  # to be repeated


def settings_for(
    postgres: PostgresServer, valkey: ValkeyServer, port: int, minutes: float
) -> list[dict[str, str]]:
    through_line = postgres.url.replace(str(postgres.port), str(port))
    return [
        settings_of(
            Backend(url, valkey.url),
            RATE_LIMIT_PER_MINUTE="1000000",
            LOGIN_ATTEMPTS="1000",
            DRAIN_SECONDS="5",
            ACCESS_TOKEN_EXPIRE_MINUTES=str(int(minutes) + 30),
        )
        for url in (postgres.url, through_line)
    ]


def sign_in(url: str) -> dict[str, dict[str, str]]:
    cookies = {}
    for name, account in PEOPLE.items():
        browser = Browser(url)
        answer = browser.login(f"{account}@example.com", PASSWORD)
        assert answer.status_code == 200, answer.text
        cookies[name] = browser.cookies
    return cookies


def listeners(instances: Sequence[Instance], cookies: Mapping[str, dict[str, str]]) -> list[Listener]:
    """Two at each instance, of all roles, who ask no other one."""
    one, two = ([instance.url] for instance in instances)
    return [
        Stream(one, cookies["staff"]),
        Poller(one, cookies["doctor"]),
        Stream(two, cookies["admin"]),
        Poller(two, cookies["patient"]),
    ]


def run(minutes: float, seed: int) -> list[str]:
    """What does not hold."""
    say(f"seed {seed}, {minutes:g} minutes")
    with site(seed, minutes) as place, ExitStack() as stack:
        backend = Backend(place.postgres.url, place.valkey.url)
        checks = stack.enter_context(Checks([instance.url for instance in place.instances]))
        cookies = sign_in(place.instances[0].url)
        crowd = Crowd(checks, cookies, seed)
        crowd.ask_everything_once()
        say(f"every kind of request has succeeded, {crowd.memory.requests} in all")
        misfortune = Misfortune(place, say)
        gauge = Gauge(place.instances, backend)
        listening = stack.enter_context(following(place.postgres.sql, *listeners(place.instances, cookies)))
        with crowd.asking():
            rate = crowd.find_rate(say)
            say(f"holding {rate:.0f} requests a second")
            start, before = time.monotonic(), crowd.memory.requests
            with gauge:
                misfortune.strike_until(start + minutes * 60)
            held = (crowd.memory.requests - before) / (time.monotonic() - start)
        listening.settle()
        found = [*crowd.defects[:5], *problems(backend, crowd.memory, misfortune), *listening.problems()]
        eternal = gauge.eternal_keys()
        found += [f"keys of Redis that never expire: {eternal[:5]}"] if eternal else []
        found += [f"{grown.what} grew from {grown.before:.0f} to {grown.last:.0f}"
                  for grown in gauge.growth() if grown.is_leak]  # fmt: skip
        lost = sum(count_lost(backend, crowd.memory).values())
        report(crowd, misfortune, held, gauge.growth(), lost, listening)
    return found


def report(
    crowd: Crowd, misfortune: Misfortune, held: float, growth: list[Growth], lost: int, listening: Audience
) -> None:
    memory = crowd.memory
    failed = Counter(each.outcome for each in memory.failed)
    acknowledged = sum(map(len, memory.acknowledged.values()))
    rows = [
        ("load held, requests a second", f"{held:.0f}"),
        ("requests", f"{memory.requests:,}"),
        ("median answer; 99th percentile", "{:.2f} s; {:.2f} s".format(*quantiles(memory.seconds))),
        ("operations served", f"{len(memory.served)}"),
        ("failed, all within the windows", ", ".join(f"{n} {why}" for why, n in failed.items()) or "none"),
        ("rows made and acknowledged; lost", f"{acknowledged:,}; {lost}"),
        ("events that the trail must have", f"{sum(map(len, memory.audited.values())):,}"),
        *((f"{n} x {name}", describe_failures(memory, misfortune, name))
          for name, n in sorted(misfortune.survived.items())),
        *listening.figures(),
        *((grown.what, f"{grown.before:.0f}, then {grown.last:.0f}") for grown in growth),
    ]  # fmt: skip
    print("\n| what | figure |\n|---|---|")
    for what, figure in rows:
        print(f"| {what} | {figure} |")


def describe_failures(memory: Memory, misfortune: Misfortune, fault: str) -> str:
    """How many requests failed, and how long after such faults the last one did."""
    healed = [
        each.began - window.over
        for each in memory.failed
        for window in misfortune.touched(each.began, each.ended)
        if window.fault == fault
    ]
    return f"{len(healed)} requests failed, healed in {max(0.0, *healed):.1f} s" if healed else "none failed"


def quantiles(seconds: Counter[int]) -> tuple[float, float]:
    cuts = statistics.quantiles(seconds.elements(), n=100)
    return cuts[49] / 100, cuts[98] / 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("minutes", type=float, nargs="?", default=60.0)
    parser.add_argument("seed", type=int, nargs="?", default=None)
    arguments = parser.parse_args()
    found = run(arguments.minutes, randrange(10**6) if arguments.seed is None else arguments.seed)  # noqa: S311  # no secret
    for problem in found:
        print(f"FAILED: {problem}")
    print("" if found else "Everything holds.")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
