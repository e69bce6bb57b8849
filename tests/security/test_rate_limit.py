"""The limit of requests (requirement, "Rate Limiting (Redis)"); and, since its 429 is one of them, all the
statuses and their one format ("HTTP Status Codes", "Error Response Format (All Endpoints)")."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from api.contract import contract
from tests.support.client import Browser, standing
from tests.support.conformance import CONTRACT, RATE_LIMIT
from tests.support.factories import PASSWORD, World, chart, email
from tests.support.openapi import operations
from tests.support.service import Backend, Service

ME = "/api/users/me"
REGISTER = "/api/auth/register"
REFRESH = "/api/auth/refresh"
LOGOUT = "/api/auth/logout"
TOO_MANY = {"detail": "Too many requests"}


@pytest.fixture(scope="module")
def clinic(backend: Backend) -> Iterator[Service]:
    """An instance with the limit of the requirement: "100 requests per minute per user"."""
    with Service(backend, backend.settings(rate_limit_per_minute=100)) as running:
        yield running


@pytest.fixture(scope="module")
def two_a_minute(backend: Backend) -> Iterator[Service]:
    """An instance whose limit is soon reached, and which trusts a proxy on this machine."""
    settings = backend.settings(rate_limit_per_minute=2, trusted_proxies=("127.0.0.1", "::1"))
    with Service(backend, settings) as running:
        yield running


@pytest.fixture(autouse=True)
def _a_new_minute(backend: Backend) -> None:
    with backend.redis as connection:
        for key in connection.scan_iter("requests:*"):
            connection.delete(key)


def count_of(backend: Backend, user_id: str, counter: str = "user") -> int:
    with backend.redis as connection:
        return int(connection.get(f"requests:{counter}:{user_id}") or 0)


def counted(backend: Backend) -> dict[str, str]:
    with backend.redis as connection:
        return {key: connection.get(key) for key in connection.scan_iter("requests:*")}


def spend(backend: Backend, key: str, requests: int, seconds: int = 60) -> None:
    with backend.redis as connection:
        connection.set(f"requests:{key}", requests, ex=seconds)


def use_up(service: Service) -> Browser:
    """Reach the limit of the address as an anonymous caller, who is returned."""
    stranger = service.browser()
    while stranger.post(REGISTER, {}).status_code != 429:
        pass
    return stranger


def as_user(service: Service, browser: Browser) -> Browser:
    """The same session at another instance."""
    return service.browser(dict(browser.cookies))


def test_of_150_concurrent_requests_of_a_user_100_pass(
    backend: Backend, clinic: Service, world: World
) -> None:
    """Requirement, Rate Limiting: "All other endpoints: 100 requests per minute per user"; contract: "over
    all their sessions", "Atomic across processes"."""
    desk = as_user(clinic, world.patient)
    phone = clinic.browser()
    assert phone.login(desk.me()["email"], PASSWORD).status_code == 200
    spend(backend, f"user:{desk.me()['id']}", 0)
    with Service(backend, clinic.settings) as second:
        browsers = [desk, phone, as_user(second, desk), as_user(second, phone)]
        with ThreadPoolExecutor(24) as pool:
            answers = list(pool.map(lambda number: browsers[number % 4].get(ME), range(150)))
    assert Counter(answer.status_code for answer in answers) == {200: 100, 429: 50}
    left = sorted(int(answer.headers["ratelimit-remaining"]) for answer in answers)
    assert left == [0] * 50 + list(range(100))


def test_rate_limit_headers_are_on_answers_of_every_status(clinic: Service, world: World) -> None:
    """Contract, browsers: "Retry-After and the rate-limit headers"; draft-ietf-httpapi-ratelimit-headers."""
    patient = as_user(clinic, world.patient)
    answers = [
        (patient.get(ME), 200),
        (patient.patch(ME, {"name": ""}), 400),
        (patient.get("/api/users"), 403),
        (patient.get("/api/patients/x"), 404),
        (patient.patch(ME, content="{}", headers={"content-type": "text/plain"}), 415),
        (patient.get("/api/patients?page=0"), 400),
    ]
    for number, (answer, status) in enumerate(answers, 1):
        assert answer.status_code == status
        assert standing(answer) == ("100; w=60", "100", str(100 - number))
        assert 1 <= int(answer.headers["ratelimit-reset"]) <= 60


