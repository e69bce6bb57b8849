"""Least surprise for operators: what `medisecure` refuses, seals, grants and reads from files."""

import asyncio
import time
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import text

from api.commands.checks import find_problem
from api.commands.maintenance import verify_seals
from persistence.audit_chain import Key
from persistence.migrations.revisions import is_behind
from persistence.postgres.database import Database
from tests.support.command import medisecure
from tests.support.factories import chart
from tests.support.service import KEY, Backend, Service


@pytest.fixture
def empty(servers: Backend) -> Backend:
    """A migrated database without anybody in it."""
    return servers.copy()


def environment(backend: Backend, **changes: str) -> dict[str, str]:
    return {
        "DATABASE_URL": backend.database_url,
        "REDIS_URL": backend.redis_url,
        "SECRET_KEY": KEY,
        **changes,
    }


def as_role(backend: Backend, role: str) -> Backend:
    return Backend(backend.database_url.replace("postgres@", f"{role}@", 1), backend.redis_url)


def test_serve_refuses_passwords_that_everyone_knows(empty: Backend) -> None:
    settings = environment(empty)
    assert medisecure("load-demo", "--yes-known-passwords", **settings).returncode == 0
    refused = medisecure("serve", "--port", "0", **settings)
    assert refused.returncode == 1
    assert "admin@example.com" in refused.stderr
    assert "set-password" in refused.stderr


def test_serve_refuses_a_time_zone_that_postgresql_does_not_know(empty: Backend) -> None:
    settings = empty.settings(clinic_timezone="localtime")
    assert "does not know the time zone localtime" in str(asyncio.run(find_problem(settings)))


def test_serve_refuses_a_database_that_lacks_a_migration_and_not_one_that_is_ahead(empty: Backend) -> None:
    settings = environment(empty)
    [[head]] = empty.sql("SELECT version_num FROM alembic_version")
    for older in ("UPDATE alembic_version SET version_num = '0001'", "DELETE FROM alembic_version"):
        empty.sql(older)
        refused = medisecure("serve", "--port", "0", **settings)
        assert refused.returncode == 1
        assert "run `medisecure migrate` first" in refused.stderr
    assert not asyncio.run(is_behind_after(empty, f"INSERT INTO alembic_version VALUES ('{head}')"))
    assert not asyncio.run(is_behind_after(empty, "UPDATE alembic_version SET version_num = 'of_next_year'"))


async def is_behind_after(backend: Backend, statement: str) -> bool:
    database = Database(backend.database_url)
    try:
        async with database.transaction() as transaction:
            await transaction.run(text(statement))
        return await is_behind(database.reader)
    finally:
        await database.close()


def test_secrets_come_from_files(empty: Backend, tmp_path: Path) -> None:
    """SECRET_KEY_FILE and the others, as orchestrators mount them."""
    file = tmp_path / "url"
    file.write_text(f"{empty.database_url}\n")
    made = medisecure(
        "create-admin", "a@clinic.example", "Ada", stdin="a good one\n", DATABASE_URL_FILE=str(file)
    )
    assert made.returncode == 0, made.stderr
    key = tmp_path / "key"
    key.write_text("short\n")
    both = {**environment(empty), "SECRET_KEY_FILE": str(key)}
    assert "both set" in medisecure("serve", **both).stderr
    del both["SECRET_KEY"]
    assert "SECRET_KEY is shorter than 32 bytes" in medisecure("serve", **both).stderr
    both["SECRET_KEY_FILE"] = str(tmp_path / "missing")
    assert "SECRET_KEY_FILE cannot be read" in medisecure("serve", **both).stderr


def wait_until_sealed(backend: Backend) -> None:
    for _ in range(100):
        if asyncio.run(verify_seals(backend.database_url, [Key.of(KEY)], None)).unsealed == 0:
            return
        time.sleep(0.1)
    raise AssertionError("nothing was sealed")


def test_verify_audit(empty: Backend) -> None:
    """0 and the head for a whole trail, 1 and the damage for another; never the key."""
    with Service(empty, empty.settings()) as service:
        assert service.browser().login("nobody@example.com", "x").status_code == 401
        wait_until_sealed(empty)
    whole = medisecure("verify-audit", **environment(empty))
    assert whole.returncode == 0, whole.stdout
    assert "1 events in 1 seals" in whole.stdout
    assert "0 events in the unsealed tail" in whole.stdout
    head = whole.stdout.split("head ")[1].split()[0]
    empty.sql("UPDATE audit_events SET outcome = 'success'")
    damaged = medisecure("verify-audit", "--head", head, **environment(empty))
    assert damaged.returncode == 1
    assert "DAMAGED: event 1 is changed" in damaged.stdout
    assert "noted head" not in damaged.stdout
    assert KEY not in damaged.stdout + damaged.stderr
    empty.sql("DELETE FROM audit_events")
    empty.sql("DELETE FROM audit_seals")
    assert "noted head" in medisecure("verify-audit", "--head", head, **environment(empty)).stdout


