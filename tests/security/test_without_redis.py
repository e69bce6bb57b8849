"""Redis away: people sign in and work on, no guess is gained, and each process limits requests for itself
(decisions 0036 and 0037)."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from persistence import embedded
from security.admission import Admission, Count
from security.counters import CounterStore, session_key
from security.roles import Caller, Role
from tests.support.client import Browser, standing
from tests.support.factories import PASSWORD, World, email, registration
from tests.support.login_counters import attempts, failures
from tests.support.request_counters import ME, REGISTER, TOO_MANY, count_of
from tests.support.running import wait_until
from tests.support.service import Backend, Service
from tests.support.valkey import Valkey, session_of, signed_in

pytestmark = pytest.mark.slow


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    own = Valkey(tmp_path, embedded.start(tmp_path, postgres=False))
    yield own
    own.stop()
    embedded.discard(tmp_path)


@pytest.fixture
def apart(backend: Backend, valkey: Valkey) -> Backend:
    """The module's database, beside a Valkey of its own."""
    return Backend(backend.database_url, valkey.running.redis_url)


def test_the_answer_of_postgresql_counts_if_redis_went_away_meanwhile(valkey: Valkey) -> None:
    caller = Caller(uuid4(), "ada@example.com", Role.ADMIN, uuid4())

    async def find_session(session_id: UUID) -> Caller:
        await asyncio.to_thread(valkey.stop)
        return caller

    async def look_up() -> tuple[Caller | None, Count | None]:
        store = CounterStore.connect(valkey.running.redis_url)
        async with store:
            admission = Admission(store, find_session, limit=1, tombstone_seconds=900)
            keys = [session_key(caller.session_id), f"requests:user:{caller.id}"]
            return await admission.look_up(keys, caller.session_id)

    found, count = asyncio.run(look_up())
    assert found == caller
    assert count == Count(1, 1, 60, 60)


def test_people_sign_in_and_work_on_without_redis(apart: Backend, valkey: Valkey, world: World) -> None:
    """contract, health: "`redis_away`"; accounts: "what Redis … cannot say, PostgreSQL answers"."""
    with Service(apart, apart.settings()) as clinic:
        patient, admin = signed_in(clinic), signed_in(clinic, "admin")
        valkey.stop()
        answer = patient.get(ME)
        assert (answer.status_code, answer.json()["role"]) == (200, "patient")
        assert patient.patch(ME, {"phone": "+1 555 0111"}).status_code == 200
        assert patient.post("/api/auth/refresh").status_code == 200
        assert patient.get("/api/users").status_code == 403
        assert admin.get("/api/users").status_code == 200
        stranger, person = clinic.browser(), registration()
        assert stranger.get(ME).status_code == 401
        assert stranger.post(REGISTER, person).status_code == 201
        assert stranger.login(email("nobody"), PASSWORD).status_code == 401
        assert stranger.login(person["email"], PASSWORD).status_code == 200
        change = {"currentPassword": PASSWORD, "newPassword": "another horse"}
        assert stranger.post(f"{ME}/password", change).status_code == 200
        ready = stranger.get("/health/ready")
        assert (ready.status_code, ready.json()["detail"]) == (200, "degraded")
        assert ready.json()["degraded"] == ["redis_away"]

        valkey.start()
        assert stranger.login("patient@test.example", PASSWORD).status_code == 200
        ready = stranger.get("/health/ready").json()
        assert (ready["status"], ready["detail"], ready["degraded"]) == ("ok", None, [])


def is_asked_again(service: Service) -> bool:
    """Whether the service counts in Redis."""
    service.browser().post(REGISTER, {})
    return count_of(service.backend, "127.0.0.1", "address") > 0


def guess(doors: list[Browser], account: str) -> Counter[int]:
    """The statuses of wrong passwords from all these browsers at the same time."""
    with ThreadPoolExecutor(len(doors)) as pool:
        return Counter(pool.map(lambda door: door.login(account, "not it").status_code, doors))


def test_of_30_guesses_at_once_on_two_instances_without_redis_5_are_checked(
    apart: Backend, valkey: Valkey, world: World
) -> None:
    """Requirement, Rate Limiting: "5 attempts per 15 minutes per email", whoever can take Redis away."""
    account = world.account()[1]["email"]
    settings = apart.settings(login_attempts=5)
    with Service(apart, settings) as one, Service(apart, settings) as two:
        valkey.stop()
        assert guess([one.browser(), two.browser()] * 15, account) == {401: 5, 429: 25}
        assert failures(apart, account) == 5
        valkey.start()
        for door in (one.browser(), two.browser()):
            locked = door.login(account, PASSWORD)
            assert (locked.status_code, standing(locked)) == (429, ("5; w=900", "5", "0"))


