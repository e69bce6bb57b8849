"""What operators run on the database: `medisecure verify-audit`, `check-counters` and `migrate
--grant-to`."""

import asyncpg
import pytest

from tests.support.audit_trail import wait_until_sealed
from tests.support.command import create_admin, granted_role, medisecure, settings_of
from tests.support.factories import PASSWORD, chart
from tests.support.service import KEY, Backend, Service

pytestmark = pytest.mark.slow


def test_verify_audit_tells_a_whole_trail_from_a_damaged_one(migrated: Backend) -> None:
    """Exit status 0 and the head, or 1 and the damage; the key is never printed."""
    with Service(migrated, migrated.settings()) as service:
        assert service.browser().login("nobody@example.com", "x").status_code == 401
        wait_until_sealed(migrated)
    whole = medisecure("verify-audit", **settings_of(migrated))
    assert whole.returncode == 0, whole.stdout
    assert "1 events in 1 seals" in whole.stdout
    assert "0 events in the unsealed tail" in whole.stdout
    head = whole.stdout.split("head ")[1].split()[0]
    migrated.sql("UPDATE audit_events SET outcome = 'success'")
    damaged = medisecure("verify-audit", "--head", head, **settings_of(migrated))
    assert damaged.returncode == 1
    assert "DAMAGED: event 1 is changed" in damaged.stdout
    assert "noted head" not in damaged.stdout
    assert KEY not in damaged.stdout + damaged.stderr
    migrated.sql("DELETE FROM audit_events")
    migrated.sql("DELETE FROM audit_seals")
    assert "noted head" in medisecure("verify-audit", "--head", head, **settings_of(migrated)).stdout


def test_check_counters_finds_wrong_counters_and_repairs_them(migrated: Backend) -> None:
    """Exit status 0 if they are right; 1 and what to do if they are not."""
    assert medisecure("load-demo", "--yes-known-passwords", **settings_of(migrated)).returncode == 0
    right = medisecure("check-counters", **settings_of(migrated))
    assert right.returncode == 0, right.stderr
    assert "medical_records: not counted yet, 3 rows" in right.stdout
    assert medisecure("migrate", **settings_of(migrated)).returncode == 0
    right = medisecure("check-counters", **settings_of(migrated))
    assert right.returncode == 0, right.stderr
    for line in (
        "appointments (completed): counter 3, rows 3, 450 for 450 in all",
        "audit_events: counter",
        "medical_records: counter 3, rows 3",
        "patients (linked): counter 1, rows 1",
        "users (doctor active): counter",
    ):
        assert line in right.stdout
    migrated.sql("ALTER TABLE medical_records DISABLE TRIGGER USER")
    migrated.sql("DELETE FROM medical_records")
    wrong = medisecure("check-counters", **settings_of(migrated))
    assert wrong.returncode == 1
    assert "DIFFERENT: medical_records: counter 3, rows 0" in wrong.stdout
    assert wrong.stdout.count("DIFFERENT") == 1
    assert "run `medisecure check-counters --repair`" in wrong.stderr
    repaired = medisecure("check-counters", "--repair", **settings_of(migrated))
    assert repaired.returncode == 0, repaired.stdout
    assert "DIFFERENT" not in repaired.stdout
    assert medisecure("check-counters", **settings_of(migrated)).returncode == 0


# What the service's role must not be able to do to the trail, the counters, the schema.
FORBIDDEN = [
    "UPDATE audit_events SET outcome = 'success'",
    "UPDATE audit_seals SET number = number + 1",
    *(
        f"{verb} {table}"
        for verb in ("DELETE FROM", "TRUNCATE")
        for table in ("audit_events", "audit_seals", "counts", "count_changes", "count_marks", "audit_count")
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
]


def test_the_services_role_works_and_can_only_append_to_the_trail(migrated: Backend) -> None:
    """`medisecure migrate --grant-to ROLE`."""
    create_admin(migrated.database_url, "a@clinic.example", "Ada", PASSWORD)
    with granted_role(migrated) as app:
        [(role,)] = app.sql("SELECT current_user")
        again = medisecure("migrate", "--grant-to", role, **settings_of(migrated))
        assert again.returncode == 0, again.stderr
        with Service(app, app.settings()) as service:
            admin = service.browser()
            assert admin.login("a@clinic.example", PASSWORD).status_code == 200
            made = admin.post("/api/patients", chart())
            assert made.status_code == 201
            assert admin.patch(f"/api/patients/{made.json()['id']}", {"phone": "2"}).status_code == 200
            assert admin.get("/api/audit").json()["total"] >= 3
            assert admin.stats()["totalPatients"] == 1
            wait_until_sealed(app)
        assert app.sql("SELECT fold_counts(1)") == [(False,)]
        assert app.sql("SELECT count(*) FROM audit_seals")[0][0] >= 1
        for statement in FORBIDDEN:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                app.sql(statement)


def test_grant_to_executes_nothing_in_the_name_of_the_role(migrated: Backend) -> None:
    refused = medisecure("migrate", "--grant-to", 'x"; DROP TABLE users; --', **settings_of(migrated))
    assert refused.returncode == 1
    assert migrated.sql("SELECT count(*) FROM users")[0][0] == 0
