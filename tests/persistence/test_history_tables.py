"""The tables of the history: what the service's own role may do with them, and how they are searched for
rows that nobody vouches for."""

from collections.abc import Iterator

import asyncpg
import pytest

from persistence.content_verification import STRAYS
from tests.support.command import granted_role, medisecure
from tests.support.service import KEY, Backend

pytestmark = pytest.mark.slow

TABLES = ("patient_changes", "appointment_changes")
CHANGES = (
    "UPDATE {table} SET after = 'x'",
    "UPDATE {table} SET request_id = gen_random_uuid()",
    "DELETE FROM {table}",
    "TRUNCATE {table}",
    "ALTER TABLE {table} ADD COLUMN x text",
    "INSERT INTO {table} (id, {of}, at, request_id, field) OVERRIDING SYSTEM VALUE "
    "VALUES (1, gen_random_uuid(), now(), gen_random_uuid(), 'phone')",
)


@pytest.fixture(scope="module")
def app(servers: Backend) -> Iterator[Backend]:
    """A migrated database as the service's role sees it."""
    with granted_role(servers.copy()) as role:
        yield role


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("statement", CHANGES)
def test_the_services_role_may_only_append(statement: str, table: str, app: Backend) -> None:
    """contract: "The service's role may only append to a sealed table, and reads it"."""
    of = f"{table.removesuffix('_changes')}_id"
    app.sql(
        f"INSERT INTO {table} ({of}, at, request_id, field) "
        "VALUES (gen_random_uuid(), now(), gen_random_uuid(), 'phone')"
    )
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        app.sql(statement.format(table=table, of=of))
    assert app.sql(f"SELECT count(*) FROM {table} WHERE after IS NULL")[0][0] > 0


def test_what_the_role_makes_up_is_damage(app: Backend) -> None:
    """It may append; but no event vouches for that."""
    app.sql(
        "INSERT INTO patient_changes (patient_id, at, request_id, field, before) "
        "VALUES (gen_random_uuid(), now(), gen_random_uuid(), 'allergies', 'never said')"
    )
    [(rows,)] = app.sql("SELECT count(*) FROM patient_changes")
    done = medisecure("verify-audit", DATABASE_URL=app.database_url, SECRET_KEY=KEY)
    assert done.returncode == 1
    told = f"DAMAGED: rows of patient_changes that no event vouches for: {rows}, of {rows} requests"
    assert told in done.stdout
    assert "0 rows of history and versions are as their events say" in done.stdout


@pytest.mark.parametrize("table", TABLES)
def test_rows_that_nobody_vouches_for_are_found_by_a_join(table: str, servers: Backend) -> None:
    """A loop over the trail for each row of a history would never end."""
    plan = "\n".join(row[0] for row in servers.sql(f"EXPLAIN {STRAYS[table].compiled(()).sql}"))
    assert "Anti Join" in plan
    assert "SubPlan" not in plan
