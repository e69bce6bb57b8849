"""`medisecure downtime-sheet`: who comes when to whom, on paper for when the service is down."""

import argparse
import asyncio
import os
import sys
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4
from zoneinfo import ZoneInfo

from msgspec import Struct

from api.clinic import Clinic
from api.commands.backup_settings import BackupSettings
from api.commands.environment import CommandError, ending_in_order, require_database_url
from api.downtime import notes
from api.downtime.files import write_privately
from api.downtime.html import render_html
from api.downtime.notes import Printed
from api.downtime.pdf import render_pdf
from api.downtime.sheet import Sheet, bounds_of, days_from, draw_up
from api.settings import Settings, SettingsError, iana_zone_names, read_setting
from persistence import downtime
from persistence.audit_chain import Key
from persistence.backup.manifest import find_backup
from persistence.backup.restoring import restored_on_scratch
from persistence.backup.scratch import scratch_place
from persistence.postgres.database import Database
from persistence.postgres.failures import DATABASE_ERRORS, first_line_of
from security import age

UNSHOWN = (
    "some characters are in no font of this machine, and stand on the sheet as boxes; install more fonts "
    "(Debian: fonts-noto-core, fonts-noto-cjk), or print HTML from a browser"
)


class Drawn(Struct, frozen=True):
    sheet: Sheet
    printed: Printed


class NotePlace(NamedTuple):
    """Where a note for the trail goes, and the key that it is under."""

    folder: Path
    key: Key


def print_downtime_sheet(arguments: argparse.Namespace) -> None:
    for problem in age.problems_of_recipients(arguments.recipient):
        raise CommandError(f"--recipient {problem}")
    if arguments.from_backup:
        why = "this is a backup"
        place = require_place_of_note(arguments.output, why)
        drawn = draw_from_backup(arguments.from_backup, arguments.days)
        content = render(drawn.sheet, arguments)
        leave_note(drawn.printed, place, why)
    else:
        url = require_database_url()
        drawn = asyncio.run(draw(url, arguments.days))
        content = render(drawn.sheet, arguments)
        asyncio.run(record(url, drawn.printed, arguments.output))
    if arguments.output:
        write_privately(arguments.output, content)
    else:
        sys.stdout.buffer.write(content)


def draw_from_backup(dest: Path, number_of_days: int) -> Drawn:
    """The sheet as the newest backup has it, out of a scratch server that is gone afterwards."""
    settings = BackupSettings.read()
    found = find_backup(dest)
    identities = settings.identities(encrypted=found.manifest.encrypted)
    with (
        ending_in_order(),
        scratch_place() as place,
        restored_on_scratch(found, identities, place, settings.pg_bin) as restored,
    ):
        return asyncio.run(draw(restored.url, number_of_days, restored.until))


def clinic_of_environment() -> Clinic:
    """What a sheet shows of the clinic; its other settings mean nothing here. Raises SettingsError."""
    defaults = Settings(database_url="", redis_url="", secret_key="")
    zone = read_setting("CLINIC_TIMEZONE", os.environ) or defaults.clinic_timezone
    if zone not in iana_zone_names():
        raise SettingsError("CLINIC_TIMEZONE must be a name of the IANA time zone database")
    return Clinic(
        name=read_setting("CLINIC_NAME", os.environ) or defaults.clinic_name,
        timezone=ZoneInfo(zone),
        appointment_length=defaults.clinic.appointment_length,
        currency=defaults.clinic_currency,
        fee=defaults.consultation_fee,
    )


async def draw(url: str, number_of_days: int, restored_until: datetime | None = None) -> Drawn:
    """The sheet as the database has it now, which may be a replica, or a backup of until then."""
    clinic, number, now = clinic_of_environment(), uuid4(), datetime.now(UTC)
    days = days_from(clinic.day_of(now), number_of_days)
    async with Database(url) as database:
        state = await downtime.age(database.reader)
        visits = await downtime.visits(database.reader, *bounds_of(clinic, days))
    source = describe_source(clinic, state, restored_until)
    return Drawn(draw_up(number, clinic, days, visits, now, source), Printed.of(now, number, visits))


def describe_source(clinic: Clinic, state: downtime.Age, restored_until: datetime | None = None) -> str:
    as_of = restored_until or (state.as_of if state.is_replica else None)
    kind = "a backup" if restored_until else "a replica" if state.is_replica else "the live database"
    return f"{kind}, as of {as_of.astimezone(clinic.timezone):%Y-%m-%d %H:%M}" if as_of else kind


def render(sheet: Sheet, arguments: argparse.Namespace) -> bytes:
    if is_pdf(arguments):
        content, is_whole = render_pdf(sheet, arguments.paper)
        if not is_whole:
            print(f"medisecure: {UNSHOWN}", file=sys.stderr)
    else:
        content = render_html(sheet)
    if not arguments.recipient:
        return content
    encrypted = BytesIO()
    age.encrypt(BytesIO(content), encrypted, arguments.recipient)
    return encrypted.getvalue()


def is_pdf(arguments: argparse.Namespace) -> bool:
    if arguments.format:
        return bool(arguments.format == "pdf")
    return ".pdf" in (arguments.output.suffixes if arguments.output else [])


async def record(url: str, printed: Printed, output: Path | None) -> None:
    """Tell the audit trail of the sheet, or a note beside it where nobody can write to the trail."""
    try:
        async with Database(url) as database, database.transaction() as transaction:
            await notes.record_sheet(transaction, printed)
    except (*DATABASE_ERRORS, OSError) as error:
        why = first_line_of(error)
        leave_note(printed, require_place_of_note(output, why), why)


def require_place_of_note(output: Path | None, why: str) -> NotePlace:
    """CommandError: there is none, or no key; so there will be no sheet."""
    secret = read_setting("AUDIT_KEY", os.environ) or read_setting("SECRET_KEY", os.environ)
    if output is None or not secret:
        raise CommandError(
            f"the audit trail cannot be written ({why}); give --output, and AUDIT_KEY or SECRET_KEY, so that "
            "a note beside the sheet tells of it"
        )
    return NotePlace(output.parent, Key.of(secret))


def leave_note(printed: Printed, place: NotePlace, why: str) -> None:
    note = notes.leave_note(place.folder, printed, place.key)
    print(
        f"medisecure: the audit trail cannot be written ({why}); {note} is entered there when a service "
        "starts whose DOWNTIME_FOLDER it lies in",
        file=sys.stderr,
    )
