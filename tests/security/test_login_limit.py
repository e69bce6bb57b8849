"""The login limit (requirement, "Rate Limiting (Redis)" and "LoginAttempt (Redis)")."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from security.roles import Role
from tests.support.client import Browser, standing
from tests.support.factories import PASSWORD, World, email, registration
from tests.support.login_counters import attempts, failures, key_of, lock, unlock
from tests.support.service import Backend, Service

pytestmark = pytest.mark.slow

LOCKED = "Too many failed attempts. Please try again in {} minute(s)."


def test_after_five_failed_sign_ins_even_the_right_password_is_429(
    backend: Backend, door: Browser, address: str
) -> None:
    """Requirement, Rate Limiting: "Login endpoint: 5 attempts per 15 minutes per email"; requirement 1,
    POST /api/auth/login, Response 429."""
    for left in (4, 3, 2, 1, 0):
        wrong = door.login(address, "not it")
        assert wrong.status_code == 401
        assert standing(wrong) == ("5; w=900", "5", str(left))

    for password in ("not it", PASSWORD):
        answer = door.login(address, password)
        assert (answer.status_code, answer.json()) == (429, {"detail": LOCKED.format(15)})
        assert 840 < int(answer.headers["retry-after"]) <= 900
        assert standing(answer) == ("5; w=900", "5", "0")
        assert "set-cookie" not in answer.headers
    unlock(backend, address)
    assert door.login(address, PASSWORD).status_code == 200


def test_failed_sign_ins_of_unknown_emails_count_too(backend: Backend, door: Browser) -> None:
    """Contract, accounts: "unknown e-mails count too": the limit tells nobody who has an account."""
    nobody = email("nobody")
    lock(backend, nobody, count=4)
    assert [door.login(nobody, PASSWORD).status_code for _ in range(3)] == [401, 429, 429]


def test_redis_keeps_failed_sign_ins_as_the_requirement_says(backend: Backend, door: Browser) -> None:
    """Requirement, LoginAttempt (Redis): "key: `login:attempts:{email}`", "value: `{count: int,
    first_attempt: timestamp}`", "ttl: 900 seconds"."""
    nobody, before = email("nobody"), int(time.time())
    door.login(nobody, PASSWORD)
    first = attempts(backend, nobody)
    assert first.keys() == {"count", "first_attempt"}
    assert first["count"] == "1"
    assert before <= int(first["first_attempt"]) <= time.time()
    with backend.redis as connection:
        assert connection.type(key_of(nobody)) == "hash"
        assert 0 < connection.ttl(key_of(nobody)) <= 900

    lock(backend, nobody, count=1, seconds=300)
    door.login(nobody, PASSWORD)
    assert attempts(backend, nobody)["count"] == "2"
    with backend.redis as connection:
        assert 0 < connection.ttl(key_of(nobody)) <= 300, "the window is fixed"


def test_a_successful_sign_in_clears_the_count(backend: Backend, door: Browser, address: str) -> None:
    """Contract, accounts: "a success clears"."""
    lock(backend, address, count=4)
    answer = door.login(address, PASSWORD)
    assert answer.status_code == 200
    assert standing(answer) == ("5; w=900", "5", "5")
    assert attempts(backend, address) == {}


def test_sign_ins_while_locked_do_not_extend_the_window(
    backend: Backend, door: Browser, address: str
) -> None:
    """Contract, accounts: "trying while locked does not extend"."""
    lock(backend, address, seconds=100)
    for _ in range(3):
        answer = door.login(address, PASSWORD)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) <= 100
    assert failures(backend, address) == int(attempts(backend, address)["count"]) == 5
    with backend.redis as connection:
        assert 0 < connection.pttl(key_of(address)) <= 100_000
    unlock(backend, address)
    assert door.login(address, PASSWORD).status_code == 200


@pytest.mark.parametrize(("left", "minutes"), [(890, 15), (90, 2), (59, 1), (2, 1)])
def test_the_minutes_of_a_lock_are_rounded_up_and_at_least_1(
    backend: Backend, door: Browser, left: float, minutes: int
) -> None:
    """Contract, accounts: "X is minutes rounded up, at least 1; `Retry-After` in seconds"."""
    nobody = email("nobody")
    lock(backend, nobody, seconds=left)
    answer = door.login(nobody, PASSWORD)
    assert (answer.status_code, answer.json()) == (429, {"detail": LOCKED.format(minutes)})
    assert 1 <= int(answer.headers["retry-after"]) <= left


def test_spellings_of_an_email_share_one_counter(backend: Backend, door: Browser) -> None:
    """Contract, accounts: "Account e-mails are stored and answered trimmed, NFC and lower-cased: one account,
    one counter"."""
    nobody = email("nobody")
    spellings = [nobody, nobody.upper(), f" {nobody}", f"{nobody.title()}\t"]
    assert [door.login(spelling, PASSWORD).status_code for spelling in spellings] == [401] * 4
    assert attempts(backend, nobody)["count"] == "4"


def test_a_403_for_a_pending_account_does_not_clear_the_count(
    backend: Backend, door: Browser, world: World
) -> None:
    """Contract, accounts: "403 for pending does not clear"."""
    body = registration(Role.STAFF)
    assert door.post("/api/auth/register", body).status_code == 201
    lock(backend, body["email"], count=4)
    assert door.login(body["email"], PASSWORD).status_code == 403
    assert attempts(backend, body["email"])["count"] == "5"
    assert door.login(body["email"], PASSWORD).status_code == 429


@pytest.mark.parametrize("body", [{"email": "{}"}, {"email": "{}", "password": 1}, {"email": "{}", "x": ""}])
def test_an_invalid_login_body_is_no_attempt(backend: Backend, door: Browser, body: dict[str, Any]) -> None:
    """Requirement, Rate Limiting: an attempt is an e-mail and a password."""
    nobody = email("nobody")
    assert door.post("/api/auth/login", body | {"email": nobody}).status_code == 400
    assert attempts(backend, nobody) == {}


def test_one_email_does_not_lock_another(backend: Backend, door: Browser, address: str) -> None:
    """Requirement, Rate Limiting: "per email"."""
    nobody = email("nobody")
    lock(backend, nobody)
    assert door.login(nobody, PASSWORD).status_code == 429
    assert door.login(address, PASSWORD).status_code == 200


def test_of_twenty_concurrent_sign_ins_on_two_instances_five_are_checked(
    backend: Backend, five_attempts: Service
) -> None:
    """Requirement, Rate Limiting, under concurrency; contract: "The slot is taken before the password is
    checked"."""
    nobody = email("nobody")
    with Service(backend, backend.settings(login_attempts=5)) as second:
        doors = [instance.browser() for instance in (five_attempts, second) * 10]
        with ThreadPoolExecutor(len(doors)) as pool:
            answers = list(pool.map(lambda door: door.login(nobody, PASSWORD).status_code, doors))
    assert Counter(answers) == {401: 5, 429: 15}
    assert attempts(backend, nobody)["count"] == "5"
