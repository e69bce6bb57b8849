"""The parts that backups are made of: files, manifests, programs."""

import io
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from persistence.backup import BackupError, DamagedError
from persistence.backup.files import Compressed, read_checked, write_new
from persistence.backup.manifest import Position, decode, encode
from persistence.backup.programs import SERVER, find_programs, run, split_password
from persistence.backup.proofs import Proof, record_proof
from security.age import make_identity
from tests.support.service import Backend


@pytest.mark.parametrize("is_encrypted", [True, False])
def test_no_byte_of_a_file_can_be_changed_unseen(tmp_path: Path, is_encrypted: bool) -> None:
    identity, recipient = make_identity()
    path = tmp_path / ("log.gz.age" if is_encrypted else "log.gz")
    file = write_new(path, Compressed(io.BytesIO(b"what happened" * 20)), [recipient] if is_encrypted else [])
    whole = path.read_bytes()
    read_checked(path, file.sha256, back := io.BytesIO(), [identity])
    assert back.getvalue() == b"what happened" * 20
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DamagedError, match=path.name):
            read_checked(path, file.sha256, io.BytesIO(), [identity])
    for cut in (whole[:-1], whole + b"x"):
        path.write_bytes(cut)
        with pytest.raises(DamagedError, match=path.name):
            read_checked(path, file.sha256, io.BytesIO(), [identity])


def test_no_byte_of_a_manifest_can_be_changed_unseen(tmp_path: Path) -> None:
    path = tmp_path / "position.json"
    position = Position(system_identifier="7", lsn="0/1", at=datetime(2026, 11, 26, tzinfo=UTC))
    whole = encode(position)
    path.write_bytes(whole)
    assert decode(path, Position) == position
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DamagedError):
            decode(path, Position)


def test_a_manifest_of_a_later_format_is_not_guessed_at(tmp_path: Path) -> None:
    path = tmp_path / "position.json"
    body = b'{"format": 2}'
    path.write_bytes(body + b"\n" + sha256(body).hexdigest().encode() + b"\n")
    with pytest.raises(BackupError, match="of format 2, which this release does not read"):
        decode(path, Position)


@pytest.mark.parametrize(
    ("url", "place", "password"),
    [
        ("postgresql://app:s%40cret@db:5432/clinic", "postgresql://app@db:5432/clinic", "s@cret"),
        ("postgresql+asyncpg://app@/c?host=/run&password=x", "postgresql://app@/c?host=%2Frun", "x"),
        ("postgresql://app@a,b/c?target_session_attrs=read-write", None, None),
        ("postgresql:///c", None, None),
    ],
)
def test_a_password_is_no_argument_of_a_program(url: str, place: str | None, password: str | None) -> None:
    assert split_password(url) == (place or url, {"PGPASSWORD": password} if password else {})


def test_programs_that_are_not_there_are_named_with_the_package() -> None:
    with pytest.raises(BackupError, match=r"PostgreSQL 99 are not on this machine: install postgresql-99 "):
        find_programs(99, SERVER, None)
    assert (find_programs(18, SERVER, None) / "postgres").is_file()


def test_the_chosen_folder_of_programs_has_those_of_the_server(tmp_path: Path) -> None:
    found = find_programs(18, SERVER, None)
    assert find_programs(18, SERVER, str(found)) == found
    for content in ("not for this machine", "#!/bin/echo"):
        (tmp_path / "postgres").write_text(content)
        (tmp_path / "postgres").chmod(0o755)
        with pytest.raises(BackupError, match="PG_BIN has not all of postgres of PostgreSQL 18"):
            find_programs(18, SERVER, str(tmp_path))


def test_a_program_that_fails_says_why_in_its_last_lines() -> None:
    with pytest.raises(BackupError, match=r"sh failed: 2; 3; 4; 5; 6$"):
        run(["/bin/sh", "-c", "printf '%s\n' 1 2 3 4 5 6 >&2; exit 3"], {})
    run(["/bin/true"], {})


def test_a_proof_that_cannot_be_noted_says_why(servers: Backend) -> None:
    url = servers.database_url.replace("/medisecure?", "/postgres?")
    proof = Proof("one", "dump", datetime.now(UTC), 1, 1)
    with pytest.raises(BackupError, match='relation "backup_proofs" does not exist'):
        record_proof(url, proof)
    with pytest.raises(BackupError, match="No such file"):
        record_proof("postgresql://u@/d?host=/nowhere", proof)
