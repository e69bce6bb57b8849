"""Where nobody can write to the audit trail, a note beside the sheet tells of it until a service starts."""

import json
import stat
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from api.downtime.notes import find_notes, mark_entered
from persistence.audit_chain import Key
from tests.commands.test_downtime_sheet import morning
from tests.support import audit_trail
from tests.support.command import Refusal, medisecure, settings_of
from tests.support.running import wait_until
from tests.support.service import KEY, Backend, Service
from tests.support.small_clinic import add_appointment, add_chart, add_doctor

OTHER_KEY = "another-key-of-the-audit-trail-0123456789"


@pytest.fixture
def read_only(migrated: Backend) -> Backend:
    """The same database, with one appointment in it, where every transaction only reads."""
    add_appointment(migrated, add_doctor(migrated, "Zoe"), add_chart(migrated, "Ann"), morning(0, 12))
    url = f"{migrated.database_url}&default_transaction_read_only=on"
    return replace(migrated, database_url=url)


def leave_note(read_only: Backend, folder: Path) -> Path:
    made = medisecure("downtime-sheet", "--output", str(folder / "sheet.html"), **settings_of(read_only))
    assert made.returncode == 0, made.stderr
    assert (
        "the audit trail cannot be written (cannot execute INSERT in a read-only transaction)" in made.stderr
    )
    [note] = folder.glob("*.note")
    return note


def test_a_note_beside_the_sheet_is_entered_once_at_the_next_start(
    migrated: Backend, read_only: Backend, tmp_path: Path
) -> None:
    """By two instances that start together; with the time of the sheet."""
    note = leave_note(read_only, tmp_path)
    assert stat.S_IMODE(note.stat().st_mode) == 0o600
    assert b"Ann" not in note.read_bytes()
    assert f"Sheet {note.stem}" in (tmp_path / "sheet.html").read_text()
    assert audit_trail.rows(migrated) == []
    settings = migrated.settings(downtime_folder=str(tmp_path))
    with Service(migrated, settings), Service(migrated, settings):
        wait_until(lambda: not note.exists(), "the note is entered")
    [event] = audit_trail.rows(migrated)
    assert (event["action"], str(event["request_id"])) == ("appointment.list", note.stem)
    assert (len(event["target_ids"]), len(event["patient_ids"])) == (1, 1)
    assert event["at"].timestamp() < note.with_suffix(".entered").stat().st_mtime
    note.with_suffix(".entered").rename(note)  # as on a folder that was restored
    with Service(migrated, settings):
        wait_until(lambda: not note.exists(), "the note is looked at again")
    assert len(audit_trail.rows(migrated)) == 1


def test_a_note_that_somebody_else_wrote_or_changed_is_not_entered(
    read_only: Backend, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    note = leave_note(read_only, tmp_path)
    written = note.read_bytes()
    assert [printed.number for _, printed in find_notes(tmp_path, [Key.of(OTHER_KEY), Key.of(KEY)])]
    assert list(find_notes(tmp_path, [Key.of(OTHER_KEY)])) == []
    changed = json.loads(written)
    changed["printed"]["visits"] = []
    for forged in (json.dumps(changed).encode(), written[:-10], b"\xff", b"{}"):
        note.write_bytes(forged)
        assert list(find_notes(tmp_path, [Key.of(KEY)])) == []
    assert (
        caplog.messages == [f"The note {note.name} is not under the audit trail's key: it is not entered"] * 5
    )


def test_a_note_that_cannot_be_read_keeps_no_other_waiting(
    read_only: Backend, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As one that root has left there: it is named, and the rest are entered."""
    note = leave_note(read_only, tmp_path)
    (tmp_path / "0.note").mkdir()
    assert [file for file, _ in find_notes(tmp_path, [Key.of(KEY)])] == [note]
    assert caplog.messages == ["The note 0.note cannot be read (Is a directory): it is not entered"]


def test_a_note_that_another_instance_has_entered_is_no_error(tmp_path: Path) -> None:
    mark_entered(tmp_path / "gone.note")
    (tmp_path / "gone.note").symlink_to(tmp_path / "nowhere")
    assert list(find_notes(tmp_path, [])) == []


@pytest.mark.slow
def test_a_sheet_from_a_backup_says_of_when_it_is_and_leaves_a_note(
    migrated: Backend, read_only: Backend, tmp_path: Path
) -> None:
    """While PostgreSQL is down: only the backup and its identity are needed."""
    keys = medisecure("backup-keygen", str(tmp_path / "identity"))
    assert keys.returncode == 0, keys.stderr
    recipient = keys.stdout.removeprefix("BACKUP_RECIPIENT=").split()[0]
    made = medisecure(
        "backup", str(tmp_path / "backups"), "--dump", BACKUP_RECIPIENT=recipient, **settings_of(migrated)
    )
    assert made.returncode == 0, made.stderr
    arguments = ["downtime-sheet", "--from-backup", str(tmp_path / "backups")]
    settings = {"SECRET_KEY": KEY, "BACKUP_IDENTITY_FILE": str(tmp_path / "identity")}
    refused = medisecure(*arguments, **settings)
    assert refused.returncode == 1
    assert "give --output, and AUDIT_KEY or SECRET_KEY" in refused.stderr
    drawn = medisecure(*arguments, "--output", str(tmp_path / "sheet.html"), **settings)
    assert drawn.returncode == 0, drawn.stderr
    sheet = (tmp_path / "sheet.html").read_text()
    assert f"Data of a backup, as of {datetime.now(UTC):%Y-%m-%d} " in sheet
    assert "Ann" in sheet
    [note] = tmp_path.glob("*.note")
    assert [printed.number for _, printed in find_notes(tmp_path, [Key.of(KEY)])] == [UUID(note.stem)]


def test_without_a_place_or_a_key_for_a_note_there_is_no_sheet(
    read_only: Backend, refusal: Refusal, tmp_path: Path
) -> None:
    """Nothing is shown without a trace."""
    settings = settings_of(read_only)
    assert "give --output, and AUDIT_KEY or SECRET_KEY" in refusal("downtime-sheet", **settings)
    file = str(tmp_path / "sheet.html")
    assert "give --output, and" in refusal(
        "downtime-sheet", "--output", file, DATABASE_URL=read_only.database_url
    )
    assert list(tmp_path.iterdir()) == []
