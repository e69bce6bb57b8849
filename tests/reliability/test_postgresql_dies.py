"""PostgreSQL is killed under writes, and comes back."""

from tests.reliability.conftest import Clinic
from tests.reliability.load import HEALING_SECONDS, SLACK, require_kept


def test_nothing_acknowledged_is_lost_where_postgresql_is_killed(clinic: Clinic) -> None:
    with clinic.serving() as service, clinic.load(service) as load:
        for _ in range(2):
            clinic.postgres.kill()
            assert not service.answers("/health/ready")
            clinic.postgres.start()
            assert load.until_served() < SLACK * HEALING_SECONDS
    require_kept(load, clinic.postgres)
