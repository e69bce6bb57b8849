"""The trail vouches for the versions of records and for their retractions: what SQL has changed there is
damage."""

import asyncio

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
    """A record that was amended twice, one that was amended and retracted, one that was only retracted; all
    of it sealed, in a database on which no service runs any more."""
    backend = populated[0].copy()
    with Service(backend, backend.settings()) as service:
        world = World(service, {name: service.browser(one) for name, one in populated[1].items()})
        chart = world.chart()["id"]
        for amended, retracted in ((2, False), (1, True), (0, True)):
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
