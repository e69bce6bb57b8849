"""The limit of requests of an address: who is counted on it, who on nobody, and which address that is behind
a proxy."""

import pytest

from api.contract import contract
from security.admission import network_of
from tests.support.client import standing
from tests.support.conformance import CONTRACT
from tests.support.factories import PASSWORD, World
from tests.support.openapi import operations, with_values
from tests.support.request_counters import (
    LOGOUT,
    ME,
    REFRESH,
    REGISTER,
    TOO_MANY,
    as_user,
    count_of,
    counted,
    use_up,
)
from tests.support.service import Backend, Service

pytestmark = pytest.mark.usefixtures("new_minute")


def test_requests_of_anonymous_callers_are_counted_on_their_address(
    two_a_minute: Service, world: World
) -> None:
    """Contract, the limit: "per address for what serves anonymous callers (register; refresh without a living
    session's token)"."""
    answers = [two_a_minute.browser().post(REGISTER, {}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [400, 400, 429]
    assert [standing(answer)[2] for answer in answers] == ["1", "0", "0"]
    assert answers[2].json() == TOO_MANY

    anonymous = two_a_minute.browser()
    assert anonymous.post(REFRESH).status_code == 429
    assert two_a_minute.browser({"refresh_token": "nonsense"}).post(REFRESH).status_code == 429
    assert as_user(two_a_minute, world.staff).get(ME).status_code == 200, "users are not counted with them"


@pytest.mark.slow
def test_a_401_is_neither_counted_nor_429(backend: Backend, two_a_minute: Service, world: World) -> None:
    """Contract, the limit: "people behind one address must not lose their refresh to a neighbour's lapsed
    cookies": not on any operation, with whatever is no living session, before or after the address is over
    its limit."""
    browser, _ = world.account()
    dead = dict(browser.cookies)
    browser.post(LOGOUT)
    neighbours = [two_a_minute.browser(jar) for jar in ({}, {"access_token": "nonsense"}, dead)]
    secured = [
        (method, with_values(path, "1a2b3c4d-5e6f-4a1b-8c2d-5d9e4f304a05"))
        for method, path, operation in operations(contract())
        if CONTRACT.is_secured(operation)
    ]
    assert len(secured) > 20
    for over_the_limit in (False, True):
        if over_the_limit:
            use_up(two_a_minute)
        counts = counted(backend)
        for method, path in secured:
            for neighbour in neighbours:
                assert neighbour.request(method, path).status_code == 401, path
        assert counted(backend) == counts
    patient = as_user(two_a_minute, world.other_patient)
    assert patient.post(REFRESH).status_code == 200, "a living session is refreshed"


@pytest.mark.parametrize("remembered", [True, False], ids=["just ended", "ended long ago"])
def test_requests_of_an_ended_session_are_not_counted_on_its_user(
    backend: Backend, two_a_minute: Service, service: Service, world: World, remembered: bool
) -> None:
    """Contract, accounts: "dead cookies mean anonymous": who holds one cannot use up its user's limit."""
    user_id = world.other_patient.me()["id"]
    browser = service.browser()
    browser.login("other_patient@test.example", PASSWORD)
    dead = service.browser(dict(browser.cookies))
    browser.post(LOGOUT)
    before = count_of(backend, user_id)
    for path, statuses in ((ME, [401] * 5), (REFRESH, [401, 401, 429, 429, 429])):
        if not remembered:
            with backend.redis as connection:
                connection.delete(*connection.keys("session:*"))
        method = "POST" if path == REFRESH else "GET"
        answers = [as_user(two_a_minute, dead).request(method, path).status_code for _ in range(5)]
        assert answers == statuses
    assert count_of(backend, user_id) == before


def test_health_documents_and_options_are_not_counted(two_a_minute: Service) -> None:
    """Contract, accounts: "health, docs, contract files and OPTIONS are exempt"."""
    anonymous = two_a_minute.browser()
    use_up(two_a_minute)
    preflight = {"origin": "http://localhost:5173", "access-control-request-method": "PATCH"}
    for _ in range(3):
        for path in ("/health/live", "/health/ready", "/docs", "/openapi.yaml", "/openapi.json"):
            answer = anonymous.get(path)
            assert answer.status_code == 200
            assert "ratelimit-limit" not in answer.headers
        assert anonymous.request("OPTIONS", ME).status_code == 204
        assert anonymous.request("OPTIONS", ME, headers=preflight).status_code == 204


class TestProxies:
    """Contract, accounts: "`X-Forwarded-For` counts only from `TRUSTED_PROXIES`"."""

    def statuses(self, service: Service, *forwarded: str) -> list[int]:
        return [
            service.browser().post(REGISTER, {}, headers={"x-forwarded-for": value}).status_code
            for value in forwarded
        ]

    def test_x_forwarded_for_of_a_trusted_proxy_is_the_address(self, two_a_minute: Service) -> None:
        assert self.statuses(two_a_minute, *["203.0.113.1"] * 3) == [400, 400, 429]
        assert self.statuses(two_a_minute, "203.0.113.2") == [400]

    def test_only_the_entry_of_the_trusted_proxy_counts(self, two_a_minute: Service) -> None:
        chains = [f"198.51.100.{number}, 203.0.113.3" for number in range(3)]
        assert self.statuses(two_a_minute, *chains) == [400, 400, 429]

    def test_an_ipv6_client_is_counted_by_its_64_bit_network(self, two_a_minute: Service) -> None:
        """A client can use any of its 2^64 addresses."""
        neighbours = [f"2001:db8:1:2::{number}" for number in range(3)]
        assert self.statuses(two_a_minute, *neighbours) == [400, 400, 429]
        assert self.statuses(two_a_minute, "2001:db8:1:3::1") == [400]

    def test_x_forwarded_for_of_an_untrusted_client_is_ignored(self, backend: Backend) -> None:
        settings = backend.settings(rate_limit_per_minute=2)
        strangers = [f"203.0.113.{number}" for number in range(10, 13)]
        with Service(backend, settings) as direct:
            assert self.statuses(direct, *strangers) == [400, 400, 429]

    def test_x_forwarded_for_of_an_untrusted_proxy_is_ignored(self, backend: Backend) -> None:
        settings = backend.settings(rate_limit_per_minute=2, trusted_proxies=("192.0.2.0/24",))
        strangers = [f"203.0.113.{number}" for number in range(20, 23)]
        with Service(backend, settings) as behind:
            assert self.statuses(behind, *strangers) == [400, 400, 429]


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("no address", "unknown"),
    ],
)
def test_an_address_is_counted_as_its_network(address: str, network: str) -> None:
    """All IPv4-mapped addresses lie in one /64: they are IPv4 addresses."""
    assert network_of(address) == network