def test_a_request_over_the_limit_is_429_with_retry_after(
    backend: Backend, clinic: Service, world: World
) -> None:
    """Requirement, HTTP Status Codes, "429: Too Many Requests", and Error Response Format."""
    doctor = as_user(clinic, world.doctor)
    spend(backend, f"user:{doctor.me()['id']}", 99, seconds=40)
    assert standing(doctor.get(ME)) == ("100; w=60", "100", "0")

    answer = doctor.get(ME, headers={"origin": "http://localhost:5173"})
    assert (answer.status_code, answer.json()) == (429, TOO_MANY)
    assert standing(answer) == ("100; w=60", "100", "0")
    assert 1 <= int(answer.headers["retry-after"]) <= 40
    assert answer.headers["retry-after"] == answer.headers["ratelimit-reset"]
    assert answer.headers["access-control-allow-origin"] == "http://localhost:5173"
    assert "Retry-After" in answer.headers["access-control-expose-headers"]


def test_the_rate_limit_window_is_fixed(backend: Backend, clinic: Service, world: World) -> None:
    """Requirement, Rate Limiting: "per minute"; trying while over the limit does not prolong it."""
    doctor = as_user(clinic, world.doctor)
    key = f"requests:user:{doctor.me()['id']}"
    with backend.redis as connection:
        assert 0 < connection.pttl(key) <= 60_000
        spend(backend, key.removeprefix("requests:"), 100, seconds=20)
        assert [doctor.get(ME).status_code for _ in range(3)] == [429] * 3
        assert 0 < connection.pttl(key) <= 20_000
        connection.delete(key)  # as the last millisecond does
    assert standing(doctor.get(ME)) == ("100; w=60", "100", "99")


def test_each_user_has_their_own_rate_limit(backend: Backend, clinic: Service, world: World) -> None:
    """Requirement, Rate Limiting: "per user", from whatever address."""
    doctor, staff = as_user(clinic, world.doctor), as_user(clinic, world.staff)
    spend(backend, f"user:{doctor.me()['id']}", 100)
    assert doctor.get(ME).status_code == 429
    assert staff.get(ME).status_code == 200


def test_the_rate_limit_is_applied_after_the_origin_check_and_before_all_else(
    two_a_minute: Service, world: World
) -> None:
    """Contract, order: "Foreign Origin on an unsafe method 403 … over the limit 429; role 403 … Content type
    415, … query and body 400; object 404"."""
    patient = as_user(two_a_minute, world.patient)
    while patient.get(ME).status_code == 200:
        pass
    assert patient.patch(ME, {}, headers={"origin": "https://evil.example"}).status_code == 403
    assert patient.get("/api/users").status_code == 429
    assert patient.patch(ME, content="{", headers={"content-type": "text/plain"}).status_code == 429
    assert patient.get("/api/patients?page=0").status_code == 429
    assert patient.get("/api/patients/x").status_code == 429
    assert patient.get("/nowhere").status_code == 404
    assert patient.delete(ME).status_code == 405


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


