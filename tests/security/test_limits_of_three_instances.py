"""Each limit is exact in the sum over all instances, under concurrency, with a replica or without."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.support.client import Browser, standing
from tests.support.factories import World, email
from tests.support.request_counters import LOGOUT, ME, REGISTER, as_user
from tests.support.running import free_port
from tests.support.service import Backend, Service

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("new_minute")]

NO_REPLICA = None
REPLICA_AWAY = (
    f"postgresql://postgres@127.0.0.1:{free_port()}/medisecure"  # the scripts are others all the same
)


@pytest.fixture(scope="module", params=[NO_REPLICA, REPLICA_AWAY], ids=["alone", "replica"])
def instances(backend: Backend, request: pytest.FixtureRequest) -> Iterator[list[Service]]:
    settings = backend.settings(
        rate_limit_per_minute=40, login_attempts=5, database_read_url=request.param, drain_seconds=0
    )
    with ExitStack() as running:
        yield [running.enter_context(Service(backend, settings)) for _ in range(3)]


def test_of_120_requests_of_a_user_at_three_instances_40_pass(instances: list[Service], world: World) -> None:
    browsers = [as_user(each, world.patient) for each in instances]
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda number: browsers[number % 3].get(ME), range(120)))
    assert Counter(answer.status_code for answer in answers) == {200: 40, 429: 80}
    left = sorted(int(standing(answer)[2]) for answer in answers)
    assert left == [0] * 80 + list(range(40))


def test_of_90_anonymous_requests_of_an_address_at_three_instances_40_pass(
    instances: list[Service], world: World
) -> None:
    """Those with the cookies of a session that has ended count among them."""
    ended, _ = world.account()
    cookies = dict(ended.cookies)
    assert ended.post(LOGOUT).status_code == 200
    browsers = [each.browser(jar) for each in instances for jar in ({}, cookies)]
    with ThreadPoolExecutor(24) as pool:
        answers = pool.map(lambda number: Browser.post(browsers[number % 6], REGISTER, {}), range(90))
        assert Counter(answer.status_code for answer in answers) == {400: 40, 429: 50}


def test_of_30_sign_ins_at_three_instances_five_are_checked(instances: list[Service]) -> None:
    nobody = email("nobody")
    doors = [each.browser() for each in instances] * 10
    with ThreadPoolExecutor(len(doors)) as pool:
        answers = list(pool.map(lambda door: door.login(nobody, "not it").status_code, doors))
    assert Counter(answers) == {401: 5, 429: 25}
