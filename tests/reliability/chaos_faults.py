"""Faults, one after the other, in an order that a seed decides; and when requests may fail."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import NamedTuple

import psutil

from tests.reliability.servers import PostgresServer, Server, ValkeyServer
from tests.support.relay import Line
from tests.support.running import Running, free_port, started

HEALING_SECONDS = 5  # until all is served again, once a fault is over
SLACK = 3  # times a bound, on a machine that does something else as well
CALM_SECONDS = (5.0, 10.0)  # between two windows


class Window(NamedTuple):
    """When requests may fail: from a fault until it must be healed. `over`: when the fault itself is."""

    fault: str
    begins: float
    over: float
    ends: float


@dataclass
class Instance:
    """`medisecure serve` on a port that stays."""

    folder: Path
    settings: dict[str, str]
    workers: int
    port: int = field(default_factory=free_port)
    cleanup: ExitStack = field(default_factory=ExitStack)
    starts: int = 0
    running: Running = field(init=False)

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    def start(self) -> None:
        self.starts += 1
        arguments = ["serve", "--port", str(self.port), "--workers", str(self.workers)]
        log = self.folder / f"serve-{self.port}-{self.starts}.log"
        self.running = self.cleanup.enter_context(started(arguments, log, self.settings, self.folder))
        self.running.url = self.url
        self.running.wait_until_ready()

    def stop(self) -> None:
        """As an orchestrator stops it."""
        self.running.process.send_signal(signal.SIGTERM)
        self.running.process.wait(60)
        self.cleanup.close()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.running.process.pid, signal.SIGKILL)
        self.cleanup.close()

    def processes(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess, AttributeError):
            return [psutil.Process(self.running.process.pid), *self.running.children()]
        return []

    def kill_worker(self, chance: Random) -> None:
        workers = [each for each in self.processes()[1:] if "spawn_main" in " ".join(each.cmdline())]
        victim = chance.choice(workers or self.processes())
        victim.kill()


@dataclass
class Site:
    """All that can fail. `line`: between the second instance and PostgreSQL."""

    postgres: PostgresServer
    valkey: ValkeyServer
    instances: Sequence[Instance]
    line: Line
    chance: Random

    def moment(self) -> None:
        time.sleep(self.chance.uniform(1.0, 4.0))

    @contextmanager
    def paused(self, server: Server) -> Iterator[None]:
        server.pause()
        yield
        server.resume()

    def redis_killed(self) -> None:
        self.valkey.kill()
        self.moment()
        self.valkey.start()

    def redis_hangs(self) -> None:
        with self.paused(self.valkey):
            self.moment()

    def redis_restarted(self) -> None:
        self.valkey.stop()
        self.valkey.start()

    def postgresql_killed(self) -> None:
        self.postgres.kill()
        self.moment()
        self.postgres.start()

    def postgresql_hangs(self) -> None:
        with self.paused(self.postgres):
            self.moment()

    def postgresql_restarted(self) -> None:
        self.postgres.stop()
        self.postgres.start()

    def instance_killed(self) -> None:
        instance = self.chance.choice(self.instances)
        instance.kill()
        self.moment()
        instance.start()

    def worker_killed(self) -> None:
        self.instances[0].kill_worker(self.chance)
        self.moment()
        self.instances[0].running.wait_until_ready()

    def rolling_restart(self) -> None:
        for instance in self.instances:
            instance.stop()
            instance.start()

    def line_cut(self) -> None:
        self.line.do(lambda relay: relay.cut())

    def line_slow(self) -> None:
        self.line.do(lambda relay: setattr(relay, "delay", 0.2))
        self.moment()
        self.line.do(lambda relay: setattr(relay, "delay", 0.0))

    def faults(self, *, of_the_service: bool) -> list[Callable[[], None]]:
        """In an order that chance decides. `of_the_service`: those of its own processes, too."""
        found = [
            self.postgresql_killed, self.postgresql_hangs, self.postgresql_restarted, self.line_cut,
            self.line_slow, self.redis_killed, self.redis_hangs, self.redis_restarted,
        ]  # fmt: skip
        if of_the_service:
            found += [self.worker_killed, self.instance_killed, self.rolling_restart]
        self.chance.shuffle(found)
        return found


@dataclass
class Misfortune:
    """Faults until a moment; in each round, each of them once. The service's own processes end in the first
    third only: a leak shows in those that live on."""

    site: Site
    say: Callable[[str], None]
    windows: list[Window] = field(default_factory=list)
    survived: Counter[str] = field(default_factory=Counter)

    def strike_until(self, end: float) -> None:
        begun = time.monotonic()
        waiting = self.site.faults(of_the_service=True)
        is_first_third = True
        while True:
            time.sleep(self.site.chance.uniform(*CALM_SECONDS))
            if time.monotonic() > end - SLACK * HEALING_SECONDS:
                time.sleep(max(0.0, end - time.monotonic()))
                return
            was_first_third, is_first_third = is_first_third, time.monotonic() < begun + (end - begun) / 3
            if not waiting or is_first_third != was_first_third:
                waiting = self.site.faults(of_the_service=is_first_third)
            self.strike(waiting.pop())

    def strike(self, fault: Callable[[], None]) -> None:
        name, begins = fault.__name__, time.monotonic()
        self.say(name.replace("_", " "))
        fault()
        over = time.monotonic()
        window = Window(name, begins, over, over + SLACK * HEALING_SECONDS)
        self.windows.append(window)
        self.survived[name] += 1
        time.sleep(max(0.0, window.ends - time.monotonic()))

    def touched(self, began: float, ended: float) -> list[Window]:
        return [window for window in self.windows if window.begins <= ended and began <= window.ends]

    def cover(self, began: float, ended: float) -> bool:
        return bool(self.touched(began, ended))
