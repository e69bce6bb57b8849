"""What the tests of resources share."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from security.roles import Role
from tests.support.accounts import ME
from tests.support.audit_trail import newest
from tests.support.client import Browser
from tests.support.factories import PASSWORD, World, registration
from tests.support.service import Backend, Service


@pytest.fixture(scope="module")
def second_instance(backend: Backend, service: Service) -> Iterator[Service]:
    """Another instance beside `service`, on the same PostgreSQL and Redis."""
    with Service(backend, backend.settings()) as running:
        yield running


@pytest.fixture(scope="module")
def own_chart(world: World) -> dict[str, Any]:
    """The chart that is linked to the patient's account; the other patient has none."""
    linked = world.chart(name="Paula Patient")
    world.link(linked["id"], world.patient)
    return linked


@pytest.fixture
def own_chart_for_a_test(world: World) -> Iterator[dict[str, Any]]:
    """A chart that is linked to the patient's account for the time of a test."""
    linked = world.chart(name="Paula Patient")
    world.link(linked["id"], world.patient)
    yield linked
    assert world.staff.delete(f"/api/patients/{linked['id']}/account").status_code == 200


@pytest.fixture(scope="module")
def doctors(world: World) -> list[str]:
    """The ids of five doctors; the first two are those of the world."""
    made = [world.admin.post("/api/auth/register", registration(Role.DOCTOR)).json() for _ in range(3)]
    return [world.doctor.me()["id"], world.other_doctor.me()["id"], *(doctor["id"] for doctor in made)]


@pytest.fixture(scope="module")
def registered_email(service: Service) -> str:
    """The e-mail of a registered patient: any test may sign in with it, and none changes the account."""
    body = registration()
    assert service.browser().post("/api/auth/register", body).status_code == 201
    return str(body["email"])


@pytest.fixture
def signed_in(service: Service, registered_email: str) -> Browser:
    """A session of its own for each test."""
    browser = service.browser()
    assert browser.login(registered_email, PASSWORD).status_code == 200
    return browser


@pytest.fixture
def at_both(service: Service, second_instance: Service) -> Callable[[Browser], list[Browser]]:
    """The same session at two instances, both of which have just found it alive."""

    def copies(browser: Browser) -> list[Browser]:
        both = [instance.browser(dict(browser.cookies)) for instance in (service, second_instance)]
        assert [copy.get(ME).status_code for copy in both] == [200, 200]
        return both

    return copies


@pytest.fixture
def since(backend: Backend) -> int:
    """The id of the newest audit event before the test."""
    return newest(backend)
