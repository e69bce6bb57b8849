"""The processes and folders of embedded servers (persistence/embedded), each part alone: what is done about a
server that does not start, does not stop, or lies where its user cannot reach it."""

import os
import shutil
import signal
import stat
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from persistence.embedded import EmbeddedError, folders, processes
from persistence.embedded.postgresql import WHEEL, copy_wheel
from persistence.embedded.processes import ServerGroup, postgres_account, stop_leftovers
from persistence.embedded.wheels import require_wheel

NOBODYS_UID = 54321
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a folder away, or runs as another")


@pytest.fixture
def shared_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that is /var/lib/medisecure otherwise; it is not there yet."""
    monkeypatch.setattr(folders, "SHARED_FOLDER", tmp_path / "shared")
    return tmp_path / "shared"


def test_a_server_that_does_not_get_ready_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "START_SECONDS", 0.2)
    log = tmp_path / "log"
    with ServerGroup() as group, pytest.raises(EmbeddedError, match="was not ready within"):
        group.serve(["/bin/sleep", "600"], log, tmp_path, lambda: False)


@pytest.mark.slow
def test_a_group_ends_though_another_process_holds_its_pipe() -> None:
    """As a fork of ours does."""
    with ServerGroup() as group:
        assert group.watchdog.stdin
        pipe = group.watchdog.stdin.fileno()
        fork = subprocess.Popen(["/bin/sleep", "600"], pass_fds=[pipe])
    try:
        assert group.watchdog.returncode == -signal.SIGKILL
    finally:
        fork.kill()
        fork.wait()


def test_a_leftover_server_that_ignores_its_signal_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "LEFTOVER_SECONDS", 0.5)
    program = tmp_path / "valkey-server"
    shutil.copy(shutil.which("sleep") or "", program)
    stubborn = subprocess.Popen(
        ["/bin/sh", "-c", f"trap '' TERM; exec {program} 600"], cwd=tmp_path, stdout=subprocess.DEVNULL
    )
    while Path(f"/proc/{stubborn.pid}/exe").resolve() != program:
        assert stubborn.poll() is None
    stop_leftovers(tmp_path)
    assert stubborn.wait(10) == -signal.SIGKILL


@as_root
def test_the_folder_of_a_user_who_is_gone_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, NOBODYS_UID, -1)
    with pytest.raises(EmbeddedError, match=f"belongs to user {NOBODYS_UID}, who is no more"):
        postgres_account(tmp_path)


@as_root
def test_a_lost_database_is_logged_and_made_anew(
    tmp_path: Path, shared_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "servers").symlink_to(shared_folder / "data-gone")
    with ExitStack() as cleanup:
        home = folders.postgres_home(tmp_path, cleanup)
        assert (home.parent, home.is_dir()) == (shared_folder, True)
        assert (tmp_path / "servers").resolve() == home
    assert f"{shared_folder / 'data-gone'}, which held the database, is gone" in caplog.text
    assert stat.S_IMODE(shared_folder.stat().st_mode) == 0o711


def test_the_copy_of_a_wheel_is_made_once_and_everybody_can_read_it(
    tmp_path: Path, shared_folder: Path
) -> None:
    package, libraries = tmp_path / "site" / WHEEL, tmp_path / "site" / f"{WHEEL}.libs"
    for folder in (package, libraries):
        folder.mkdir(mode=0o700, parents=True)
        (folder / "file").touch(0o600)
    first = copy_wheel(package)
    (package / "later").touch()
    assert copy_wheel(package) == first
    assert [path.name for path in first.iterdir()] == ["file"]
    assert (first.parent / libraries.name / "file").exists()
    assert {stat.S_IMODE(path.stat().st_mode) for path in first.parent.rglob("*")} == {0o755}


def test_a_wheel_that_is_not_installed_is_named() -> None:
    with pytest.raises(EmbeddedError, match=r"pip install 'medisecure\[dev\]'"):
        require_wheel("no_such_package")
