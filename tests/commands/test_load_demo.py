"""`medisecure load-demo`: the demo data into an empty database only, and into an external one only if that is
meant."""

import pytest

from persistence import demo
from persistence.migrations.commands import upgrade
from tests.support.command import Refusal, medisecure
from tests.support.service import Backend, Service

NOT_EMPTY = "medisecure: the database is not empty; the demo data goes into an empty one only"


@pytest.mark.slow
def test_load_demo_needs_an_option_for_an_external_database(unmigrated: Backend, refusal: Refusal) -> None:
    assert "--yes-known-passwords" in refusal("load-demo", DATABASE_URL=unmigrated.database_url)
    assert unmigrated.sql("SELECT 1 FROM pg_tables WHERE schemaname = 'public'") == []

    loaded = medisecure("load-demo", "--yes-known-passwords", DATABASE_URL=unmigrated.database_url)
    assert loaded.returncode == 0, loaded.stderr
    assert demo.PASSWORD in loaded.stdout
    with Service(unmigrated, unmigrated.settings()) as service:
        browser = service.browser()
        assert browser.login("staff@example.com", demo.PASSWORD).status_code == 200
        assert all(browser.stats().values())

    before = unmigrated.sql("SELECT * FROM users ORDER BY id")
    assert refusal("load-demo", "--yes-known-passwords", DATABASE_URL=unmigrated.database_url) == NOT_EMPTY
    assert unmigrated.sql("SELECT * FROM users ORDER BY id") == before


def test_load_demo_refuses_a_database_with_a_chart(unmigrated: Backend, refusal: Refusal) -> None:
    """Even without an account it is a clinic's."""
    upgrade(unmigrated.database_url)
    unmigrated.sql(
        "INSERT INTO patients (id, name, email, phone, date_of_birth, gender, address, sort_name, "
        "search_text) "
        "VALUES (gen_random_uuid(), 'P', 'p@example.com', '1', '1980-01-01', 'other', 'x', 'p', 'p')"
    )
    assert refusal("load-demo", "--yes-known-passwords", DATABASE_URL=unmigrated.database_url) == NOT_EMPTY
    assert unmigrated.sql("SELECT 1 FROM users") == []


def test_a_data_folder_that_cannot_be_made_is_named(refusal: Refusal) -> None:
    assert refusal("load-demo", "--data-dir", "/dev/null/data") == (
        "medisecure: [Errno 20] Not a directory: '/dev/null/data'"
    )
