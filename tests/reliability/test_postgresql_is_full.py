"""PostgreSQL has no room left on its disk, or no connection."""

import asyncio
import os
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncpg
import httpx
import pytest

from tests.reliability.conftest import Clinic
from tests.reliability.load import HEALING_SECONDS, MAX_ANSWER_SECONDS, SLACK, TABLES, Load, require_kept
from tests.support.client import Browser
from tests.support.factories import chart
from tests.support.running import Running, wait_until

DISK = "96m"  # of which the databases take a third
WAITING = 30  # clients; a process has ten connections for writes
OTHERS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'medisecure'"


def run(*command: str) -> None:
    subprocess.run(command, check=True)


@contextmanager
def small_disk(clinic: Clinic) -> Iterator[Path]:
    """The databases of a server that starts again are on a disk of their own; its log of changes is not."""
    clinic.postgres.stop()
    disk = clinic.postgres.data / "base"
    owner, before = disk.stat(), disk.with_name("base.before")
    disk.rename(before)
    disk.mkdir()
    options = f"size={DISK},mode=0700,uid={owner.st_uid},gid={owner.st_gid}"
    run("/bin/mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk))
    try:
        run("/bin/cp", "--archive", f"{before}/.", str(disk))
        clinic.postgres.start()
        yield disk
    finally:
        run("/bin/umount", "--lazy", str(disk))


def fill(path: Path) -> None:
    with open(path, "wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(65536))


def refused(load: Load, since: float) -> set[str]:
    return {each.kind for each in load.since(since) if each.status == 503}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_is_a_503_and_heals(clinic: Clinic) -> None:
    with small_disk(clinic) as disk, clinic.serving() as service, clinic.load(service) as load:
        fill(disk / "filler")
        wait_until(lambda: {*TABLES, "read_chart"} <= refused(load, 0), "no room for anything")
        ready = httpx.get(f"{service.url}/health/ready")
        assert (ready.status_code, ready.json()["degraded"]) == (200, ["database_full"])
        doctor = Browser(service.url, dict(clinic.filled.cookies["doctor"]))
        assert doctor.get("/api/doctors").status_code == 200
        (disk / "filler").unlink()
        assert load.until_served() < SLACK * HEALING_SECONDS
        wait_until(lambda: not httpx.get(f"{service.url}/health/ready").json()["degraded"], "room")
        require_kept(load, clinic.postgres)


class Crowd(threading.Thread):
    """Takes every connection that is to be had, at once."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.is_full = threading.Event()
        self.is_over = threading.Event()

    def run(self) -> None:
        asyncio.run(self.take())

    async def take(self) -> None:
        taken = []
        while not self.is_over.is_set():
            try:
                taken.append(await asyncpg.connect(self.url))
            except asyncpg.TooManyConnectionsError:
                if not self.is_full.is_set():
                    await taken[0].execute(OTHERS)  # the service has to come again
                    self.is_full.set()
                await asyncio.sleep(0.01)
        for each in taken:
            await each.close()


def test_connections_that_others_have_taken_are_a_503_until_they_are_free(clinic: Clinic) -> None:
    with clinic.serving() as service, clinic.load(service) as load:
        crowd = Crowd(clinic.postgres.url)
        crowd.start()
        crowd.is_full.wait()
        wait_until(lambda: refused(load, 0), "a refusal")
        crowd.is_over.set()
        crowd.join()
        assert load.until_served() < SLACK * HEALING_SECONDS
    require_kept(load, clinic.postgres)


def add_chart(clinic: Clinic, service: Running) -> httpx.Response:
    return Browser(service.url, dict(clinic.filled.cookies["staff"])).post("/api/patients", chart())


def test_a_pool_that_stays_busy_is_a_503_and_leaves_the_reads_alone(clinic: Clinic) -> None:
    async def wait() -> list[httpx.Response]:
        holder = await asyncpg.connect(clinic.postgres.url)
        await holder.execute("BEGIN; LOCK TABLE patients IN SHARE ROW EXCLUSIVE MODE")
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(WAITING) as clients:
            asked = [loop.run_in_executor(clients, add_chart, clinic, service) for _ in range(WAITING)]
            answers = await asyncio.gather(*asked)
        await holder.close()
        return answers

    with clinic.serving() as service, clinic.load(service) as load:
        for answer in asyncio.run(wait()):
            assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
            assert answer.elapsed.total_seconds() < SLACK * MAX_ANSWER_SECONDS
        assert load.until_served() < SLACK * HEALING_SECONDS
    assert not load.summary()["list_doctors", "503"]
    require_kept(load, clinic.postgres)
