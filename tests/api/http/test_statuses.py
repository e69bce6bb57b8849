"""All statuses and their one format (requirement, "HTTP Status Codes", "Error Response Format (All
Endpoints)"), and the headers that openapi.yaml promises with them."""

from collections.abc import Iterator

import pytest

from tests.support.client import Browser
from tests.support.conformance import CONTRACT
from tests.support.factories import World, chart
from tests.support.request_counters import use_up
from tests.support.service import Backend, Service

ME = "/api/users/me"
REGISTER = "/api/auth/register"
REFRESH = "/api/auth/refresh"


@pytest.fixture
def limited(backend: Backend) -> Iterator[Browser]:
    """An anonymous caller who has reached the limit of their address."""
    with Service(backend, backend.settings(rate_limit_per_minute=2)) as service:
        yield use_up(service)


def test_every_status_of_the_requirement_is_answered(
    backend: Backend, limited: Browser, world: World
) -> None:
    """Requirement, HTTP Status Codes, in its order; every error is, by Error Response Format (All Endpoints),
    `{"detail": "Error message"}` as JSON and nothing else."""
    answers = [
        (200, world.staff.get("/api/patients")),
        (201, world.staff.post("/api/patients", chart())),
        (400, world.staff.post("/api/patients", {})),
        (401, world.service.browser().get("/api/patients")),
        (403, world.patient.post("/api/patients", chart())),
        (404, world.staff.get("/api/patients/nobody")),
        (429, limited.post(REGISTER, {})),
    ]
    backend.sql("ALTER TABLE patients ADD CONSTRAINT broken CHECK (false) NOT VALID")
    try:
        answers.append((500, world.staff.post("/api/patients", chart())))
    finally:
        backend.sql("ALTER TABLE patients DROP CONSTRAINT broken")
    for status, answer in answers:
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/json"
        if status >= 400:
            body = answer.json()
            assert body == {"detail": str(body["detail"])}, status
            assert body["detail"]


def test_the_traffic_net_catches_a_header_that_is_missing(limited: Browser, world: World) -> None:
    """An answer without a header that openapi.yaml promises fails the test that receives it."""
    standing = ["ratelimit-policy", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"]
    for browser, method, path, names in [
        (world.staff, "GET", ME, ["x-request-id", *standing]),
        (world.staff, "GET", "/api/patients/nobody", ["x-request-id", *standing]),
        (world.service.browser(), "GET", ME, ["x-request-id", "www-authenticate"]),
        (world.service.browser(), "POST", REFRESH, ["x-request-id", "www-authenticate", *standing]),
        (limited, "POST", REFRESH, ["x-request-id", "retry-after", *standing]),
        (world.staff, "GET", "/health/live", ["x-request-id"]),
        (world.staff, "GET", "/nowhere", ["x-request-id"]),
    ]:
        for name in names:
            answer = browser.request(method, path)
            del answer.headers[name]
            with pytest.raises(AssertionError, match=f"(?i){name}"):
                CONTRACT.check(answer)
