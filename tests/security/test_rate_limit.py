"""The limit of requests of a user (requirement, "Rate Limiting (Redis)")."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.client import standing
from tests.support.conformance import RATE_LIMIT
from tests.support.factories import PASSWORD, World, email
from tests.support.request_counters import (
    LOGOUT,
    ME,
    REFRESH,
    REGISTER,
    TOO_MANY,
    as_user,
    count_of,
    spend,
    use_up,
)
from tests.support.service import Backend, Service

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("new_minute")]


@pytest.fixture(scope="module")
def clinic(backend: Backend) -> Iterator[Service]:
    """An instance with the limit of the requirement: "100 requests per minute per user"."""
    with Service(backend, backend.settings(rate_limit_per_minute=100)) as running:
        yield running


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
