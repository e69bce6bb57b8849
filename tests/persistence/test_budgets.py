"""What each operation may ask of PostgreSQL and of Redis (budgets.yaml), counted on the wire. It
must not depend on how many rows the answer has."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.bench.clinic import PASSWORD, Clinic
from tests.bench.seed import fill
from tests.support.calls import CASES, CHART, DOCTOR, Case, Request
from tests.support.conformance import CONTRACT
from tests.support.factories import World
from tests.support.service import Backend, Service
from tests.support.tap import Cost, Tap

pytestmark = pytest.mark.slow

BUDGETS = {
    operation: Cost(**budget)
    for operation, budget in yaml.safe_load(Path(__file__).with_name("budgets.yaml").read_text()).items()
}
MANY = """
    INSERT INTO sessions (id, user_id, refresh_jti, address, user_agent, expires_at)
        SELECT gen_random_uuid(), id, gen_random_uuid(), '192.0.2.7', 'a browser', now() + interval '7 days'
        FROM users, generate_series(1, 100) WHERE email = 'staff0@example.com';
    INSERT INTO audit_events (at, user_id, email, role, action, outcome, patient_id, target_ids, patient_ids,
                              address, request_id)
        SELECT now(), id, email, role, 'patient.read', 'success', '{chart}', '{{}}', '{{{chart}}}',
               '192.0.2.7', gen_random_uuid()
        FROM users WHERE role = 'doctor';
    UPDATE appointments SET doctor_id = '{doctor}', patient_id = '{chart}' WHERE status <> 'scheduled';
    UPDATE medical_records SET doctor_id = '{doctor}', patient_id = '{chart}';
"""


@pytest.fixture(scope="module")
def tap(servers: Backend) -> Iterator[Tap]:
    """On a clinic with more than a hundred of everything, for some of its people too."""
    backend = servers.copy()
    clinic = Clinic(
        patients=200, doctors=110, appointments=600, records=200, events=200, staff=1, patient_accounts=150
    )
    asyncio.run(fill(backend.database_url, clinic))
    for statement in MANY.format(chart=CHART, doctor=DOCTOR).split(";")[:-1]:
        backend.sql(statement)
    with Tap(backend) as tap:
        yield tap


@pytest.fixture(scope="module")
def world(tap: Tap) -> Iterator[World]:
    with Service(tap.backend, tap.backend.settings()) as service:
        emails = {"admin": "admin", "doctor": "doctor0", "staff": "staff0", "patient": "patient0"}
        people = {name: service.browser() for name in emails}
        for name, email in emails.items():
            assert people[name].login(f"{email}@example.com", PASSWORD).status_code == 200
        yield World(service, people)


def cost_of(tap: Tap, request: Request) -> tuple[Cost, list[str]]:
    time.sleep(0.005)  # for what the service still does after the answers before
    place, redis = len(tap.counts.asked), tap.counts.redis
    options = {} if request.body is None else {"json": request.body}
    answer = request.browser.request(request.method, request.path, **options)
    assert answer.is_success, answer.text
    time.sleep(0.005)
    return tap.counts.since(place, redis)


def least(tap: Tap, world: World, case: Case, n: int) -> tuple[Cost, list[str]]:
    """Of several times: the first prepares its statements."""
    costs, statements = zip(*(cost_of(tap, case.make(world, n)) for _ in range(3)), strict=True)
    return Cost(*map(min, *costs)), statements[-1]


@pytest.mark.parametrize("operation", sorted(CASES))
def test_no_operation_costs_more_than_its_budget(operation: str, tap: Tap, world: World) -> None:
    budget = BUDGETS[operation]
    dearest = Cost(0, 0, 0)
    for case, n in ((one, rows) for one in CASES[operation] for rows in one.rows):
        cost, statements = least(tap, world, case, n)
        said = "\n".join(statements)
        assert all(used <= allowed for used, allowed in zip(cost, budget, strict=True)), (
            f"{n} rows: {cost}, budget {budget}\n{said}"
        )
        dearest = Cost(*map(max, dearest, cost))
    assert dearest == budget, "it costs less by now: lower its budget"


def test_every_operation_has_a_budget() -> None:
    missing = (
        "each operation has a case in tests/support/calls.py and a line in tests/persistence/budgets.yaml"
    )
    assert set(BUDGETS) == set(CASES) == CONTRACT.operation_ids(), missing
