"""Faults, one after the other, in an order that a seed decides; and when requests may fail."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
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
ROLLING_RESTART = "rolling restart"  # in which nothing may fail


class Fault(NamedTuple):
    name: str
    strike: Callable[[], None]


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
        with suppress(ProcessLookupError, AttributeError):  # it has ended, or was never started
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

    def kill(self, victim: Server | Instance) -> None:
        victim.kill()
        self.moment()
        victim.start()

    def hang(self, server: Server) -> None:
        server.pause()
        self.moment()
        server.resume()

    def kill_instance(self) -> None:
        self.kill(self.chance.choice(self.instances))

    def kill_worker(self) -> None:
        self.instances[0].kill_worker(self.chance)
        self.moment()
        self.instances[0].running.wait_until_ready()

    def restart_in_turns(self) -> None:
        for instance in self.instances:
            restart(instance)

    def cut_line(self) -> None:
        self.line.do(lambda relay: relay.cut())

    def slow_line(self) -> None:
        self.line.do(lambda relay: setattr(relay, "delay", 0.2))
        self.moment()
        self.line.do(lambda relay: setattr(relay, "delay", 0.0))

    def faults_of(self, name: str, server: Server) -> list[Fault]:
        return [
            Fault(f"{name} killed", partial(self.kill, server)),
            Fault(f"{name} hangs", partial(self.hang, server)),
            Fault(f"{name} restarted", partial(restart, server)),
        ]

    def faults(self, *, of_the_service: bool) -> list[Fault]:
        """In an order that chance decides. `of_the_service`: those of its own processes, too."""
        lines = [Fault("line cut", self.cut_line), Fault("line slow", self.slow_line)]
        found = [*self.faults_of("PostgreSQL", self.postgres), *lines, *self.faults_of("Redis", self.valkey)]
        if of_the_service:
            found += [
                Fault("worker killed", self.kill_worker),
                Fault("instance killed", self.kill_instance),
                Fault(ROLLING_RESTART, self.restart_in_turns),
            ]
        self.chance.shuffle(found)
        return found


def restart(what: Server | Instance) -> None:
    what.stop()
    what.start()


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

    def strike(self, fault: Fault) -> None:
        begins = time.monotonic()
        self.say(fault.name)
        fault.strike()
        over = time.monotonic()
        window = Window(fault.name, begins, over, over + SLACK * HEALING_SECONDS)
        self.windows.append(window)
        self.survived[fault.name] += 1
        time.sleep(max(0.0, window.ends - time.monotonic()))

    def touched(self, began: float, ended: float) -> list[Window]:
        return [window for window in self.windows if window.begins <= ended and began <= window.ends]

    def cover(self, began: float, ended: float) -> bool:
        return bool(self.touched(began, ended))