def test_a_401_is_neither_counted_nor_429(backend: Backend, two_a_minute: Service, world: World) -> None:
    """Contract, the limit: "people behind one address must not lose their refresh to a neighbour's lapsed
    cookies": not on any operation, with whatever is no living session, before or after the address is over
    its limit."""
    browser, _ = world.account()
    dead = dict(browser.cookies)
    browser.post(LOGOUT)
    neighbours = [two_a_minute.browser(jar) for jar in ({}, {"access_token": "nonsense"}, dead)]
    secured = [
        (method, path.replace("{id}", "1a2b3c4d-5e6f-4a1b-8c2d-5d9e4f304a05"))
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


class TestAgainstAThief:
    """Contract, the limit: a thief of a cookie who loops keeps its user neither from listing and ending
    sessions, nor from changing the password, nor from signing out."""

    def test_session_and_password_operations_have_their_own_rate_limit(
        self, backend: Backend, two_a_minute: Service, world: World
    ) -> None:
        browser, me = world.account()
        victim, thief = as_user(two_a_minute, browser), as_user(two_a_minute, browser)
        while thief.get("/api/patients").status_code != 429:
            pass
        assert thief.post(REFRESH).status_code == 429
        listed = victim.get(f"{ME}/sessions")
        assert (listed.status_code, standing(listed)) == (200, ("2; w=60", "2", "1"))
        wrong = victim.post(f"{ME}/password", {"currentPassword": "not it", "newPassword": "a new one"})
        assert (wrong.status_code, standing(wrong)) == (400, ("2; w=60", "2", "0"))
        assert victim.delete(f"{ME}/sessions/nobody").status_code == 429
        assert victim.get(f"{ME}/sessions").status_code == 429
        assert int(victim.post(f"{ME}/password", {}).headers["retry-after"]) <= 60
        assert count_of(backend, me["id"], "safeguard") == 5

    def test_session_operations_do_not_use_up_the_rate_limit_of_the_others(
        self, two_a_minute: Service, world: World
    ) -> None:
        browser = as_user(two_a_minute, world.account()[0])
        while browser.get(f"{ME}/sessions").status_code != 429:
            pass
        assert browser.get(ME).status_code == 200

    def test_signing_out_is_never_429(self, backend: Backend, two_a_minute: Service, world: World) -> None:
        browser, _ = world.account()
        victim, thief = as_user(two_a_minute, browser), as_user(two_a_minute, browser)
        while thief.get(ME).status_code != 429:
            pass
        use_up(two_a_minute)
        for _ in range(4):
            answer = two_a_minute.browser(dict(victim.cookies)).post(LOGOUT)
            assert answer.status_code == 200
            assert not RATE_LIMIT & set(answer.headers)
        assert thief.get(ME).status_code == 401
        assert thief.post(REFRESH).status_code in {401, 429}
        assert two_a_minute.browser().post(LOGOUT).status_code == 200


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


def test_login_is_counted_on_neither_user_nor_address(
    backend: Backend, two_a_minute: Service, world: World
) -> None:
    """Requirement, Rate Limiting: login has a limit of its own, "All other endpoints" have this one."""
    staff = as_user(two_a_minute, world.staff)
    while staff.get(ME).status_code == 200:
        pass
    use_up(two_a_minute)
    before = count_of(backend, world.staff.me()["id"])
    assert staff.login("staff@test.example", PASSWORD).status_code == 200
    assert staff.login(email("nobody"), PASSWORD).status_code == 401
    assert count_of(backend, world.staff.me()["id"]) == before + 1  # what `me` cost


def test_refresh_is_counted_on_the_user_of_its_token(
    backend: Backend, two_a_minute: Service, world: World
) -> None:
    """Contract, accounts: "refresh counts on its token's user"; over the limit nothing is rotated."""
    doctor = as_user(two_a_minute, world.other_doctor)
    assert standing(doctor.get(ME))[2] == "1"
    assert standing(doctor.post(REFRESH))[2] == "0"
    before = dict(doctor.cookies)
    answer = doctor.post(REFRESH)
    assert (answer.status_code, answer.json()) == (429, TOO_MANY)
    assert "set-cookie" not in answer.headers
    assert doctor.get(ME).status_code == 429

    with backend.redis as connection:
        connection.delete(f"requests:user:{world.other_doctor.me()['id']}")
    assert len(doctor.post(REFRESH).headers.get_list("set-cookie")) == 2
    assert doctor.cookies["refresh_token"] != before["refresh_token"]


def test_register_by_an_administrator_is_counted_on_them(two_a_minute: Service, world: World) -> None:
    """Requirement, Rate Limiting: "All other endpoints", the public ones too."""
    admin = as_user(two_a_minute, world.admin)
    assert [admin.post(REGISTER, {}).status_code for _ in range(3)] == [400, 400, 429]
    assert two_a_minute.browser().post(REGISTER, {}).status_code == 400


def test_every_status_of_the_requirement_is_answered(
    backend: Backend, two_a_minute: Service, world: World
) -> None:
    """Requirement, HTTP Status Codes, in its order; every error is, by Error Response Format (All Endpoints),
    `{"detail": "Error message"}` as JSON and nothing else."""
    limited = use_up(two_a_minute)
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


def test_the_traffic_net_catches_a_header_that_is_missing(two_a_minute: Service, world: World) -> None:
    """An answer without a header that openapi.yaml promises fails the test that receives it."""
    limited = use_up(two_a_minute)
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
