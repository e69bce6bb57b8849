"""PostgreSQL answers and stores nothing: it is a standby, was told so, or waits for one that is away."""

from collections.abc import Callable
from pathlib import Path

import httpx

from persistence import embedded
from persistence.embedded.folders import postgres_home
from tests.reliability.conftest import Clinic
from tests.reliability.load import HEALING_SECONDS, SLACK, require_kept
from tests.reliability.servers import Standby
from tests.support.client import Browser
from tests.support.factories import PASSWORD, chart
from tests.support.relay import line_to
from tests.support.running import Running

LONG_UNSEEN = "UPDATE sessions SET last_seen_at = now() - interval '1 hour'"  # which is noted at a request


def person(clinic: Clinic, service: Running, name: str) -> Browser:
    return Browser(service.url, dict(clinic.filled.cookies[name]))


def require_only_reads(clinic: Clinic, service: Running) -> None:
    """What leaves no event is answered; what leaves one, or writes, is not."""
    doctor, staff = person(clinic, service, "doctor"), person(clinic, service, "staff")
    of_chart = f"/api/patients/{clinic.filled.patient_id}"
    for path in ("/api/users/me", "/api/doctors", "/api/clinic", "/api/dashboard/stats"):
        assert doctor.get(path).status_code == 200, path
    refused: tuple[Callable[[], httpx.Response], ...] = (
        lambda: doctor.get(of_chart),
        lambda: doctor.get("/api/patients"),
        lambda: staff.post("/api/patients", chart()),
        lambda: staff.post("/api/auth/refresh"),
        lambda: service.browser().login("staff@test.example", PASSWORD),
    )
    for ask in refused:
        answer = ask()
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True), answer.request.url


def require_degraded(service: Running, cause: str) -> None:
    ready = httpx.get(f"{service.url}/health/ready")
    assert (ready.status_code, ready.json()["degraded"]) == (200, [cause])


def test_a_database_that_was_told_to_only_read_still_shows_what_leaves_no_event(clinic: Clinic) -> None:
    with clinic.serving() as service, clinic.load(service) as load:
        clinic.postgres.sql(LONG_UNSEEN)
        clinic.postgres.set("default_transaction_read_only", "on")
        with clinic.backend.redis as redis:
            redis.flushall()  # so that PostgreSQL is asked who calls
        require_only_reads(clinic, service)
        require_degraded(service, "database_read_only")
        clinic.postgres.set("default_transaction_read_only", "off")
        assert load.until_served() < SLACK * HEALING_SECONDS
        assert httpx.get(f"{service.url}/health/ready").json()["degraded"] == []
    require_kept(load, clinic.postgres)


def test_a_standby_shows_what_leaves_no_event(clinic: Clinic, tmp_path: Path) -> None:
    clinic.cleanup.callback(embedded.discard, tmp_path)
    standby = Standby(postgres_home(tmp_path, clinic.cleanup), clinic.group)
    clinic.postgres.sql(LONG_UNSEEN)
    standby.copy(clinic.postgres.url)
    standby.start()
    clinic.cleanup.callback(standby.kill)
    with (
        line_to(clinic.postgres.place) as line,
        clinic.serving(DATABASE_URL=clinic.postgres.url_at(line.relay.port)) as service,
    ):
        line.relay.place = standby.place  # as where a name or an address has moved before the promotion
        line.do(lambda relay: relay.cut())
        require_only_reads(clinic, service)
        require_degraded(service, "database_read_only")
        standby.sql("SELECT pg_promote()")
        added = person(clinic, service, "staff").post("/api/patients", chart())
        assert added.status_code == 201, added.text


def test_who_reads_does_not_wait_for_a_standby_that_is_away(clinic: Clinic) -> None:
    """A write does, until its time is over."""
    with clinic.serving() as service:
        clinic.postgres.sql(LONG_UNSEEN)
        clinic.postgres.set("synchronous_standby_names", "'*'")
        doctor = person(clinic, service, "doctor")
        assert doctor.get("/api/doctors").status_code == 200
        assert person(clinic, service, "staff").post("/api/patients", chart()).status_code == 503
