"""The primary is lost, and its synchronous standby is promoted: DATABASE_URL names both."""

from collections.abc import Callable
from pathlib import Path

import pytest

from persistence import embedded
from persistence.embedded.folders import postgres_home
from tests.reliability.conftest import Clinic
from tests.reliability.listeners import Poller, Stream
from tests.reliability.load import HEALING_SECONDS, SLACK, require_kept
from tests.reliability.servers import PostgresServer, Standby
from tests.support.client import Browser
from tests.support.command import medisecure
from tests.support.factories import chart
from tests.support.running import wait_until

IS_REPLAYED = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming'"


@pytest.fixture
def standby(clinic: Clinic, tmp_path: Path) -> Standby:
    """A copy of the clinic's PostgreSQL, which has replayed each change before that is acknowledged."""
    primary = clinic.postgres
    clinic.cleanup.callback(embedded.discard, tmp_path)
    server = Standby(postgres_home(tmp_path, clinic.cleanup), clinic.group)
    server.copy(primary.url)
    server.start()
    clinic.cleanup.callback(server.kill)
    primary.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
    primary.sql("ALTER SYSTEM SET synchronous_commit = 'remote_apply'")
    primary.sql("SELECT pg_reload_conf()")
    wait_until(lambda: primary.sql(IS_REPLAYED), "the standby")
    return server


@pytest.mark.parametrize(
    ("lose", "options"),
    [(PostgresServer.kill, "?target_session_attrs=read-write"), (PostgresServer.pause, "")],
    ids=["killed", "hung"],
)
def test_no_acknowledged_row_is_lost_where_a_synchronous_standby_takes_over(
    clinic: Clinic, standby: Standby, lose: Callable[[PostgresServer], None], options: str
) -> None:
    """Without options, that host is meant which takes writes."""
    places = f"{clinic.postgres.place},{standby.place}"
    url = f"postgresql://postgres@{places}/medisecure{options}"
    with clinic.serving(DATABASE_URL=url) as service, clinic.load(service) as load:
        lose(clinic.postgres)
        standby.sql("SELECT pg_promote()")
        assert load.until_served() < SLACK * HEALING_SECONDS
        migrated = medisecure("migrate", DATABASE_URL=url)
        assert migrated.returncode == 0, migrated.stderr
    require_kept(load, standby)


def test_whoever_listens_is_told_to_begin_anew_where_a_standby_takes_over(
    clinic: Clinic, standby: Standby
) -> None:
    """contract: "it is 400, not silence"."""
    url = f"postgresql://postgres@{clinic.postgres.place},{standby.place}/medisecure"
    with clinic.serving(DATABASE_URL=url) as service:
        cookies = dict(clinic.filled.cookies["staff"])
        with Stream([service.url], cookies) as stream, Poller([service.url], cookies) as poller:
            listeners = (stream, poller)
            assert Browser(service.url, cookies).post("/api/patients", chart()).status_code == 201
            wait_until(lambda: all(listener.heard for listener in listeners), "the first change")
            clinic.postgres.kill()
            standby.sql("SELECT pg_promote()")
            wait_until(lambda: all(listener.problems for listener in listeners), "an answer")
    assert all(problem.startswith("400 ") for listener in listeners for problem in listener.problems)
    assert all("is of another database" in listener.problems[0] for listener in listeners)
