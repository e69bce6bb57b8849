"""`medisecure backup --follow` beside a real server: nothing that has come is lost on its way into DEST, and
what cannot be had any more makes a new base."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace as with_changes
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from persistence.backup import BackupError, following
from persistence.backup.files import PARTIAL, replace
from persistence.backup.log_files import files_in, ship
from persistence.backup.manifest import MANIFEST, Manifest, decode, encode, read_position
from persistence.backup.source import connected
from persistence.embedded.processes import ServerGroup
from tests.support.following import Following
from tests.support.manifests import segment, ship_text
from tests.support.running import wait_until
from tests.support.service import Backend

pytestmark = pytest.mark.slow

GUIDE = Path(__file__).parents[2] / "docs/backup.md"
FIRST = 20  # of the segments in a spool that nobody receives into


@pytest.fixture
def followed(servers: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Following]:
    monkeypatch.setattr(following, "INTERVAL_SECONDS", 0.1)
    made = Following(servers, tmp_path)
    yield made
    made.end()


@contextmanager
def keeping_little(backend: Backend) -> Iterator[None]:
    """The server gives a slot up that is behind by more than a segment."""
    backend.sql("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
    backend.sql("SELECT pg_reload_conf()")
    yield
    backend.sql("ALTER SYSTEM RESET max_slot_wal_keep_size")
    backend.sql("SELECT pg_reload_conf()")


def spool(followed: Following, *names: str) -> None:
    followed.follower.received.mkdir(exist_ok=True)
    for name in names:
        (followed.follower.received / name).write_text(name)


def shipped(followed: Following) -> set[str]:
    return {f"{file.name}{'.partial' * file.is_partial}" for file in files_in(followed.follower.wal)}


@pytest.mark.parametrize("how", ["dropped", "given up", "no slot"])
def test_what_the_server_has_removed_of_its_log_makes_a_new_base(followed: Following, how: str) -> None:
    """While nobody followed, somebody dropped the slot, or the server kept no more for it; or there was none.
    A half, of a follower that was killed, is cleared away."""
    if how == "no slot":
        followed.follower.slot = None
    with followed():
        pass
    assert followed.bases == ["001-physical"]
    if how == "dropped":
        followed.end()
    with keeping_little(followed.backend):
        followed.outrun()
    assert followed.is_slot_lost() == (how == "given up")
    (followed.follower.wal / f"{PARTIAL}half").touch()
    with followed():
        assert len(followed.bases) == 2
        assert "the server no longer has the log that comes next" in followed.said
        assert not followed.is_slot_lost()
        assert list(followed.follower.wal.glob(f"{PARTIAL}*")) == []


def test_a_follower_whose_connection_was_ended_goes_on_without_a_new_base(followed: Following) -> None:
    with followed():
        followed.backend.sql(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1",
            followed.slot,
        )
        followed.wait_until_shipped()
        followed.backend.sql("SELECT pg_switch_wal()")
        followed.wait_until_shipped()
    assert followed.bases == ["001-physical"]


def test_while_the_folder_of_backups_is_away_the_spool_keeps_the_log(followed: Following) -> None:
    """As while a network's folder is not mounted."""
    with followed():
        away = followed.follower.wal.rename(followed.follower.wal.with_name("away"))
        for _ in range(3):
            followed.backend.sql("SELECT pg_logical_emit_message(true, 'test', 'x')")
            followed.backend.sql("SELECT pg_switch_wal()")
        wait_until(lambda: any("trying again" in said for said in followed.said), "a complaint")
        away.rename(followed.follower.wal)
        followed.wait_until_shipped()
    numbers = sorted({int(name[16:24], 16) for name in shipped(followed)})
    assert numbers == [*range(numbers[0], numbers[-1] + 1)]


