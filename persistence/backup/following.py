"""`medisecure backup --follow`: the server's log, as it is written, into DEST/wal.

pg_receivewal writes it into a private folder on this machine, the spool; from there each segment, and every
few seconds the part that is there of the next one, is encrypted into DEST. Each time a mark is written into
the log itself, so that a restore finds out how late the last thing is that it has.
"""

import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from persistence.backup import BackupError
from persistence.backup.files import PARTIAL, replace
from persistence.backup.log_files import HISTORY, SEGMENT, files_in, number_of, ship
from persistence.backup.making import require_same_system
from persistence.backup.manifest import Position, backups_in, encode
from persistence.backup.programs import environment_of, failure_of, split_password
from persistence.backup.source import Session, connected
from persistence.embedded.processes import ServerGroup, stop_process, wait_for
from persistence.postgres.failures import DATABASE_ERRORS, first_line_of
from security.age import AgeError

INTERVAL_SECONDS = 10.0  # from one mark to the next
RECEIVE_SECONDS = 5.0  # that a mark may take from the server to the spool
LATE_SECONDS = 60.0
SLOT = "medisecure_backup"
# A server that has lost its power says nothing: libpq would wait for a quarter of an hour.
PATIENCE = "connect_timeout=5&tcp_user_timeout=15000"
MARK = "SELECT pg_logical_emit_message(true, 'medisecure', '')::text AS lsn, clock_timestamp() AS now"
MAY_SEE_RECEIVER = "SELECT pg_has_role('pg_read_all_stats', 'USAGE')"
IS_RECEIVING = "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE application_name = $1)"
# What the receiver has written, as it says every second.
RECEIVED = """
    SELECT coalesce(bool_or(write_lsn >= $1::text::pg_lsn), false) FROM pg_stat_replication
    WHERE application_name = $2
"""
MAKE_SLOT = """
    SELECT pg_create_physical_replication_slot($1, true)
    WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)
"""
DROP_SLOT = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1"
SEGMENT_BYTES = "SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size'"
# It was removed; the slot was given up; or a standby was promoted that had less than what is here.
LOST = (
    b"has already been removed",
    b"invalidated",
    b"can no longer",
    b"is not in this server's history",
    b"is ahead of the WAL flush position",
)
TROUBLE = (BackupError, AgeError, OSError, *DATABASE_ERRORS)


