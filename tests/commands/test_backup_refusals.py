"""What `medisecure backup`, `restore` and `drill` say where they cannot do their work, or part of it."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from api.commands.backup import spool_for
from api.commands.environment import CommandError
from api.commands.restoring import next_steps, note_proof
from persistence.backup import BackupError
from persistence.backup.files import locked
from persistence.backup.proofs import Proof
from persistence.migrations.revisions import revisions
from tests.support.command import medisecure, settings_of
from tests.support.manifests import add_backup
from tests.support.service import Backend

PROOF = Proof("one", "dump", datetime.now(UTC), 1, 1)
GONE = "postgresql://nobody@/nothing?host=/nowhere"


def test_a_server_that_is_away_is_no_server_without_replication(tmp_path: Path) -> None:
    """A dump in place of a base would lose the log."""
    for options in ([], ["--follow"]):
        done = medisecure("backup", str(tmp_path), "--unencrypted", *options, DATABASE_URL=GONE)
        assert done.returncode == 1
        assert done.stdout == ""
        assert "No such file or directory" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_spool_is_private_and_the_same_at_the_next_start(tmp_path: Path) -> None:
    spool = spool_for(tmp_path, tmp_path / "spool")
    assert spool.stat().st_mode & 0o777 == 0o700
    spool.chmod(0o750)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    for chosen in (spool, link):
        with pytest.raises(BackupError, match="must be a folder of yours that nobody else can read"):
            spool_for(tmp_path, chosen)
    made = spool_for(tmp_path / "dest", None)
    assert made == spool_for(tmp_path / "dest", None) != spool_for(tmp_path / "other", None)
    for each in (made, spool_for(tmp_path / "other", None)):
        each.rmdir()


def test_a_spool_is_one_followers(servers: Backend, tmp_path: Path) -> None:
    spool = spool_for(tmp_path, tmp_path / "spool")
    arguments = ["backup", str(tmp_path / "dest"), "--follow", "--unencrypted", "--spool", str(spool)]
    with locked(spool):
        done = medisecure(*arguments, **settings_of(servers))
    assert done.returncode == 1
    assert f"{spool} is in use: somebody follows into {tmp_path / 'dest'} already" in done.stderr


def test_what_is_to_be_done_next_depends_on_what_was_restored(tmp_path: Path) -> None:
    [latest] = revisions()[1]
    old, new = add_backup(tmp_path, 1), add_backup(tmp_path, 2, revision=latest)
    assert "run `medisecure migrate`, which `serve` asks for" in next_steps(old, is_folder=True)
    assert "start PostgreSQL on it" in next_steps(old, is_folder=True)
    assert "of an older release" not in next_steps(new, is_folder=False)
    assert "medisecure migrate --grant-to ROLE" in next_steps(new, is_folder=False)


def test_a_proof_that_the_service_does_not_hear_of_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "environ", {})
    note_proof(PROOF)
    assert "the service does not hear of it" in capsys.readouterr().out
    monkeypatch.setattr(os, "environ", {"DATABASE_URL": GONE})
    with pytest.raises(CommandError, match="the backup is proven, but that could not be noted: "):
        note_proof(PROOF)