def test_the_applications_role_can_only_append_to_the_trail(empty: Backend) -> None:
    """`medisecure migrate --grant-to ROLE`: the service works under it, and the trail is safe from it."""
    role = f"app_{uuid4().hex[:12]}"
    empty.sql(f"CREATE ROLE {role} LOGIN")
    for _ in range(2):  # again does no harm
        granted = medisecure("migrate", "--grant-to", role, **environment(empty))
        assert granted.returncode == 0, granted.stderr
    made = medisecure("create-admin", "a@clinic.example", "Ada", stdin="a good one\n", **environment(empty))
    assert made.returncode == 0, made.stderr

    app = as_role(empty, role)
    with Service(app, app.settings()) as service:
        admin = service.browser()
        assert admin.login("a@clinic.example", "a good one").status_code == 200
        made_chart = admin.post("/api/patients", chart())
        assert made_chart.status_code == 201
        assert admin.patch(f"/api/patients/{made_chart.json()['id']}", {"phone": "2"}).status_code == 200
        assert admin.get("/api/audit").json()["total"] >= 3
        assert admin.get("/api/dashboard/stats").json()["totalPatients"] == 1
        wait_until_sealed(app)
    assert app.sql("SELECT fold_counts(1)") == [(False,)]
    assert app.sql("SELECT count(*) FROM audit_seals")[0][0] >= 1
    for statement in (
        "UPDATE audit_events SET outcome = 'success'",
        "UPDATE audit_seals SET number = number + 1",
        *(
            f"{verb} {table}"
            for verb in ("DELETE FROM", "TRUNCATE")
            for table in ("audit_events", "audit_seals")
        ),
        *(
            f"{verb} {table}"
            for verb in ("DELETE FROM", "TRUNCATE")
            for table in ("counts", "count_changes", "count_marks", "audit_count")
        ),
        "INSERT INTO counts VALUES ('patients', 'linked', 1, 0)",
        "INSERT INTO count_changes VALUES ('patients', 'linked', '', now(), gen_random_uuid(), 1, 0)",
        "UPDATE count_marks SET n = n + 1",
        "DELETE FROM counted_lists",
        "UPDATE audit_past SET n = 1",
        "SELECT count_list('patients')",
        *(
            "DO $$ BEGIN CREATE TEMP TABLE patients (id uuid, sort_name text, user_id uuid); "
            f"CREATE TRIGGER forged {when} EXECUTE FUNCTION {function}(); END $$"
            for function, when in (
                ("count_new_patients", "AFTER INSERT ON patients FOR EACH ROW"),
                ("forget_count", "BEFORE TRUNCATE ON patients"),
                ("forget_audit_count", "BEFORE TRUNCATE ON patients"),
            )
        ),
        "DROP TABLE audit_events",
        "UPDATE alembic_version SET version_num = '0'",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            app.sql(statement)
    empty.sql(f"DROP OWNED BY {role}")
    empty.sql(f"DROP ROLE {role}")


def test_check_counters(empty: Backend) -> None:
    """0 where they are right, 1 and what to do where they are not; then all is counted afresh."""
    assert medisecure("load-demo", "--yes-known-passwords", **environment(empty)).returncode == 0
    right = medisecure("check-counters", **environment(empty))
    assert right.returncode == 0, right.stderr
    assert "medical_records: not counted yet, 3 rows" in right.stdout
    assert medisecure("migrate", **environment(empty)).returncode == 0
    right = medisecure("check-counters", **environment(empty))
    assert right.returncode == 0, right.stderr
    for line in (
        "appointments (completed): counter 3, rows 3, 450 for 450 in all",
        "audit_events: counter",
        "medical_records: counter 3, rows 3",
        "patients (linked): counter 1, rows 1",
        "users (doctor active): counter",
    ):
        assert line in right.stdout
    empty.sql("ALTER TABLE medical_records DISABLE TRIGGER USER")
    empty.sql("DELETE FROM medical_records")
    wrong = medisecure("check-counters", **environment(empty))
    assert wrong.returncode == 1
    assert "DIFFERENT: medical_records: counter 3, rows 0" in wrong.stdout
    assert wrong.stdout.count("DIFFERENT") == 1
    assert "run `medisecure check-counters --repair`" in wrong.stderr
    repaired = medisecure("check-counters", "--repair", **environment(empty))
    assert repaired.returncode == 0, repaired.stdout
    assert "DIFFERENT" not in repaired.stdout
    assert medisecure("check-counters", **environment(empty)).returncode == 0


def test_a_role_with_a_strange_name(empty: Backend) -> None:
    """A name is a name: nothing in it is executed."""
    refused = medisecure("migrate", "--grant-to", 'x"; DROP TABLE users; --', **environment(empty))
    assert refused.returncode == 1
    assert empty.sql("SELECT count(*) FROM users")[0][0] == 0
