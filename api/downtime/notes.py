"""What a sheet leaves in the audit trail; and, where nobody can write there, in a note beside the sheet,
which the next start of the service enters.

A note names ids only. It is under a MAC of the audit trail's key, without which nobody writes or changes one.
To remove one leaves no trace but the number that stands on the sheet: the trail has no event of that number.
"""

import hmac
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import msgspec
from msgspec import Raw, Struct

from api.downtime.files import write_privately
from api.http.auditing import command_event
from persistence import audit, downtime
from persistence.audit import Action, Event
from persistence.audit_chain import Key
from persistence.downtime import Visit
from persistence.postgres.background import retry
from persistence.postgres.database import Database, Transaction
from persistence.postgres.paging import MAX_NAMED_IDS

SUFFIX, ENTERED = ".note", ".entered"
RETRY_SECONDS = 30.0

log = logging.getLogger("medisecure.audit")


class Printed(Struct, frozen=True):
    """That a sheet was made. `number` stands on it; `visits`: pairs of an appointment and its chart."""

    at: datetime
    number: UUID
    visits: list[tuple[UUID, UUID]]

    @classmethod
    def of(cls, at: datetime, number: UUID, visits: Sequence[Visit]) -> "Printed":
        return cls(at, number, [(visit.id, visit.patient_id) for visit in visits])

    def events(self) -> list[Event]:
        """As many as name all of them; one if there is nobody."""
        batches = [
            self.visits[begin : begin + MAX_NAMED_IDS]
            for begin in range(0, max(len(self.visits), 1), MAX_NAMED_IDS)
        ]
        return [
            msgspec.structs.replace(
                command_event(Action.APPOINTMENT_LIST),
                at=self.at,
                target_ids=[appointment for appointment, _ in batch],
                patient_ids=sorted({chart for _, chart in batch}),
                request_id=self.number,
            )
            for batch in batches
        ]


class Note(Struct, frozen=True):
    """A note as it lies in its file. `key`: what the trail's seals call the key."""

    printed: Raw
    key: str
    mac: str


def mac_of(printed: bytes, key: Key) -> str:
    return hmac.digest(key.secret, b"downtime sheet " + printed, sha256).hex()


def leave_note(folder: Path, printed: Printed, key: Key) -> Path:
    """Returns once the note is durable."""
    raw = msgspec.json.encode(printed)
    note = folder / f"{printed.number}{SUFFIX}"
    write_privately(note, msgspec.json.encode(Note(Raw(raw), key.id, mac_of(raw, key))))
    return note


def read_note(file: Path, keys: Sequence[Key]) -> Printed | None:
    """None: it was not written under one of these keys, or is no note."""
    try:
        note = msgspec.json.decode(file.read_bytes(), type=Note)
        raw = bytes(note.printed)
        if any(hmac.compare_digest(mac_of(raw, key), note.mac) for key in keys):
            return msgspec.json.decode(raw, type=Printed)
    except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
        pass
    return None


def find_notes(folder: Path, keys: Sequence[Key]) -> Iterator[tuple[Path, Printed]]:
    """One that cannot be read, as where root has left it, keeps none of the others waiting."""
    for file in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            printed = read_note(file, keys)
        except OSError as error:
            log.error("The note %s cannot be read (%s): it is not entered", file.name, error.strerror)
            continue
        if printed is None:
            log.error("The note %s is not under the audit trail's key: it is not entered", file.name)
        else:
            yield file, printed


def mark_entered(file: Path) -> None:
    with suppress(FileNotFoundError):  # another instance was first
        file.rename(file.with_suffix(ENTERED))
        log.warning("The note %s of a downtime sheet is entered in the audit trail", file.name)


async def record_sheet(transaction: Transaction, printed: Printed) -> bool:
    """False if the trail has it already, as where two instances enter a note at once."""
    await transaction.lock(printed.number.int >> 65)
    if await downtime.is_in_trail(transaction, printed.at, printed.number):
        return False
    await audit.add(transaction, *printed.events())
    return True


async def enter_notes(database: Database, folder: Path, keys: Sequence[Key]) -> None:
    """Enter each note of the folder in the trail, once, and rename its file."""
    for file, printed in find_notes(folder, keys):
        async with database.transaction() as transaction:
            await record_sheet(transaction, printed)
        mark_entered(file)


async def enter_notes_at_start(database: Database, folder: Path, keys: Sequence[Key]) -> None:
    await retry(
        lambda: enter_notes(database, folder, keys),
        RETRY_SECONDS,
        log,
        "Notes of downtime sheets could not be entered in the audit trail: %s",
    )
