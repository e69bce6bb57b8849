"""A follower of a real server in a thread of the tests, whose bases are manifests only, which is quicker."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace as with_changes
from pathlib import Path
from uuid import uuid4

import psutil

from persistence.backup import BackupError
from persistence.backup.files import replace
from persistence.backup.following import DROP_SLOT, Follower
from persistence.backup.making import SEGMENT, begin_manifest
from persistence.backup.manifest import MANIFEST, encode
from persistence.backup.programs import CLIENTS, find_programs
from persistence.backup.source import connected
from tests.support.running import wait_until
from tests.support.service import Backend


class Following:
    """`said`: what it tells the operator. `bases`: the names of those that it asked for."""

    def __init__(self, backend: Backend, folder: Path) -> None:
        self.backend = backend
        self.said: list[str] = []
        self.bases: list[str] = []
        self.failed: list[BaseException] = []
        for name in ("dest", "spool"):
            (folder / name).mkdir()
        programs, slot = find_programs(18, CLIENTS, None), f"test_{uuid4().hex[:12]}"
        self.follower = Follower(
            backend.database_url, folder / "dest", folder / "spool", [], programs, slot, self.said.append
        )

    @property
    def slot(self) -> str:
        return str(self.follower.slot)

    def make_base(self) -> None:
        dest = self.follower.dest
        name = f"{len(list(dest.iterdir())):03}-physical"
        (dest / name).mkdir()
        with connected(self.backend.database_url) as session:
            segment = session.value(SEGMENT, session.value("SELECT pg_current_wal_insert_lsn()::text"))
            manifest = begin_manifest(session, session.facts(), "physical", [], segment)
        replace(dest / name / MANIFEST, encode(manifest))
        self.bases.append(name)

    def run(self) -> None:
        try:
            self.follower.follow(self.make_base)
        except BackupError as error:
            self.failed.append(error)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """It follows, and has shipped something; at the end of the block it stops."""
        self.follower = with_changes(self.follower, stop=threading.Event(), reached=None)
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            self.wait_until_shipped()
            yield
        finally:
            self.follower.stop.set()
            thread.join()

    def wait_until_shipped(self) -> None:
        """Until what is committed by now is in DEST."""
        [(now,)] = self.backend.sql("SELECT clock_timestamp()")

        def is_shipped() -> bool:
            assert not self.failed, self.failed
            return self.follower.reached is not None and self.follower.reached > now

        wait_until(is_shipped, "a mark after what was committed")

    def receiver(self) -> psutil.Process:
        """The process of pg_receivewal."""
        place = str(self.follower.received)
        [found] = [each for each in psutil.Process().children() if place in each.cmdline()]
        return found

    def is_slot_lost(self) -> bool:
        statement = "SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = $1"
        return self.backend.sql(statement, self.slot) == [(True,)]

    def outrun(self) -> None:
        """The server writes more of its log than it keeps for the slot."""
        for _ in range(3):
            self.backend.sql("SELECT pg_logical_emit_message(true, 'test', repeat('x', 100000))")
            self.backend.sql("SELECT pg_switch_wal()")
        self.backend.sql("CHECKPOINT")

    def end(self) -> None:
        self.backend.sql(DROP_SLOT, self.slot)
