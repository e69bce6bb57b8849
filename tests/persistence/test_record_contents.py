"""The trail vouches for the versions of records and for their retractions: what SQL has changed there is
damage."""

import asyncio
from typing import Any

import pytest

from api.commands.maintenance import verify_seals
from persistence.audit_chain import Key, seal
from persistence.audit_verification import Report
from persistence.postgres.database import Database
from tests.support.factories import World
from tests.support.service import KEY, Backend, Service

pytestmark = pytest.mark.slow

OURS = Key.of(KEY)
TEXTS = {"diagnosis": '\u00c7\u2028 "quoted" \\ path', "prescription": "", "notes": "x" * 10000}


def verified(backend: Backend) -> Report:
    return asyncio.run(verify_seals(backend.database_url, [OURS], None))


def seal_now(backend: Backend) -> None:
    async def run() -> None:
        async with Database(backend.database_url) as database, database.transaction() as transaction:
            await seal(transaction, OURS)

    asyncio.run(run())


@pytest.fixture(scope="module")
def written(populated: tuple[Backend, dict[str, dict[str, str]], float]) -> Backend:
    """A record that was amended twice, one that was amended and retracted, one that was only retracted, one
    that is as it was written; all of it sealed, in a database on which no service runs any more."""
    backend = populated[0].copy()
    with Service(backend, backend.settings()) as service:
        world = World(service, {name: service.browser(one) for name, one in populated[1].items()})
        chart, _ = world.chart()["id"], world.chart()
        for amended, retracted in ((2, False), (1, True), (0, True), (0, False)):
            path = f"/api/records/{world.record(chart, **TEXTS, attachments=['b.pdf', 'a.pdf'])['id']}"
            for number in range(amended):
                body = {"reason": "\u20ac", "notes": f"{number}\r\n", "attachments": []}
                assert world.doctor.post(f"{path}/versions", body).status_code == 201
            if retracted:
                assert world.admin.post(f"{path}/retraction", {"reason": "r"}).status_code == 201
    seal_now(backend)
    return backend


@pytest.fixture
def sealed(written: Backend) -> Backend:
    """A copy of it, to damage."""
    copied = written.copy()
    assert verified(copied).problems == []
    return copied


def test_every_version_and_every_retraction_is_vouched_for(sealed: Backend) -> None:
    """contract: "The trail vouches for every version and every retraction"."""
    assert sealed.sql("SELECT count(*) FROM record_versions")[0][0] == 6
    assert verified(sealed).vouched_rows == 8


@pytest.mark.parametrize("is_original", [True, False])
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("record_id", "gen_random_uuid()"),
        ("at", "at + interval '1 microsecond'"),
        ("user_id", "gen_random_uuid()"),
        ("name", "'x'"),
        ("role", "'x'"),
        ("diagnosis", "diagnosis || ' '"),
        ("prescription", "'x'"),
        ("notes", "''"),
        ("attachments", "'[\"x\"]'"),
        ("request_id", "gen_random_uuid()"),
    ],
)
def test_a_version_that_is_changed_in_any_column_is_damage(
    column: str, value: str, is_original: bool, sealed: Backend
) -> None:
    one = "SELECT id FROM record_versions WHERE is_original = $1 LIMIT 1"
    sealed.sql(f"UPDATE record_versions SET {column} = {value} WHERE id = ({one})", is_original)
    assert any(
        "rows of record_versions that are changed or removed: 1" in line for line in verified(sealed).damage
    )


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE record_versions SET reason = 'another' WHERE NOT is_original",
        "DELETE FROM record_versions WHERE is_original",
        "ALTER TABLE record_versions DISABLE TRIGGER USER; INSERT INTO record_versions (record_id, at, "
        "user_id, name, role, reason, diagnosis, prescription, notes, attachments, request_id) "
        "SELECT record_id, at, user_id, name, role, 'x', 'x', '', '', '[]', request_id FROM record_versions",
        "UPDATE record_retractions SET reason = 'another'",
        "UPDATE record_retractions SET patient_id = gen_random_uuid()",
        "UPDATE record_retractions SET created_at = now()",
        "DELETE FROM record_retractions",
        # What is shown is not the newest version.
        "UPDATE medical_records SET diagnosis = 'altered'",
        "UPDATE medical_records SET attachments = '[\"x\"]'",
        "DELETE FROM medical_records",
        # A retraction undone by hand.
        "INSERT INTO medical_records (id, patient_id, doctor_id, date, diagnosis, prescription) "
        "SELECT record_id, patient_id, doctor_id, date, 'back', '' FROM record_retractions",
    ],
)
def test_what_sql_has_done_to_versions_or_retractions_is_damage(statement: str, sealed: Backend) -> None:
    for each in statement.split("; "):
        sealed.sql(each)
    assert any("record" in line for line in verified(sealed).damage)


NEVER_AMENDED = "id NOT IN (SELECT record_id FROM record_versions)"


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE medical_records SET diagnosis = diagnosis || ' ' WHERE {NEVER_AMENDED}",
        f"UPDATE medical_records SET notes = NULL WHERE {NEVER_AMENDED}",
        f"UPDATE medical_records SET attachments = '[]' WHERE {NEVER_AMENDED}",
        f"UPDATE medical_records SET doctor_id = (SELECT id FROM users WHERE role = 'admin') "
        f"WHERE {NEVER_AMENDED}",
        f"UPDATE medical_records SET patient_id = (SELECT id FROM patients WHERE id <> patient_id LIMIT 1) "
        f"WHERE {NEVER_AMENDED}",
        f"DELETE FROM medical_records WHERE {NEVER_AMENDED}",
    ],
)
def test_what_sql_has_done_to_a_record_that_nobody_amended_is_damage(statement: str, sealed: Backend) -> None:
    """contract: "the event that wrote a record vouches for its first text"."""
    [[event]] = sealed.sql(
        f"SELECT event.id FROM audit_events AS event JOIN medical_records AS record ON record.id = target_id "
        f"WHERE action = 'record.create' AND record.{NEVER_AMENDED}"
    )
    sealed.sql(statement)
    assert verified(sealed).damage == [f"event {event}: the record that it wrote is changed or removed"]


def test_a_first_text_that_was_altered_before_it_was_amended_is_damage(sealed: Backend) -> None:
    """The original is another text then than the one that was written."""
    for table in ("record_versions", "medical_records"):
        sealed.sql(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    sealed.sql("UPDATE record_versions SET diagnosis = 'altered' WHERE is_original")
    lines = [line for line in verified(sealed).damage if "the record that it wrote" in line]
    assert len(lines) == 3


def test_records_that_no_event_can_speak_for_are_no_damage(sealed: Backend, monkeypatch: Any) -> None:
    """Events of another key, of a release that vouched for none, and more of them than are read at once."""
    monkeypatch.setattr("persistence.record_verification.EVENTS_AT_ONCE", 1)
    assert verified(sealed).problems == []
    other = Key.of("another key of the operator, thirty-two bytes")
    report = asyncio.run(verify_seals(sealed.database_url, [other], None))
    assert not any("the record that it wrote" in line for line in report.damage)
    for content in ("'nonsense'", f'\'{{"key": "{OURS.id}", "rows": {{}}}}\'', "NULL"):
        sealed.sql(f"UPDATE audit_events SET content = {content} WHERE action = 'record.create'")
        assert not any("the record that it wrote" in line for line in verified(sealed).damage)
