"""The service or a worker of it is killed amid its requests."""

import signal

import psutil

from tests.reliability.conftest import Clinic
from tests.reliability.load import HEALING_SECONDS, SLACK, require_kept
from tests.support.running import Running, is_running, wait_until


def workers_of(service: Running) -> set[psutil.Process]:
    living = filter(is_running, service.children())
    return {child for child in living if "spawn_main" in " ".join(child.cmdline())}


def test_what_a_killed_instance_acknowledged_is_there_and_the_other_works_on(clinic: Clinic) -> None:
    with clinic.serving() as service, clinic.serving() as other, clinic.load(service, other) as load:
        service.process.send_signal(signal.SIGKILL)
        service.process.wait()
        assert load.until_served() < SLACK * HEALING_SECONDS
    assert any(each.status is None for each in load.attempts)
    require_kept(load, clinic.postgres)


def test_a_killed_worker_is_replaced_and_loses_nothing(clinic: Clinic) -> None:
    with clinic.serving("--workers", "2") as service, clinic.load(service) as load:
        before = workers_of(service)
        min(before, key=lambda worker: worker.pid).kill()
        wait_until(lambda: len(workers_of(service) - before) == 1, "another worker")
        assert load.until_served() < SLACK * HEALING_SECONDS
        assert len(workers_of(service)) == 2
    require_kept(load, clinic.postgres)
