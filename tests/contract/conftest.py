from collections.abc import Iterator

import pytest

from api.commands.development import add_demo
from api.commands.environment import run_transaction
from persistence import demo
from tests.support.demo_clinic import Clinic, Template, open_clinic, settings
from tests.support.service import Backend, Service


@pytest.fixture(scope="session")
def template(servers: Backend) -> Template:
    """The demo data, and the cookies of the four accounts. Only copied, so that every case starts here."""
    backend = servers.copy()
    chosen = settings(backend)
    run_transaction(backend.database_url, lambda transaction: add_demo(transaction, chosen))
    with Service(backend, chosen) as service:
        jars = {}
        for account in demo.ACCOUNTS[:4]:
            browser = service.browser()
            body = {"email": account.email, "password": demo.PASSWORD}
            signed_in = browser.post("/api/auth/login", body, headers={"user-agent": "Mozilla/5.0"})
            assert signed_in.status_code == 200, signed_in.text
            jars[account.role] = browser.cookies
    return backend, jars


@pytest.fixture
def clinic(template: Template) -> Iterator[Clinic]:
    """For a case that changes something."""
    with open_clinic(template) as clinic:
        yield clinic


@pytest.fixture(scope="module")
def unchanged(template: Template) -> Iterator[Clinic]:
    """For all cases that change nothing."""
    with open_clinic(template) as clinic:
        yield clinic