def test_segments_that_come_while_others_are_shipped_are_shipped_too(
    followed: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receiver is quick, and the disk slow: what it renames meanwhile is neither passed over nor lost."""
    followed.follower.wal.mkdir()
    spool(followed, segment(FIRST), f"{segment(FIRST + 1)}.partial")
    coming = iter(range(FIRST + 1, FIRST + 4))

    def ship_slowly(path: Path, wal: Path, recipients: list[str]) -> None:
        ship(path, wal, recipients)
        for number in coming:
            partial = followed.follower.received / f"{segment(number)}.partial"
            partial.rename(partial.with_suffix(""))
            spool(followed, f"{segment(number + 1)}.partial")

    monkeypatch.setattr(following, "ship", ship_slowly)
    followed.follower.ship_all()
    whole = {segment(number) for number in range(FIRST, FIRST + 4)}
    assert shipped(followed) == whole | {f"{segment(FIRST + 4)}.partial"}
    left = {path.name for path in followed.follower.received.iterdir()}
    assert left == {segment(FIRST + 3), f"{segment(FIRST + 4)}.partial"}


def test_the_last_part_of_an_old_timeline_does_not_stay_in_the_spool(followed: Following) -> None:
    """A standby was promoted: its timeline goes on in the midst of a segment."""
    followed.follower.wal.mkdir()
    old, history = f"{segment(FIRST)}.partial", "00000002.history"
    spool(followed, old, history, segment(FIRST, 2), f"{segment(FIRST + 1, 2)}.partial")
    followed.follower.ship_all()
    assert shipped(followed) == {old, history, segment(FIRST, 2), f"{segment(FIRST + 1, 2)}.partial"}
    left = {path.name for path in followed.follower.received.iterdir()}
    assert left == {history, segment(FIRST, 2), f"{segment(FIRST + 1, 2)}.partial"}


@pytest.mark.parametrize(
    ("base", "in_dest", "spooled", "goes_on"),
    [
        (None, [segment(4)], segment(5), False),
        (segment(5), [], segment(5), True),
        (segment(4), [], segment(5), False),
        (segment(3), [segment(3), segment(4)], f"{segment(5)}.partial", True),
        (segment(3), [f"{segment(4)}.partial"], segment(5), False),
        (segment(3), [segment(3), segment(4)], segment(5, 2), False),
        (segment(3), [segment(9), segment(3, 2)], segment(4, 2), True),
    ],
    ids=["no base", "base", "gap", "log", "half", "new timeline", "known timeline"],
)
def test_a_log_goes_on_where_no_segment_is_missing(
    followed: Following, tmp_path: Path, base: str | None, in_dest: list[str], spooled: str, goes_on: bool
) -> None:
    for name in in_dest:
        ship_text(tmp_path / "sent", followed.follower.wal, name)
    spool(followed, spooled)
    if base:
        followed.make_base()
        change_base(followed, first_segment=base)
    with connected(followed.backend.database_url) as session:
        assert followed.follower.is_continuous(session) == goes_on


def change_base(followed: Following, **changes: str) -> None:
    path = followed.follower.dest / followed.bases[-1] / MANIFEST
    replace(path, encode(msgspec.structs.replace(decode(path, Manifest), **changes)))


def test_nobody_follows_into_the_folder_of_another_server(followed: Following) -> None:
    followed.make_base()
    change_base(followed, system_identifier="1")
    with pytest.raises(BackupError, match="has backups of another server"):
        followed.follower.follow(followed.make_base)


def test_a_slot_that_somebody_else_follows_is_named(followed: Following, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Following(followed.backend, tmp_path / "other")
    other.follower.slot = followed.slot
    with followed(), pytest.raises(BackupError, match=r"pg_receivewal failed: .* is active for PID"):
        other.follower.follow(other.make_base)


def test_a_base_that_fails_ends_the_receiver(followed: Following) -> None:
    def fail() -> None:
        assert followed.receiver().is_running()
        raise BackupError("no room")

    followed.follower.wal.mkdir()
    with ServerGroup() as group, pytest.raises(BackupError, match="no room"):
        followed.follower.begin(group, fail)
    with pytest.raises(ValueError, match="not enough values"):
        followed.receiver()


def test_what_is_in_no_backup_yet_is_said_also_where_none_has_begun(followed: Following) -> None:
    late = datetime.now(UTC) - timedelta(minutes=2)
    follower = followed.follower = with_changes(followed.follower, begun=late)
    warning = f"what was committed after {late:%Y-%m-%d %H:%M:%S} UTC is in no backup yet"
    follower.warn_if_late()
    follower.reached = datetime.now(UTC)
    follower.warn_if_late()
    assert followed.said == [warning]
    follower.reached = late
    follower.warn_if_late()
    assert followed.said == [warning] * 2


def test_a_mark_that_has_not_come_is_no_position(
    followed: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    with followed():
        pass
    before = read_position(followed.follower.wal)
    assert before
    monkeypatch.setattr(following, "RECEIVE_SECONDS", 0.0)
    followed.follower.cycle()
    assert read_position(followed.follower.wal) == before


def test_the_role_of_the_guide_can_follow_and_one_that_sees_no_receiver_is_told(followed: Following) -> None:
    guide = GUIDE.read_text()
    [statements] = re.findall(r"```sql\n(CREATE ROLE medisecure_backup .*?)```", guide, re.DOTALL)
    for statement in statements.strip().split(";\n"):
        followed.backend.sql(statement)
    url = followed.backend.as_role("medisecure_backup").database_url
    followed.follower = with_changes(followed.follower, url=url)
    try:
        with followed():
            assert followed.bases
        followed.backend.sql("REVOKE pg_read_all_stats FROM medisecure_backup")
        with pytest.raises(BackupError, match="GRANT pg_read_all_stats"):
            followed.follower.follow(followed.make_base)
    finally:
        followed.backend.sql("DROP OWNED BY medisecure_backup")
        followed.backend.sql("DROP ROLE medisecure_backup")
