"""What PostgreSQL holds of merged charts: who may write it, and that the trail vouches for it
(docs/decisions/0054-merging-charts.md)."""

import asyncio
from collections.abc import Iterator

import asyncpg
import pytest

from api.commands.maintenance import verify_seals
from persistence.audit_chain import Key
from persistence.backup.source import connected
from persistence.migrations.commands import upgrade
from tests.support.command import granted_role
from tests.support.factories import World
from tests.support.service import KEY, Backend, Service

pytestmark = pytest.mark.slow

FORBIDDEN = [
    "INSERT INTO merged_patients SELECT * FROM merged_patients",
    "UPDATE merged_patients SET survivor_id = id",
    "DELETE FROM merged_patients",
    "UPDATE patient_merges SET reason = 'x'",
    "DELETE FROM patient_merges",
    "UPDATE medical_records SET stored_patient_id = NULL",
    "INSERT INTO record_retractions (stored_patient_id) VALUES (gen_random_uuid())",
]


def damage(backend: Backend) -> list[str]:
    return asyncio.run(verify_seals(backend.database_url, [Key.of(KEY)], None)).problems


@pytest.fixture
def clinic(populated: tuple[Backend, dict[str, dict[str, str]], float]) -> Iterator[tuple[Backend, World]]:
    """A database of its own, and a service on it with the rights of `migrate --grant-to`."""
    backend = populated[0].copy()
    with granted_role(backend) as app, Service(app, app.settings()) as service:
        yield backend, World(service, {name: service.browser(one) for name, one in populated[1].items()})


def test_the_services_role_merges_by_the_functions_alone(clinic: tuple[Backend, World]) -> None:
    backend, world = clinic
    survivor, merged = world.chart()["id"], world.chart()["id"]
    records = [world.record(merged)["id"] for _ in range(3)]
    body = {"from": merged, "reason": "Registered twice"}

    def act(path: str, reason: str = "x") -> None:
        assert world.admin.post(path, {**body, "reason": reason}).status_code in (200, 201)

    def retract(record: str) -> None:
        taken = world.doctor.post(f"/api/records/{record}/retraction", {"reason": "x"})
        assert taken.status_code == 201

    retract(records[0])  # before, during and after the merge
    act(f"/api/patients/{survivor}/merge")
    retract(records[1])
    assert damage(backend) == []
    act(f"/api/patients/{survivor}/unmerge")
    retract(records[2])
    assert damage(backend) == []
    charts = backend.sql("SELECT DISTINCT patient_id::text, stored_patient_id FROM record_retractions")
    assert [tuple(row) for row in charts] == [(merged, None)]
    for statement in FORBIDDEN:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            world.service.backend.sql(statement)
    backend.sql("UPDATE patient_merges SET reason = 'Another' WHERE is_undone")
    assert len(damage(backend)) == 2  # the row is changed, and what it is now is vouched for by nothing


@pytest.mark.parametrize("charts", [("missing", "one"), ("one", "missing"), ("one", "one")])
def test_the_functions_refuse_what_is_no_pair_of_charts(
    clinic: tuple[Backend, World], charts: tuple[str, str]
) -> None:
    backend, world = clinic
    names = {"missing": "00000000-0000-4000-8000-000000000000", "one": world.chart()["id"]}
    survivor, merged = (names[name] for name in charts)
    with pytest.raises((asyncpg.NoDataFoundError, asyncpg.CheckViolationError)):
        backend.sql("SELECT merge_charts($1, $2)", survivor, merged)
    with pytest.raises(asyncpg.NoDataFoundError):
        backend.sql("SELECT unmerge_charts($1, $2)", survivor, merged)


def test_a_backup_counts_merged_charts_as_well(clinic: tuple[Backend, World]) -> None:
    backend, world = clinic
    survivor, body = world.chart()["id"], {"from": world.chart()["id"], "reason": "x"}
    with connected(backend.database_url) as session:
        before = session.count_rows()
        assert world.admin.post(f"/api/patients/{survivor}/merge", body).status_code == 200
        assert session.count_rows()["patients"] == before["patients"]


def test_migrating_makes_the_search_keys_of_a_merged_chart_anew(clinic: tuple[Backend, World]) -> None:
    """Nothing but a search would miss it, once the merge is undone."""
    backend, world = clinic
    survivor, merged = world.chart()["id"], world.chart(name="Élodie Éclair")["id"]
    body = {"from": merged, "reason": "Registered twice"}
    assert world.admin.post(f"/api/patients/{survivor}/merge", body).status_code == 200
    backend.sql("UPDATE merged_patients SET sort_name = 'x', search_text = 'x'")  # of another format
    upgrade(backend.database_url)
    assert world.admin.post(f"/api/patients/{survivor}/unmerge", body).status_code == 200
    found = world.staff.get("/api/patients", params={"search": "elodie eclair"}).json()
    assert [chart["id"] for chart in found["patients"]] == [merged]
