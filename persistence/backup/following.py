"""`medisecure backup --follow`: the server's log, as it is written, into DEST/wal.

pg_receivewal writes it into a private folder on this machine, the spool; from there each segment, and every
few seconds the part that is there of the next one, is encrypted into DEST. Each time a mark is written into
the log itself, so that a restore finds out how late the last thing is that it has.
"""

import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from persistence.backup import BackupError
from persistence.backup.files import replace
from persistence.backup.log_files import HISTORY, SEGMENT, files_in, number_of, ship
from persistence.backup.manifest import Position, backups_in, encode
from persistence.backup.programs import environment_of, failure_of, split_password
from persistence.backup.source import connected
from persistence.embedded.processes import ServerGroup, stop_process, wait_for
from persistence.postgres.failures import DATABASE_ERRORS, first_line_of

INTERVAL_SECONDS = 10.0  # from one mark to the next
RECEIVE_SECONDS = 5.0  # that a mark may take from the server to the spool
SLOT = "medisecure_backup"
MARK = "SELECT pg_logical_emit_message(true, 'medisecure', '')::text AS lsn, clock_timestamp() AS now"
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
LOST = (b"has already been removed", b"invalidated", b"can no longer")
LATE_SECONDS = 60.0
TROUBLE = (BackupError, OSError, *DATABASE_ERRORS)


@dataclass
class Follower:
    """Follows one server into one folder. `say`: tells the operator."""

    url: str
    dest: Path
    spool: Path
    recipients: Sequence[str]
    programs: Path
    slot: str | None
    say: Callable[[str], None]
    stop: threading.Event = field(default_factory=threading.Event)
    shipped: dict[str, int] = field(default_factory=dict)  # partial files, by the time of their last change
    reached: datetime | None = None  # what was committed before is in DEST

    @property
    def wal(self) -> Path:
        return self.dest / "wal"

    @property
    def log(self) -> Path:
        return self.spool / "receiver.log"

    @property
    def name(self) -> str:
        return f"medisecure_{self.spool.name}"[:63]

    def follow(self, make_base: Callable[[], object]) -> None:
        """Until `stop` is set, whatever happens to the server or to DEST meanwhile. `make_base`: makes a
        backup in DEST. Raises, at the start only, what a connection raises, BackupError and OSError."""
        self.wal.mkdir(mode=0o700, exist_ok=True)
        with ServerGroup() as group:
            receiver = self.begin(group, make_base)
            try:
                while not self.stop.is_set():
                    try:
                        if receiver.poll() is not None:
                            self.forget_what_is_lost()
                            receiver = self.begin(group, make_base)
                        self.cycle()
                    except TROUBLE as error:
                        self.say(f"{first_line_of(error)}; trying again")
                    self.warn_if_late()
                    self.stop.wait(INTERVAL_SECONDS)
            finally:
                stop_process(receiver)
            self.ship_all()

    def begin(self, group: ServerGroup, make_base: Callable[[], object]) -> "subprocess.Popen[bytes]":
        """Receive; and make a base where what is in DEST does not go on from one."""
        if self.slot:
            with connected(self.url) as session:
                session.rows(MAKE_SLOT, self.slot)
        place, secrets = split_password(self.url)
        command = [str(self.programs / "pg_receivewal"), "-d", place, "-D", str(self.spool)]
        command += ["--no-loop", "--status-interval=1", "--no-password"]
        command += [f"--slot={self.slot}"] if self.slot else []
        self.log.unlink(missing_ok=True)
        environment = environment_of({**secrets, "PGAPPNAME": self.name})
        receiver = group.spawn(command, self.log, self.spool, None, subprocess.DEVNULL, environment)
        try:
            wait_for(lambda: receiver.poll() is not None or bool(self.spooled()), RECEIVE_SECONDS)
            if not self.spooled():
                raise BackupError(failure_of(command[0], self.log.read_bytes()))
            if not self.is_continuous():
                self.say("taking a base: the log in the folder does not go on from one")
                make_base()
        except BaseException:
            stop_process(receiver)
            raise
        return receiver

    def is_continuous(self) -> bool:
        """Whether a restore of the newest backup can go on with what is in DEST, and in the spool."""
        with connected(self.url) as session:
            size = session.value(SEGMENT_BYTES)
        bases = [backup for backup in backups_in(self.dest) if backup.manifest.kind == "physical"]
        if not bases:
            return False
        reached = [number_of(bases[0].manifest.first_segment, size)]
        reached += [
            number_of(file.name, size) + 1
            for file in files_in(self.wal)
            if SEGMENT.fullmatch(file.name) and not file.is_partial
        ]
        return min(number_of(path.name, size) for path in self.spooled()) <= max(reached)

    def spooled(self) -> list[Path]:
        """The segments in the spool, the part of one included, in the order of the log."""
        return sorted(path for path in self.spool.iterdir() if SEGMENT.match(path.name))

    def forget_what_is_lost(self) -> None:
        """What the server has removed, or will give no more, cannot be received: begin anew."""
        said = self.log.read_bytes()
        if not any(lost in said for lost in LOST):
            return
        self.say("the server no longer has the log that comes next")
        self.ship_all()
        for path in self.spooled():
            path.unlink()
        if self.slot:
            with connected(self.url) as session:
                session.rows(DROP_SLOT, self.slot)

    def cycle(self) -> None:
        """Leave a mark in the log, and ship all that has come. Raises what is in TROUBLE."""
        with connected(self.url) as session:
            [mark] = session.rows(MARK)
            system = session.facts().system
            has_come = wait_for(lambda: session.value(RECEIVED, mark["lsn"], self.name), RECEIVE_SECONDS)
        self.ship_all()
        if has_come:
            position = Position(system_identifier=system, lsn=mark["lsn"], at=mark["now"])
            replace(self.wal / "position.json", encode(position))
            self.reached = mark["now"]

    def ship_all(self) -> None:
        """Encrypt into DEST what is new in the spool, and keep there only where the receiver goes on from."""
        there = {file.name for file in files_in(self.wal) if not file.is_partial}
        histories = sorted(path for path in self.spool.iterdir() if HISTORY.fullmatch(path.name))
        for path in (*histories, *self.spooled()):
            with suppress(FileNotFoundError):  # the receiver has just renamed it: the next time
                changed = path.stat().st_mtime_ns
                if path.name not in there and self.shipped.get(path.name) != changed:
                    ship(path, self.wal, self.recipients)
                    self.shipped = {**self.shipped, path.name: changed}
        whole = [path for path in self.spooled() if SEGMENT.fullmatch(path.name)]
        for path in whole[:-1]:
            path.unlink()
        self.shipped = {path.name: self.shipped.get(path.name, 0) for path in self.spooled()}

    def warn_if_late(self) -> None:
        now = datetime.now(UTC)
        if self.reached is not None and (now - self.reached).total_seconds() > LATE_SECONDS:
            self.say(f"what was committed after {self.reached:%Y-%m-%d %H:%M:%S} UTC is in no backup yet")
