"""A replica dies, hangs, falls behind and comes back, under load: the primary answers, and nobody gets an
error (contract: "else the primary does")."""

from collections.abc import Callable
from pathlib import Path

import pytest

from persistence import embedded
from persistence.embedded.folders import postgres_home
from persistence.postgres.replica import READ_SECONDS
from tests.reliability.conftest import Clinic
from tests.reliability.load import SLACK, require_kept
from tests.reliability.servers import Standby
from tests.support.running import wait_until

LOOKUPS = "SELECT sum(coalesce(idx_scan, 0) + seq_scan) FROM pg_stat_user_tables WHERE relname = 'patients'"


@pytest.fixture
def standby(clinic: Clinic, tmp_path: Path) -> Standby:
    clinic.cleanup.callback(embedded.discard, tmp_path)
    server = Standby(postgres_home(tmp_path, clinic.cleanup), clinic.group)
    server.copy(clinic.postgres.url)
    server.start()
    clinic.cleanup.callback(server.kill)
    return server


def wait_until_asked(standby: Standby) -> None:
    before = standby.sql(LOOKUPS)[0][0]
    wait_until(lambda: standby.sql(LOOKUPS)[0][0] > before, "a read on the replica")


@pytest.mark.parametrize(
    ("fail", "mend"),
    [
        (Standby.kill, Standby.start),
        (Standby.pause, Standby.resume),
        (Standby.hold_replay, Standby.go_on),
    ],
    ids=["killed", "hung", "late"],
)
def test_a_replica_that_fails_costs_nobody_an_answer(
    fail: Callable[[Standby], None], mend: Callable[[Standby], None], clinic: Clinic, standby: Standby
) -> None:
    with clinic.serving(DATABASE_READ_URL=standby.url) as service, clinic.load(service) as load:
        wait_until_asked(standby)
        fail(standby)
        for _ in range(3):
            load.until_served()
        mend(standby)
        wait_until_asked(standby)
    assert {each.status for each in load.attempts} <= {200, 201}
    assert max(each.seconds for each in load.attempts) < SLACK * READ_SECONDS
    require_kept(load, clinic.postgres)
