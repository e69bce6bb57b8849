"""`medisecure backup`, `backup-keygen` and `drill`."""

import os
import re
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from persistence.backup.manifest import MANIFEST
from tests.support.backups import Clinic, flip
from tests.support.command import COMMAND, Refusal, environment, medisecure
from tests.support.running import wait_until
from tests.support.service import Service

pytestmark = pytest.mark.slow


TOKEN = "a-token-for-metrics-only-0123456789"


def told(service: Service) -> str:
    return httpx.get(f"{service.url}/metrics", headers={"authorization": f"Bearer {TOKEN}"}).text


def modes_of(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}


def test_keygen_writes_an_identity_that_nobody_else_can_read_and_prints_the_recipient(tmp_path: Path) -> None:
    file = tmp_path / "identity"
    made = medisecure("backup-keygen", str(file))
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("BACKUP_RECIPIENT=age1")
    assert "AGE-SECRET-KEY" not in made.stdout + made.stderr
    assert modes_of(tmp_path) == {0o600}
    before = file.read_text()
    assert "AGE-SECRET-KEY-1" in before
    assert "exists; what it decrypts would be lost" in medisecure("backup-keygen", str(file)).stderr
    assert file.read_text() == before


def test_a_backup_that_everybody_could_read_has_to_be_asked_for(refusal: Refusal, tmp_path: Path) -> None:
    url = {"DATABASE_URL": "postgresql://localhost/x"}
    message = refusal("backup", str(tmp_path), BACKUP_RECIPIENT="", **url)
    assert message.startswith(
        "medisecure: set BACKUP_RECIPIENT, which `medisecure backup-keygen` makes; or say"
    )
    message = refusal("backup", str(tmp_path), BACKUP_RECIPIENT="age1nobody", **url)
    assert message.startswith("medisecure: BACKUP_RECIPIENT holds what is no recipient of age")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "the backup is encrypted: set BACKUP_IDENTITY_FILE"),
        (
            {"BACKUP_IDENTITY_FILE": "/nowhere"},
            "BACKUP_IDENTITY_FILE cannot be used: No such file or directory",
        ),
        (
            {"BACKUP_IDENTITY_FILE": "/etc/passwd"},
            "BACKUP_IDENTITY_FILE cannot be used: a line of it is neither",
        ),
    ],
    ids=["none", "missing", "other"],
)
def test_an_encrypted_backup_needs_its_identity(
    clinic: Clinic, settings: dict[str, str], message: str
) -> None:
    dest = backed_up(clinic).parent
    assert message in clinic.refused("restore", dest, **{"BACKUP_IDENTITY_FILE": "", **settings})


def backed_up(clinic: Clinic) -> Path:
    """A physical backup, made once."""
    dest = clinic.folder / "physical"
    return next(dest.glob("*-physical-*"), None) or clinic.back_up("physical").folder


def dumped(clinic: Clinic) -> Path:
    dest = clinic.folder / "dumps"
    return next(dest.glob("*-dump-*"), None) or clinic.back_up("dumps", "--dump").folder


@pytest.mark.parametrize("make", [backed_up, dumped], ids=["physical", "dump"])
def test_a_backup_is_proven_by_a_drill(clinic: Clinic, make: Callable[[Clinic], Path]) -> None:
    """It is encrypted, and only its owner can read the files; the proof is noted in the live database."""
    folder = make(clinic)
    assert modes_of(folder) == {0o600}
    assert not any(b"Paula" in path.read_bytes() for path in folder.iterdir())
    drilled = clinic.run("drill", folder.parent, "--max-rpo", "600")
    assert drilled.returncode == 0, drilled.stdout + drilled.stderr
    assert "patients: 6 rows" in drilled.stdout
    assert "0 events in the unsealed tail" in drilled.stdout
    assert "RPO " in drilled.stdout
    assert "RTO " in drilled.stdout
    [(name, is_past)] = clinic.backend.sql(
        "SELECT name, holds_until < now() FROM backup_proofs ORDER BY id DESC LIMIT 1"
    )
    assert (name, is_past) == (folder.name, True)
    with Service(clinic.backend, clinic.backend.settings(metrics_token=TOKEN)) as service:
        browser = service.browser()
        wait_until(lambda: browser.get("/health/ready").json()["backupAgeSeconds"] is not None, "the age")
        wait_until(
            lambda: re.search(r"^medisecure_backup_age_seconds [0-9]", told(service), re.M), "the metric"
        )


def test_a_drill_over_its_targets_fails(clinic: Clinic) -> None:
    dest = backed_up(clinic).parent
    said = clinic.refused("drill", dest, "--max-rpo", "0", "--max-rto", "0")
    assert "the RPO is " in said
    assert "over 0 s: does `medisecure backup --follow` run?; the RTO is " in said


