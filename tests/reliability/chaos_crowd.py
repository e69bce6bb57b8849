"""A crowd that asks at a steady rate: the highest that a short ramp has found, less a margin."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import cast

from tests.reliability.chaos_clients import Checks, Door, Memory, NoAnswerError
from tests.reliability.chaos_requests import Kind, kinds
from tests.support.factories import World
from tests.support.service import Service

THREADS = 12
STEP_SECONDS = 3.0
FIRST_RATE, GROWTH = 20.0, 1.4
HELD = 0.7  # of the highest rate, so that what a fault has held up is made up for
LATE_SECONDS = 0.5  # behind the clock, after which a slot is given up


@dataclass
class Pace:
    """Gives each of many threads its next moment, `rate` in a second."""

    rate: float
    following: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def wait(self) -> None:
        with self.lock:
            slot = max(self.following, time.monotonic() - LATE_SECONDS)
            self.following = slot + 1 / self.rate
        time.sleep(max(0.0, slot - time.monotonic()))


@dataclass
class Crowd:
    checks: Checks
    cookies: Mapping[str, dict[str, str]]
    seed: int
    memory: Memory = field(default_factory=Memory)
    pace: Pace = field(default_factory=lambda: Pace(FIRST_RATE))
    over: threading.Event = field(default_factory=threading.Event)
    defects: list[str] = field(default_factory=list)

    def world(self) -> World:
        door = Door(self.checks, self.memory)
        people = {name: door.browser(dict(jar)) for name, jar in self.cookies.items()}
        return World(cast(Service, door), dict(people))  # it opens browsers, as a Service does

    def ask_everything_once(self) -> None:
        """Each kind must succeed, before there are faults. AssertionError: it did not."""
        world = self.world()
        for kind in kinds(Random(self.seed)):  # noqa: S311  # to be repeated
            self.ask(world, kind)
        assert not self.memory.failed, self.memory.failed[:5]
        assert not self.defects, self.defects[:5]

    def ask(self, world: World, kind: Kind) -> None:
        try:
            request = kind.case.make(world, kind.case.rows[0])
            options = {} if request.body is None else {"json": request.body}
            request.browser.request(request.method, request.path, **options)
        except NoAnswerError:
            pass  # the memory has it
        except (AssertionError, KeyError):
            pass  # what the request needed was not served, which the memory has as well
        except Exception as error:  # a thread's: the run looks at it
            self.defects.append(f"{kind.operation}: {type(error).__name__}: {error}")

    def work(self, number: int) -> None:
        chance = Random(f"{self.seed}/{number}")  # noqa: S311  # to be repeated
        world, all_kinds = self.world(), kinds(chance)
        weights = [kind.weight for kind in all_kinds]
        while not self.over.is_set():
            self.pace.wait()
            [kind] = chance.choices(all_kinds, weights)
            self.ask(world, kind)

    @contextmanager
    def asking(self) -> Iterator[None]:
        threads = [threading.Thread(target=self.work, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.over.set()
            for thread in threads:
                thread.join()

    def find_rate(self, say: Callable[[str], None]) -> float:
        """Go faster until the answers do not keep up; then hold what is steady."""
        best, misses = FIRST_RATE, 0
        while misses < 2:  # one may be a hiccup of the machine
            before, began = self.memory.requests, time.monotonic()
            time.sleep(STEP_SECONDS)
            reached = (self.memory.requests - before) / (time.monotonic() - began)
            say(f"asked for {self.pace.rate:.0f} a second, answered {reached:.0f}")
            best = max(best, reached)
            if reached < 0.9 * self.pace.rate:
                misses += 1
            else:
                misses, self.pace.rate = 0, self.pace.rate * GROWTH
        self.pace.rate = HELD * best
        return self.pace.rate
