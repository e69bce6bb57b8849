"""Sign-ins and sessions at several instances while something is amiss."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.reliability.conftest import Clinic
from tests.support.client import Browser
from tests.support.factories import PASSWORD, email
from tests.support.login_counters import attempts, failures
from tests.support.running import Running, wait_until

ATTEMPTS = 5  # of the requirement
GUESSES = 30  # at once
STAFF = "staff@test.example"


def guess(instances: Sequence[Running], account: str) -> Counter[int]:
    """The statuses of wrong passwords, of all browsers at the same time, by turns at each instance."""
    doors = [Browser(instances[number % len(instances)].url) for number in range(GUESSES)]
    with ThreadPoolExecutor(GUESSES) as pool:
        return Counter(pool.map(lambda door: door.login(account, "not it").status_code, doors))


def require_no_guess_gained(clinic: Clinic, instances: Sequence[Running]) -> str:
    """Whoever guesses has five, of all instances together; a 503, of a machine that is busy, is none. Returns
    the e-mail, which is locked now."""
    nobody = email("nobody")
    answers = guess(instances, nobody)
    while answers[401] < ATTEMPTS:
        answers += guess(instances, nobody)
    assert answers[401] == ATTEMPTS
    assert answers.keys() <= {401, 429, 503}
    assert failures(clinic.backend, nobody) == ATTEMPTS
    return nobody


def require_people_come_and_go(instances: Sequence[Running]) -> None:
    """They sign in everywhere, and once they have signed out, no instance knows their session."""
    for instance in instances:
        browser = Browser(instance.url)
        assert browser.login(STAFF, PASSWORD).status_code == 200
        copies = [Browser(each.url, dict(browser.cookies)) for each in instances]
        assert [copy.get("/api/users/me").status_code for copy in copies] == [200] * len(copies)
        assert browser.post("/api/auth/logout").status_code == 200
        assert [copy.get("/api/users/me").status_code for copy in copies] == [401] * len(copies)


def require_agreement(clinic: Clinic, instances: Sequence[Running], locked: str) -> None:
    """Redis is back: the e-mail is locked still, and Redis shows what PostgreSQL has counted."""

    def is_shown() -> bool:
        answers = {Browser(each.url).login(locked, PASSWORD).status_code for each in instances}
        assert answers == {429}
        return attempts(clinic.backend, locked).get("count") == str(ATTEMPTS)

    wait_until(is_shown, "agreement")
    assert failures(clinic.backend, locked) == ATTEMPTS
