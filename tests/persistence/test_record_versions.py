"""What PostgreSQL itself holds of versions and retractions: who may write which, and that nothing is lost
(contract, "Records are amended and retracted, never changed")."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from persistence.backup.source import connected
from tests.support.command import granted_role
from tests.support.factories import World
from tests.support.service import Backend, Service

pytestmark = pytest.mark.slow

AMEND = (
    "INSERT INTO record_versions (record_id, at, user_id, name, role, reason, diagnosis, prescription, "
    "notes, attachments, request_id) "
    "VALUES ($1, now(), gen_random_uuid(), 'N', 'doctor', $2, 'New', 'New', 'New', '[]', gen_random_uuid())"
)
RETRACT = (
    "INSERT INTO record_retractions (record_id, at, user_id, name, role, reason, request_id) "
    "VALUES ($1, now(), gen_random_uuid(), 'N', 'admin', 'r', gen_random_uuid())"
)
FORGED = (
    "DO $$ BEGIN CREATE TEMP TABLE forged (LIKE record_versions); CREATE TRIGGER forged BEFORE INSERT ON "
    "forged FOR EACH ROW EXECUTE FUNCTION {}(); END $$"
)
FORBIDDEN = [
    "UPDATE medical_records SET diagnosis = 'x'",
    "DELETE FROM medical_records",
    *(
        f"{verb} {table}{rest}"
        for verb, rest in (("UPDATE", " SET reason = 'x'"), ("DELETE FROM", ""), ("TRUNCATE", ""))
        for table in ("record_versions", "record_retractions")
    ),
    "INSERT INTO record_versions (is_original) VALUES (true)",
    "INSERT INTO record_versions (id) OVERRIDING SYSTEM VALUE VALUES (1)",
    "INSERT INTO record_retractions (patient_id) VALUES (gen_random_uuid())",
    "SELECT keep_original(record, gen_random_uuid()) FROM medical_records AS record",
    FORGED.format("amend_record"),
    FORGED.format("retract_record"),
]


def texts(backend: Backend, record: UUID) -> list[tuple[Any, ...]]:
    rows = backend.sql(
        "SELECT is_original, diagnosis, reason FROM record_versions WHERE record_id = $1 ORDER BY id", record
    )
    return sorted(tuple(row) for row in rows)


@pytest.fixture
def record(world: World) -> UUID:
    return UUID(world.record(world.chart()["id"], diagnosis="Old")["id"])


def test_the_services_role_can_only_add_versions_and_retractions(
    world: World, backend: Backend, record: UUID
) -> None:
    """contract: "The service's role inserts amendments and retractions, nothing else"."""
    with granted_role(backend) as app:
        with Service(app, app.settings()) as service:
            doctor = service.browser(dict(world.doctor.cookies))
            path = f"/api/records/{record}"
            assert doctor.post(f"{path}/versions", {"reason": "r", "diagnosis": "New"}).status_code == 201
            assert doctor.get(f"{path}/versions").json()["total"] == 2
            assert doctor.post(f"{path}/retraction", {"reason": "r"}).status_code == 201
        for statement in FORBIDDEN:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                app.sql(statement)
        other = UUID(world.record(world.chart()["id"])["id"])
        with pytest.raises(asyncpg.CheckViolationError, match="amended_for_a_reason"):
            app.sql(AMEND, other, None)
    assert texts(backend, record) == [(False, "New", "r"), (True, "Old", None)]
    assert texts(backend, other) == []


@pytest.mark.parametrize("statement", [(AMEND, "r"), (RETRACT,)])
def test_what_is_no_record_is_neither_amended_nor_retracted(
    statement: tuple[str, ...], backend: Backend, record: UUID
) -> None:
    sql, *values = statement
    with pytest.raises(asyncpg.ForeignKeyViolationError, match="there is no such record"):
        backend.sql(sql, uuid4(), *values)
    backend.sql(RETRACT, record)
    with pytest.raises(asyncpg.ForeignKeyViolationError, match="there is no such record"):
        backend.sql(sql, record, *values)


def test_a_retraction_keeps_all_that_the_record_was(world: World, backend: Backend, record: UUID) -> None:
    """contract: "`record_retractions` the rest of a record that was taken back"."""
    columns = "patient_id, doctor_id, date, created_at"
    before = backend.sql(f"SELECT {columns} FROM medical_records WHERE id = $1", record)
    answer = world.doctor.post(f"/api/records/{record}/retraction", {"reason": "r"})
    assert answer.status_code == 201
    assert backend.sql(f"SELECT {columns} FROM record_retractions WHERE record_id = $1", record) == before
    assert texts(backend, record) == [(True, "Old", None)]


def test_a_backup_counts_what_was_retracted_as_well(world: World, backend: Backend, record: UUID) -> None:
    """contract: "rows of the tables that lose none"; and a backup of the release before has none of it."""
    with connected(backend.database_url) as session:
        before = session.count_rows()
        assert world.doctor.post(f"/api/records/{record}/retraction", {"reason": "r"}).status_code == 201
        after = session.count_rows()
        backend.sql("ALTER TABLE record_retractions RENAME TO elsewhere")
        older = session.count_rows()
        backend.sql("ALTER TABLE elsewhere RENAME TO record_retractions")
    assert after["medical_records"] == before["medical_records"] > older["medical_records"]


def at_once(calls: list[Callable[[], int]]) -> list[int]:
    with ThreadPoolExecutor(len(calls)) as pool:
        return [call.result() for call in [pool.submit(call) for call in calls]]


def test_amendments_at_once_all_stay(world: World, backend: Backend, record: UUID) -> None:
    """contract: "Amending and retracting wait for an advisory lock on the record"."""
    path = f"/api/records/{record}/versions"

    def amend(number: int) -> Callable[[], int]:
        body = {"reason": "r", "diagnosis": str(number)}
        return lambda: world.doctor.post(path, body).status_code

    assert at_once([amend(number) for number in range(10)]) == [201] * 10
    found = texts(backend, record)
    assert found == sorted([(True, "Old", None), *((False, str(number), "r") for number in range(10))])
    newest = world.doctor.get(path + "?limit=1").json()["versions"][0]["diagnosis"]
    assert world.doctor.get(f"/api/records/{record}").json()["diagnosis"] == newest


def test_of_a_retraction_and_amendments_at_once_none_comes_after_it(
    world: World, backend: Backend, record: UUID
) -> None:
    path = f"/api/records/{record}"
    body = {"reason": "r", "diagnosis": "New"}
    calls: list[Callable[[], int]] = [
        lambda: world.doctor.post(f"{path}/versions", body).status_code for _ in range(6)
    ]
    calls[3:3] = [lambda: world.admin.post(f"{path}/retraction", {"reason": "r"}).status_code] * 2
    answers = at_once(calls)
    assert sorted(answers[3:5]) == [201, 400]
    amended = [*answers[:3], *answers[5:]]
    assert set(amended) <= {201, 400}
    assert len(texts(backend, record)) == 1 + amended.count(201)
    assert backend.sql("SELECT count(*) FROM medical_records WHERE id = $1", record)[0][0] == 0
