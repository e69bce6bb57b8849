"""The service or a worker of it is killed amid its requests; and instances whose clocks differ."""

import signal

import psutil

from tests.reliability.conftest import Clinic
from tests.reliability.load import HEALING_SECONDS, SLACK, Load, require_kept
from tests.support import shifted
from tests.support.client import Browser
from tests.support.factories import PASSWORD
from tests.support.running import Running, is_running, wait_until

MINUTES_APART = 5


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


def test_instances_whose_clocks_are_five_minutes_apart_serve_each_others_sessions(clinic: Clinic) -> None:
    half = MINUTES_APART * 30
    with shifted.instance(clinic.backend, -half) as slow, shifted.instance(clinic.backend, half) as fast:
        cookies = {}
        for name in clinic.filled.cookies:
            browser = Browser(fast if name in {"staff", "patient"} else slow)
            assert browser.login(f"{name}@test.example", PASSWORD).status_code == 200
            cookies[name] = browser.cookies
        with Load([slow, fast], cookies, clinic.filled.patient_id, clinic.filled.doctor_id) as load:
            for url in (slow, fast):
                refreshed = Browser(url, dict(cookies["other_patient"]))
                assert refreshed.post("/api/auth/refresh").status_code == 200
                cookies["other_patient"] = refreshed.cookies
            load.until_served()
    require_kept(load, clinic.postgres)