def test_a_drill_needs_a_folder_with_a_backup_and_a_key_of_the_trail(clinic: Clinic, tmp_path: Path) -> None:
    assert "name the folder of the backups, or set BACKUP_DEST" in clinic.refused("drill")
    assert f"there is no backup in {tmp_path}" in clinic.refused("drill", BACKUP_DEST=str(tmp_path))
    assert "set AUDIT_KEY or SECRET_KEY" in clinic.refused("drill", tmp_path, SECRET_KEY="")
    other = clinic.refused("drill", dumped(clinic).parent, SECRET_KEY="another key of more than 32 bytes.")
    assert "a key to it was not given" in other


@pytest.mark.parametrize("make", [backed_up, dumped], ids=["physical", "dump"])
def test_one_changed_byte_of_a_backup_fails_the_drill(clinic: Clinic, make: Callable[[Clinic], Path]) -> None:
    """Of the manifest, and of what it names: at the beginning, in the midst, at the end."""
    folder = make(clinic)
    dest = clinic.copy_of(folder.parent, "spoilt")
    copy = dest / folder.name
    content = next(path for path in copy.iterdir() if path.name != MANIFEST)
    for path, place in (
        (copy / MANIFEST, 40),
        (content, 0),
        (content, content.stat().st_size // 2),
        (content, -1),
    ):
        flip(path, place)
        said = clinic.refused("drill", dest)
        assert str(path) in said, said
        flip(path, place)
    content.write_bytes(content.read_bytes()[:-70_000])
    assert "or its end is missing" in clinic.refused("drill", dest)
    shutil.rmtree(dest)


def test_an_unencrypted_backup_is_checked_as_well(clinic: Clinic) -> None:
    made = clinic.back_up("plain", "--dump", "--unencrypted", BACKUP_RECIPIENT="")
    dest = made.folder.parent
    assert not made.manifest.encrypted
    assert clinic.run("drill", dest, BACKUP_IDENTITY_FILE="").returncode == 0
    flip(made.folder / made.manifest.files[0].name, 3000)
    assert "a byte of it is changed" in clinic.refused("drill", dest)


def test_another_identity_opens_nothing(clinic: Clinic, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert medisecure("backup-keygen", str(other)).returncode == 0
    said = clinic.refused("drill", backed_up(clinic).parent, BACKUP_IDENTITY_FILE=str(other))
    assert "it was encrypted for another identity" in said


def test_a_role_that_may_not_replicate_makes_a_dump_and_says_so(clinic: Clinic) -> None:
    clinic.backend.sql("CREATE ROLE clerk LOGIN IN ROLE pg_read_all_data")
    url = clinic.backend.as_role("clerk").database_url
    dest = clinic.folder / "clerk"
    made = clinic.run("backup", dest, DATABASE_URL=url)
    assert made.returncode == 0, made.stderr
    assert (
        "This role cannot replicate (permission denied to start WAL sender), so this is a dump" in made.stdout
    )
    assert ": dump, " in made.stdout
    assert "--follow needs a role that may replicate" in clinic.refused(
        "backup", dest, "--follow", DATABASE_URL=url
    )
    assert "not with --dump" in clinic.refused("backup", dest, "--follow", "--dump")


def test_a_killed_backup_leaves_nothing_that_is_taken_for_one(clinic: Clinic) -> None:
    dest = clinic.folder / "killed"
    with subprocess.Popen(
        [COMMAND, "backup", str(dest)], env=environment(**clinic.settings()), stdout=subprocess.DEVNULL
    ) as process:
        wait_until(lambda: list(dest.glob(".partial-*/base*")), "a backup that has begun")
        process.send_signal(signal.SIGKILL)
    [half] = dest.iterdir()
    assert not (half / MANIFEST).exists()
    assert f"there is no backup in {dest}" in clinic.refused("drill", dest)
    clinic.back_up("killed", "--dump")
    assert not half.exists()
    assert len(list(dest.iterdir())) == 1


def test_a_full_disk_leaves_no_half_of_a_backup(clinic: Clinic) -> None:
    """The kernel refuses what goes beyond 100 kB, as it does when the disk is full."""
    dest = clinic.folder / "full"
    command = ["prlimit", "--fsize=100000", COMMAND, "backup", str(dest)]
    # Without what would measure the command's coverage: the figures have no room there either.
    settings = {
        name: value
        for name, value in environment(**clinic.settings()).items()
        if not name.startswith("COVERAGE_")
    }
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(dest.iterdir()) == []


def test_old_backups_are_removed_when_newer_ones_are_there(clinic: Clinic) -> None:
    dest = clinic.folder / "kept"
    first = clinic.back_up("kept", "--dump").folder
    second = clinic.back_up("kept", "--dump").folder
    done = clinic.run("backup", dest, "--dump", "--keep", "2")
    assert f"removed {first.name}" in done.stdout
    assert not first.exists()
    assert second.exists()
    assert len(os.listdir(dest)) == 2


def test_missing_programs_are_named_with_what_to_install(clinic: Clinic, tmp_path: Path) -> None:
    said = clinic.refused("backup", tmp_path, PG_BIN=str(tmp_path))
    assert "PG_BIN has not all of pg_basebackup, pg_dump, pg_receivewal, pg_restore of PostgreSQL 18" in said
