"""Sessions, to see and to end (ASVS 5.0, 7.4 and 7.5), on every instance at once."""

from concurrent.futures import ThreadPoolExecutor

import jwt
import pytest

from security.roles import Role
from tests.support.client import Browser
from tests.support.factories import PASSWORD, World
from tests.support.service import KEY, Backend, Service

pytestmark = pytest.mark.slow


def elsewhere(browser: Browser, instance: Service) -> Browser:
    return instance.browser(browser.cookies)


def alive(browser: Browser) -> bool:
    return browser.get("/api/users/me").status_code == 200


def test_users_list_their_own_sessions(world: World) -> None:
    browser, me = world.account()
    other = world.service.browser()
    other.post(
        "/api/auth/login", {"email": me["email"], "password": PASSWORD}, headers={"user-agent": "Phone/1.0"}
    )
    listed = browser.get("/api/users/me/sessions").json()
    assert listed["total"] == 2
    newest, oldest = listed["sessions"]
    assert (newest["userAgent"], newest["current"]) == ("Phone/1.0", False)
    assert oldest["current"] is True
    assert newest["address"] in {"127.0.0.1", "::1"}
    assert newest["created_at"] <= newest["lastSeenAt"] < newest["expiresAt"]
    assert browser.get("/api/users/me/sessions?page=2&limit=1").json()["sessions"] == [oldest]


def test_users_end_one_of_their_sessions(world: World, second_instance: Service) -> None:
    browser, me = world.account()
    lost = world.service.browser()
    lost.login(me["email"], PASSWORD)
    lost_elsewhere = elsewhere(lost, second_instance)
    assert alive(lost)
    assert alive(lost_elsewhere)  # the other instance remembers it now
    [session] = [s for s in browser.get("/api/users/me/sessions").json()["sessions"] if not s["current"]]
    assert browser.delete(f"/api/users/me/sessions/{session['id']}").json() == {"message": "Session ended"}
    assert not alive(lost)
    assert not alive(lost_elsewhere)
    assert lost.post("/api/auth/refresh").status_code == 401
    assert alive(browser)
    assert browser.get("/api/users/me/sessions").json()["total"] == 1
    assert browser.delete(f"/api/users/me/sessions/{session['id']}").status_code == 404  # it has ended


def test_ending_another_persons_session_is_404(world: World) -> None:
    browser, _ = world.account()
    [session] = browser.get("/api/users/me/sessions").json()["sessions"]
    for person in (world.admin, world.staff, world.patient):
        answer = person.delete(f"/api/users/me/sessions/{session['id']}")
        assert answer.status_code == 404
        assert answer.json() == {"detail": "Session not found"}
    assert alive(browser)


def test_a_user_may_end_the_session_they_are_using(world: World) -> None:
    browser, _ = world.account()
    [session] = browser.get("/api/users/me/sessions").json()["sessions"]
    assert browser.delete(f"/api/users/me/sessions/{session['id']}").status_code == 200
    assert not alive(browser)


@pytest.mark.parametrize("how", ["logout", "disable", "role", "password set", "password changed"])
def test_ended_sessions_are_refused_on_every_instance(
    how: str, world: World, second_instance: Service
) -> None:
    browser, me = world.account(Role.STAFF)
    here, there = browser, elsewhere(browser, second_instance)
    assert alive(here)
    assert alive(there)
    match how:
        case "logout":
            world.service.browser(dict(browser.cookies)).post("/api/auth/logout")
        case "disable":
            world.admin.patch(f"/api/users/{me['id']}", {"status": "disabled"})
        case "role":
            world.admin.patch(f"/api/users/{me['id']}", {"role": "doctor"})
        case "password set":
            world.admin.post(f"/api/users/{me['id']}/password", {"newPassword": "a new one"})
        case "password changed":
            other = world.service.browser()
            other.login(me["email"], PASSWORD)
            body = {"currentPassword": PASSWORD, "newPassword": "a new one"}
            assert other.post("/api/users/me/password", body).status_code == 200
            assert alive(other)
    assert not alive(here)
    assert not alive(there)
    assert here.post("/api/auth/refresh").status_code == 401


def test_the_role_comes_from_the_session_and_not_from_the_tokens_claim(
    world: World, backend: Backend
) -> None:
    """A token says staff for 15 minutes; the account has been made a patient by direct SQL."""
    browser, me = world.account(Role.STAFF)
    backend.sql("UPDATE users SET role = 'patient' WHERE id::text = $1", me["id"])
    with backend.redis as redis:
        redis.flushall()  # so that no instance remembers the session
    assert browser.get("/api/users").status_code == 403
    assert browser.me()["role"] == "patient"


def test_ten_concurrent_refreshes_with_one_token_sign_nobody_out(
    world: World, backend: Backend, second_instance: Service
) -> None:
    """Ten tabs on two instances refresh at once with one token: nobody is signed out, one rotation counts."""
    browser, me = world.account()
    old = dict(browser.cookies)

    def refresh(number: int) -> tuple[int, str]:
        tab = (world.service if number % 2 else second_instance).browser(dict(old))
        status = tab.post("/api/auth/refresh").status_code
        token = jwt.decode(tab.cookies["refresh_token"], KEY, algorithms=["HS256"])
        return status, token["jti"]

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(refresh, range(10)))
    assert [status for status, _ in answers] == [200] * 10
    assert len({token for _, token in answers}) == 1
    # Half a minute later the same token counts as stolen, and the session ends.
    backend.sql(
        "UPDATE sessions SET used_refreshes = (SELECT jsonb_object_agg(key, value::float - 31) "
        "FROM jsonb_each_text(used_refreshes)) WHERE user_id::text = $1",
        me["id"],
    )
    assert world.service.browser(dict(old)).post("/api/auth/refresh").status_code == 401
    assert not alive(browser)
    assert not alive(elsewhere(browser, second_instance))
    [row] = backend.sql(
        "SELECT outcome FROM audit_events WHERE action = 'auth.reuse' AND user_id::text = $1", me["id"]
    )
    assert row["outcome"] == "failure"


def test_no_request_passes_after_the_end_of_its_session_is_answered(
    world: World, second_instance: Service
) -> None:
    """While one instance ends sessions, another is asked all the time: after the end is answered, no request
    passes, whatever was remembered in between."""
    for _ in range(5):
        browser, me = world.account()
        there = elsewhere(browser, second_instance)

        def ask(_: int, there: Browser = there) -> int:
            return there.get("/api/users/me").status_code

        with ThreadPoolExecutor(8) as pool:
            before = pool.map(ask, range(40))
            assert browser.post("/api/auth/logout").status_code == 200
            after = list(pool.map(ask, range(20)))
        assert set(before) <= {200, 401}
        assert set(after) == {401}, me