def test_an_emptied_redis_unlocks_nobody_and_is_told_the_count_anew(
    apart: Backend, valkey: Valkey, world: World
) -> None:
    nobody = email("nobody")
    with Service(apart, apart.settings(login_attempts=5)) as clinic:
        door = clinic.browser()
        assert [door.login(nobody, PASSWORD).status_code for _ in range(3)] == [401] * 3
        valkey.stop()
        assert door.login(nobody, PASSWORD).status_code == 401
        valkey.start()
        assert attempts(apart, nobody) == {}
        wait_until(lambda: is_asked_again(clinic), "the end of the outage")
        assert door.login(nobody, PASSWORD).status_code == 401
        assert failures(apart, nobody) == int(attempts(apart, nobody)["count"]) == 5
        with apart.redis as connection:
            connection.flushall()
        assert door.login(nobody, PASSWORD).status_code == 429
        assert int(attempts(apart, nobody)["count"]) == 5


def test_failures_of_an_address_without_redis_lock_it_out(apart: Backend, valkey: Valkey) -> None:
    """contract, limits: "Over all e-mails, 300 failed attempts from one address lock it out"."""
    settings = apart.settings(login_failures_per_address=3, trusted_proxies=("127.0.0.1", "::1"))
    with Service(apart, settings) as clinic:
        valkey.stop()

        def sign_in(address: str) -> int:
            headers = {"x-forwarded-for": address}
            body = {"email": email("nobody"), "password": PASSWORD}
            return clinic.browser().post("/api/auth/login", body, headers=headers).status_code

        assert [sign_in("203.0.113.7") for _ in range(4)] == [401, 401, 401, 429]
        assert sign_in("203.0.113.8") == 401
        valkey.start()
        assert sign_in("203.0.113.7") == 429


def test_each_process_limits_requests_for_itself_without_redis(
    apart: Backend, valkey: Valkey, world: World
) -> None:
    """What somebody gains who takes Redis away: at most the limit, in each process."""
    settings = apart.settings(rate_limit_per_minute=10)
    patient, me = world.account()
    with Service(apart, settings) as one, Service(apart, settings) as two:
        valkey.stop()
        for instance in (one, two):
            mine, other = instance.browser(dict(patient.cookies)), instance.browser(dict(world.staff.cookies))
            with ThreadPoolExecutor(10) as pool:
                answers = list(pool.map(mine.get, [ME] * 25))
            assert Counter(answer.status_code for answer in answers) == {200: 10, 429: 15}
            refused = next(answer for answer in answers if answer.status_code == 429)
            assert (refused.json(), standing(refused)) == (TOO_MANY, ("10; w=60", "10", "0"))
            assert 1 <= int(refused.headers["retry-after"]) <= 60
            assert standing(mine.get(f"{ME}/sessions"))[2] == "9", "its own counter"
            assert other.get(ME).status_code == 200
            strangers = [instance.browser().post(REGISTER, {}).status_code for _ in range(11)]
            assert strangers == [400] * 10 + [429]
            assert instance.browser().get(ME).status_code == 401
        valkey.start()
        mine = one.browser(dict(patient.cookies))
        wait_until(lambda: mine.get(ME).status_code == 200, "the end of the outage")
        assert count_of(apart, me["id"]) == 1


def test_a_session_ended_without_redis_stays_ended_when_redis_is_back(apart: Backend, valkey: Valkey) -> None:
    """Contract, accounts: "Ending a session commits in PostgreSQL, then leaves a tombstone"."""
    with Service(apart, apart.settings()) as one, Service(apart, apart.settings()) as two:
        browser, elsewhere = signed_in(one), signed_in(two)
        copies = [service.browser(dict(browser.cookies)) for service in (one, two)]
        assert [copy.get(ME).status_code for copy in copies] == [200, 200]
        valkey.stop()
        assert browser.post("/api/auth/logout").status_code == 200
        assert [copy.get(ME).status_code for copy in copies] == [401, 401]
        valkey.start()
        for copy in copies:
            assert copy.get(ME).status_code == 401
            assert copy.post("/api/auth/refresh").status_code == 401
        assert elsewhere.get(ME).status_code == 200


def test_a_session_ended_without_redis_is_ended_though_redis_remembers_it(
    apart: Backend, valkey: Valkey
) -> None:
    """Contract, accounts: "ends its sessions at once": the answer waits until no instance can believe in
    the session any more."""
    with Service(apart, apart.settings()) as one, Service(apart, apart.settings()) as two:
        browser = signed_in(one)
        copies = [service.browser(dict(browser.cookies)) for service in (one, two)]
        assert [copy.get(ME).status_code for copy in copies] == [200, 200]
        session = session_of(browser)
        with ThreadPoolExecutor(1) as pool:
            with valkey.out_of_reach():
                logout = pool.submit(browser.post, "/api/auth/logout")
                while not apart.sql("SELECT 1 FROM sessions WHERE id = $1 AND ended_at IS NOT NULL", session):
                    time.sleep(0.02)
            assert logout.result().status_code == 200
        assert [copy.get(ME).status_code for copy in copies] == [401, 401]