@dataclass
class Follower:
    """Follows one server into one folder. `say`: tells the operator. `spool`: has a folder for each server,
    so that the log of one is never taken for another's."""

    url: str
    dest: Path
    spool: Path
    recipients: Sequence[str]
    programs: Path
    slot: str | None
    say: Callable[[str], None]
    stop: threading.Event = field(default_factory=threading.Event)
    name: str = field(default_factory=lambda: f"medisecure_{uuid4().hex}")  # of the receiver, to the server
    system: str = ""  # the server's identifier
    shipped: dict[str, int] = field(default_factory=dict)  # from the spool, by the time of the last change
    begun: datetime = field(default_factory=lambda: datetime.now(UTC))
    reached: datetime | None = None  # what was committed before is in DEST

    @property
    def wal(self) -> Path:
        return self.dest / "wal"

    @property
    def received(self) -> Path:
        return self.spool / self.system

    @property
    def log(self) -> Path:
        return self.spool / "receiver.log"

    def follow(self, make_base: Callable[[], object]) -> None:
        """Until `stop` is set, whatever happens to the server or to DEST meanwhile. `make_base`: makes a
        backup in DEST. Raises, at the start only, what a connection raises, BackupError and OSError."""
        self.wal.mkdir(mode=0o700, exist_ok=True)
        for half in self.wal.glob(f"{PARTIAL}*"):  # of a follower that was killed
            half.unlink()
        with ServerGroup() as group:
            receiver = self.begin(group, make_base)
            try:
                while not self.stop.is_set():
                    try:
                        if receiver.poll() is not None:
                            receiver = self.begin(group, make_base)
                        self.cycle()
                    except TROUBLE as error:
                        self.say(f"{first_line_of(error)}; trying again")
                    self.warn_if_late()
                    self.stop.wait(INTERVAL_SECONDS)
            finally:
                stop_process(receiver)
            self.ship_all()

    def begin(
        self, group: ServerGroup, make_base: Callable[[], object], *, is_lost: bool = False
    ) -> "subprocess.Popen[bytes]":
        """Receive; and make a base where what is in DEST does not go on from one, as after a loss."""
        with connected(self.url) as session:
            self.require_usable(session)
            receiver = self.receive(group)
            try:
                wait_for(lambda: receiver.poll() is not None or self.has_begun(session), RECEIVE_SECONDS)
                said = self.log.read_bytes()
                if not is_lost and any(lost in said for lost in LOST):
                    stop_process(receiver)
                    self.forget(session)
                    return self.begin(group, make_base, is_lost=True)
                if not self.spooled():
                    raise BackupError(failure_of("pg_receivewal", said))
                if is_lost or not self.is_continuous(session):
                    self.say("taking a base: the log in the folder does not go on from one")
                    make_base()
            except BaseException:
                stop_process(receiver)
                raise
        return receiver

    def require_usable(self, session: Session) -> None:
        """Raises BackupError."""
        facts = session.facts()
        require_same_system(self.dest, facts)
        if not session.value(MAY_SEE_RECEIVER):
            raise BackupError(
                "this role cannot see how much of the log has come: GRANT pg_read_all_stats TO it"
            )
        self.system = facts.system
        self.received.mkdir(mode=0o700, exist_ok=True)
        if self.slot:
            session.rows(MAKE_SLOT, self.slot)

    def receive(self, group: ServerGroup) -> "subprocess.Popen[bytes]":
        place, secrets = split_password(self.url)
        place += f"{'&' if '?' in place else '?'}application_name={self.name}&{PATIENCE}"
        command = [str(self.programs / "pg_receivewal"), "-d", place, "-D", str(self.received)]
        command += ["--no-loop", "--status-interval=1", "--no-password"]
        command += [f"--slot={self.slot}"] if self.slot else []
        self.log.unlink(missing_ok=True)
        environment = environment_of(secrets)
        return group.spawn(command, self.log, self.received, None, subprocess.DEVNULL, environment)

    def has_begun(self, session: Session) -> bool:
        return bool(self.spooled()) and bool(session.value(IS_RECEIVING, self.name))

    def forget(self, session: Session) -> None:
        """What the server has not any more cannot be received: begin anew."""
        self.say("the server no longer has the log that comes next")
        self.ship_all()
        for path in self.spooled():
            path.unlink()
        if self.slot:
            session.rows(DROP_SLOT, self.slot)

    def is_continuous(self, session: Session) -> bool:
        """Whether a restore of the newest backup can go on with what is in DEST, and in the spool: on one
        timeline, as nobody knows whether a part of another one is missing."""
        size = session.value(SEGMENT_BYTES)
        bases = [backup for backup in backups_in(self.dest) if backup.manifest.kind == "physical"]
        if not bases:
            return False
        first = min((path.name for path in self.spooled()), key=lambda name: number_of(name, size))
        base = bases[0].manifest.first_segment
        whole = [file.name for file in files_in(self.wal) if not file.is_partial]
        reached = [number_of(name, size) + 1 for name in whole if name[:8] == first[:8]]
        reached += [number_of(base, size)] if base[:8] == first[:8] else []
        return number_of(first, size) <= max(reached, default=-1)

    def spooled(self) -> list[Path]:
        """The segments in the spool, the part of one included, in the order of the log."""
        return sorted(path for path in self.received.iterdir() if SEGMENT.match(path.name))

    def cycle(self) -> None:
        """Leave a mark in the log, and ship all that has come. Raises what is in TROUBLE."""
        with connected(self.url) as session:
            [mark] = session.rows(MARK)
            has_come = wait_for(lambda: session.value(RECEIVED, mark["lsn"], self.name), RECEIVE_SECONDS)
        self.ship_all()
        if has_come:
            position = Position(system_identifier=self.system, lsn=mark["lsn"], at=mark["now"])
            replace(self.wal / "position.json", encode(position))
            self.reached = mark["now"]

    def ship_all(self) -> None:
        """Encrypt into DEST what is new in the spool, and keep there only where the receiver goes on from."""
        there = {file.name for file in files_in(self.wal) if not file.is_partial}
        waiting = self.to_ship()
        while waiting:
            path = waiting.pop(0)
            try:
                changed = path.stat().st_mtime_ns
                if path.name not in there and self.shipped.get(path.name) != changed:
                    ship(path, self.wal, self.recipients)
                    self.shipped[path.name] = changed
            except FileNotFoundError:
                if path.exists():  # it is DEST that is gone
                    raise
                waiting = self.to_ship()  # the receiver has just renamed it, because it is whole
        self.remove_shipped(there | self.shipped.keys())

    def to_ship(self) -> list[Path]:
        histories = sorted(path for path in self.received.iterdir() if HISTORY.fullmatch(path.name))
        return [*histories, *self.spooled()]

    def remove_shipped(self, names: set[str]) -> None:
        """All before the last whole segment, from which the receiver goes on."""
        done = [path for path in self.spooled() if path.name in names]
        whole = [path for path in done if SEGMENT.fullmatch(path.name)]
        for path in done:
            if whole and path < whole[-1]:
                path.unlink()
                self.shipped.pop(path.name, None)

    def warn_if_late(self) -> None:
        reached = self.reached or self.begun
        if (datetime.now(UTC) - reached).total_seconds() > LATE_SECONDS:
            self.say(f"what was committed after {reached:%Y-%m-%d %H:%M:%S} UTC is in no backup yet")
