"""`medisecure restore`, and `backup --follow`, whose log it replays."""

import signal
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from persistence.backup.files import replace
from persistence.backup.manifest import MANIFEST, encode
from persistence.backup.programs import find_programs
from persistence.backup.scratch import Place, running
from persistence.embedded.processes import postgres_account
from tests.support.audit_trail import wait_until_sealed
from tests.support.backups import Clinic, flip, reachable_folder, sign_in, wait_until_shipped
from tests.support.client import Browser
from tests.support.command import medisecure, settings_of
from tests.support.running import started, wait_until
from tests.support.service import Backend, Service

pytestmark = pytest.mark.slow


def require_restored(clinic: Clinic, restored: Backend, cookies: dict[str, str]) -> None:
    """Who was signed in is not; who signs in can work; and the trail is whole, and goes on."""
    with Service(restored, restored.settings()) as service:
        assert service.browser(cookies).get("/api/users/me").status_code == 401
        assert service.browser(cookies).post("/api/auth/refresh").status_code == 401
        admin = sign_in(service)
        assert admin.get("/api/patients").json()["total"] == 6
        [(before,)] = restored.sql("SELECT count(*) FROM audit_seals")
        wait_until_sealed(restored)
        assert restored.sql("SELECT count(*) FROM audit_seals")[0][0] > before
    checked = medisecure("verify-audit", **settings_of(restored))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    counted = medisecure("check-counters", **settings_of(restored))
    assert counted.returncode == 0, counted.stdout


def signed_in(clinic: Clinic) -> Browser:
    with Service(clinic.backend, clinic.backend.settings()) as service:
        browser = sign_in(service, "staff@example.com")
        wait_until_sealed(clinic.backend)
        return browser


def test_a_dump_goes_into_an_empty_database(clinic: Clinic) -> None:
    cookies = signed_in(clinic).cookies
    dest = clinic.back_up("dumps", "--dump").folder.parent
    target = clinic.new_database("from_dump")
    done = clinic.run("restore", dest, DATABASE_URL=target.database_url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every session has ended" in done.stdout
    assert "It holds what was committed until 2" in done.stdout
    assert "verify-audit --head" in done.stdout
    require_restored(clinic, target, cookies)
    assert "not empty" in clinic.refused("restore", dest, DATABASE_URL=target.database_url)
    with reachable_folder() as folder:
        assert "a dump goes into the database" in clinic.refused("restore", dest, "--data-dir", folder)
    until = datetime.now(UTC).isoformat()
    assert "no physical backup" in clinic.refused("restore", dest, "--until", until)


def test_a_restore_that_lacks_a_row_says_so(clinic: Clinic) -> None:
    """Here the row never was: the manifest is changed, and its sum with it."""
    made = clinic.back_up("one_less", "--dump")
    rows = {**made.manifest.rows, "patients": 7}
    replace(made.folder / MANIFEST, encode(msgspec.structs.replace(made.manifest, rows=rows)))
    target = clinic.new_database("one_less").database_url
    assert "'patients': 7" in clinic.refused("restore", made.folder, DATABASE_URL=target)


def test_a_restore_that_is_ended_leaves_nothing_decrypted(clinic: Clinic) -> None:
    """SIGTERM, as from an operator or a machine that shuts down."""
    dest = clinic.back_up("ended").folder.parent
    with reachable_folder() as folder:
        arguments = ["restore", str(dest), "--data-dir", str(folder / "data")]
        with started(arguments, clinic.folder / "ended.log", clinic.settings(), folder) as running:
            wait_until(lambda: list(folder.glob("medisecure-restore-*/data/*")), "a restore that has begun")
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(60) == 128 + signal.SIGTERM, running.printed()
        assert list(folder.iterdir()) == []


def test_the_log_is_followed_replayed_and_followed_again(clinic: Clinic) -> None:
    """A killed follower goes on where it was; a restore has what was committed after the base, or what was
    at a moment before that; what of the log is missing or changed is seen."""
    cookies = signed_in(clinic).cookies
    dest = clinic.folder / "followed"
    with clinic.following(dest) as follower:
        wait_until_shipped(clinic.backend, dest)
        follower.process.send_signal(signal.SIGKILL)
        follower.process.wait()
        [(before,)] = clinic.backend.sql("SELECT clock_timestamp()")
        clinic.backend.sql("UPDATE users SET name = 'After The Base' WHERE email = 'staff@example.com'")
        clinic.backend.sql("SELECT pg_switch_wal()")
    with clinic.following(dest) as follower:
        wait_until_shipped(clinic.backend, dest)
        assert "taking a base" not in follower.printed()
        drilled = clinic.run("drill", dest)
        assert drilled.returncode == 0, drilled.stdout + drilled.stderr
        assert follower.stop(signal.SIGTERM) == 0, follower.printed()
    assert len(list(dest.glob("*-physical-*"))) == 1

    target = clinic.new_database("from_log")
    done = clinic.run("restore", dest, DATABASE_URL=target.database_url)
    assert done.returncode == 0, done.stdout + done.stderr
    name = "SELECT name FROM users WHERE email = 'staff@example.com'"
    assert target.sql(name) == [("After The Base",)]
    require_restored(clinic, target, cookies)

    earlier = clinic.new_database("from_earlier")
    done = clinic.run("restore", dest, "--until", before.isoformat(), DATABASE_URL=earlier.database_url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert earlier.sql(name) != [("After The Base",)]
    later = datetime.now(UTC).isoformat()
    unreached = clinic.new_database("unreached").database_url
    said = clinic.refused("restore", dest, "--until", later, DATABASE_URL=unreached)
    assert "ends before the moment that --until names" in said

    spoil_the_log(clinic, dest)


def spoil_the_log(clinic: Clinic, dest: Path) -> None:
    segments = sorted((dest / "wal").glob("0*.gz.age"))
    for path in (segments[-1], dest / "wal/position.json"):
        flip(path, path.stat().st_size // 2)
        assert str(path) in clinic.refused("drill", dest)
        flip(path, path.stat().st_size // 2)
    segments[-1].unlink()
    assert "is missing or damaged" in clinic.refused("drill", dest)


def test_a_physical_backup_goes_into_a_data_directory(clinic: Clinic) -> None:
    cookies = signed_in(clinic).cookies
    dest = clinic.back_up("whole").folder.parent
    with reachable_folder() as folder:
        (folder / "taken").mkdir()
        (folder / "taken/file").touch()
        assert "is not empty" in clinic.refused("restore", dest, "--data-dir", folder / "taken")
        done = clinic.run("restore", dest, "--data-dir", folder / "data")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "It holds what was committed until" in done.stdout
        assert {path.name for path in folder.iterdir()} == {"taken", "data"}
        place = Place(folder, postgres_account(folder / "data"))
        with running(place, find_programs(18, ("postgres",), None)) as where:
            restored = Backend(f"postgresql://postgres@/medisecure?{where}", clinic.backend.redis_url)
            require_restored(clinic, restored, cookies)


def test_a_moment_has_an_offset(clinic: Clinic) -> None:
    said = clinic.run("restore", clinic.folder, "--until", "2026-11-26 10:00")
    assert said.returncode == 2
    assert "argument --until: invalid instant value" in said.stderr


def test_backups_of_two_servers_do_not_share_a_folder(clinic: Clinic, servers: Backend) -> None:
    dest = clinic.back_up("first", "--dump").folder.parent
    url = servers.copy().database_url
    assert "has backups of another server" in clinic.refused("backup", dest, "--dump", DATABASE_URL=url)
