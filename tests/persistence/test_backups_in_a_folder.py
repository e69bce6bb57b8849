"""Which backups and which log are in a folder, what of them is restored, and what is removed."""

from datetime import datetime
from pathlib import Path

import pytest

from persistence.backup import BackupError, DamagedError
from persistence.backup.files import replace
from persistence.backup.log_files import NAME, files_in, lay
from persistence.backup.manifest import MANIFEST, find_backup
from persistence.backup.pruning import prune
from tests.support.manifests import add_backup, at, reach, segment, ship_text


@pytest.mark.parametrize(
    ("kinds", "followed_until", "chosen"),
    [
        ({1: "physical", 2: "physical"}, None, "02-physical"),
        ({1: "physical", 2: "physical"}, 3, "02-physical"),
        ({1: "physical", 2: "dump"}, None, "02-dump"),
        ({1: "physical", 3: "dump"}, 2, "03-dump"),
        ({1: "physical", 2: "dump"}, 3, "01-physical"),
        ({1: "dump", 2: "dump"}, 3, "02-dump"),
    ],
)
def test_what_reaches_farthest_is_restored(
    tmp_path: Path, kinds: dict[int, str], followed_until: int | None, chosen: str
) -> None:
    """A physical backup goes on with the log, perhaps beyond a dump that was made after it."""
    for hour, kind in kinds.items():
        add_backup(tmp_path, hour, kind)
    if followed_until:
        reach(tmp_path, followed_until)
    assert find_backup(tmp_path).folder.name == chosen


def test_a_folder_without_a_backup_says_so(tmp_path: Path) -> None:
    reach(tmp_path, 1)
    with pytest.raises(BackupError, match="there is no backup in"):
        find_backup(tmp_path)


def test_a_moment_is_reached_from_a_physical_backup_before_it(tmp_path: Path) -> None:
    for hour in (1, 2, 4):
        add_backup(tmp_path, hour)
    add_backup(tmp_path, 3, "dump")
    assert find_backup(tmp_path, at(3)).folder.name == "02-physical"
    with pytest.raises(BackupError, match=r"no physical backup in .* that was made before 2026-11-26T00:00"):
        find_backup(tmp_path, at(0))


@pytest.mark.parametrize(
    ("name", "until", "refusal"),
    [
        ("02-physical", None, None),
        ("02-physical", at(3), None),
        ("02-physical", at(1), r"was made at 2026-11-26T02:00:00\+00:00, after --until"),
        ("03-dump", None, None),
        ("03-dump", at(4), "a dump holds one moment only"),
    ],
)
def test_a_backup_that_is_named_itself_is_the_one(
    tmp_path: Path, name: str, until: datetime | None, refusal: str | None
) -> None:
    add_backup(tmp_path, 2)
    add_backup(tmp_path, 3, "dump")
    if refusal:
        with pytest.raises(BackupError, match=refusal):
            find_backup(tmp_path / name, until)
    else:
        assert find_backup(tmp_path / name, until).folder.name == name


def test_the_log_that_no_kept_backup_needs_goes_with_the_backups(tmp_path: Path) -> None:
    for hour in (1, 2, 3):
        add_backup(tmp_path, hour)
    add_backup(tmp_path, 4, "dump")
    log = [segment(1), segment(1, 2), segment(2), f"{segment(3)}.partial", "00000002.history"]
    for name in log:
        ship_text(tmp_path / "spool", tmp_path / "wal", name)
    (tmp_path / "wal/notes").touch()
    assert prune(tmp_path, 2, "physical") == ["01-physical"]
    assert sorted(path.name for path in tmp_path.glob("0*")) == ["02-physical", "03-physical", "04-dump"]
    assert {file.name for file in files_in(tmp_path / "wal")} == {segment(2), segment(3), "00000002.history"}
    add_backup(tmp_path, 5, "dump")
    assert prune(tmp_path, 1, "dump") == ["04-dump"]
    assert find_backup(tmp_path, at(6)).folder.name == "03-physical"
    assert len(list(files_in(tmp_path / "wal"))) == 3


def test_where_no_base_is_left_nobody_knows_which_log_is_needed(tmp_path: Path) -> None:
    add_backup(tmp_path, 1, "dump")
    ship_text(tmp_path / "spool", tmp_path / "wal", segment(1))
    assert prune(tmp_path, 1, "dump") == []
    assert len(list(files_in(tmp_path / "wal"))) == 1


def test_what_is_sent_again_takes_the_place_of_what_was_sent(tmp_path: Path) -> None:
    wal, name = tmp_path / "wal", segment(5)
    for text in ("half", "more", "more"):
        ship_text(tmp_path / "spool", wal, f"{name}.partial", text)
        assert len(list(wal.iterdir())) == 1
    ship_text(tmp_path / "spool", wal, name, "all")
    lay(wal, name, tmp_path, [])
    assert [file.is_partial for file in files_in(wal)] == [False]
    assert (tmp_path / name).read_text() == "all"


def test_of_the_log_that_is_laid_what_is_whole_stays(tmp_path: Path) -> None:
    """A part is laid only where there is no more; what was before the backup, or has vanished, is not."""
    wal, target = tmp_path / "wal", tmp_path / "pg_wal"
    target.mkdir()
    (target / segment(5)).write_text("of the base")
    for name in (segment(4), f"{segment(5)}.partial", f"{segment(6)}.partial", "00000002.history"):
        ship_text(tmp_path / "spool", wal, name)
    (wal / f"{segment(7)}-{'0' * 64}.gz").symlink_to("replaced")
    assert NAME.fullmatch(f"{segment(7)}-{'0' * 64}.gz")
    lay(wal, segment(5), target, [])
    assert {path.name: path.read_text() for path in target.iterdir()} == {
        segment(5): "of the base",
        segment(6): f"{segment(6)}.partial",
        "00000002.history": "00000002.history",
    }


def test_a_manifest_that_is_none_of_ours_is_damage(tmp_path: Path) -> None:
    """Though its sum is right."""
    made = add_backup(tmp_path, 1)
    reach(tmp_path, 1)
    replace(made.folder / MANIFEST, (tmp_path / "wal/position.json").read_bytes())
    with pytest.raises(DamagedError, match=r"manifest\.json is not what `medisecure backup` writes"):
        find_backup(tmp_path)
