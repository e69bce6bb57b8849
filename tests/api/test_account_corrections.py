"""The name and the e-mail of an account, which an administrator corrects (contract, "Change an account")."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from security.roles import Role
from tests.support.accounts import statuses
from tests.support.client import Browser
from tests.support.factories import PASSWORD, World, email
from tests.support.locks import transaction, until_they_wait
from tests.support.service import Backend, Service

pytestmark = pytest.mark.slow

TAKEN = {"detail": "email: is already registered"}


def correct(world: World, account: dict[str, Any], **body: Any) -> dict[str, Any]:
    answer = world.admin.patch(f"/api/users/{account['id']}", body)
    assert answer.status_code == 200, answer.text
    assert world.admin.get(f"/api/users/{account['id']}").json() == answer.json()
    return dict(answer.json())


def test_another_name_changes_nothing_else_and_ends_no_session(world: World) -> None:
    person, me = world.account(Role.DOCTOR)
    after = correct(world, me, name="Dr. Grace Hopper")
    assert after == {**me, "name": "Dr. Grace Hopper", "status": "active"}
    assert person.me()["name"] == "Dr. Grace Hopper"
    assert world.staff.get(f"/api/doctors/{me['id']}").json()["name"] == "Dr. Grace Hopper"
    assert world.staff.get("/api/users?search=hopper").json()["total"] == 0
    assert world.admin.get("/api/users?search=hopper").json()["total"] == 1


def test_another_email_is_what_the_person_signs_in_with_and_ends_their_sessions(
    world: World, at_both: Callable[[Browser], list[Browser]]
) -> None:
    """Contract: "changing its role or its e-mail ends its sessions at once"."""
    person, me = world.account(Role.STAFF)
    copies, right = at_both(person), email("right")
    after = correct(world, me, email=f" {right.upper()} ")
    assert after == {**me, "email": right, "status": "active"}
    assert statuses(copies) == {401}
    assert person.post("/api/auth/refresh").status_code == 401
    door = world.service.browser()
    assert door.login(me["email"], PASSWORD).status_code == 401
    assert door.login(right, PASSWORD).status_code == 200
    assert world.admin.get(f"/api/users?search={right}").json()["total"] == 1
    assert world.admin.get(f"/api/users?search={me['email']}").json()["total"] == 0
    freed, _ = world.account(email=me["email"])
    assert freed.me()["id"] != me["id"]


@pytest.mark.parametrize("spell", [str.upper, str.title, lambda text: f"  {text}\t"])
def test_another_case_of_the_same_email_is_no_change(world: World, spell: Callable[[str], str]) -> None:
    person, me = world.account()
    assert correct(world, me, email=spell(me["email"])) == {**me, "status": "active"}
    assert person.me() == me


def test_an_email_that_is_registered_is_400_and_nothing_changes(world: World) -> None:
    """Also for two at the same moment."""
    (person, me), (_, other) = world.account(), world.account()
    path = f"/api/users/{me['id']}"
    refused = world.admin.patch(path, {"name": "Mallory", "email": other["email"].upper()})
    assert (refused.status_code, refused.json()) == (400, TAKEN)
    problem = world.admin.patch(
        path, {"email": other["email"]}, headers={"accept": "application/problem+json"}
    )
    assert problem.json()["code"] == "duplicate"
    assert [error["pointer"] for error in problem.json()["errors"]] == ["/email"]
    assert person.me() == me
    wanted = email("wanted")
    with ThreadPoolExecutor(2) as pool:
        paths = (path, f"/api/users/{other['id']}")
        answers = pool.map(lambda one: world.admin.patch(one, {"email": wanted}).status_code, paths)
    assert sorted(answers) == [200, 400]


def test_the_failed_sign_ins_of_both_emails_are_cleared(backend: Backend, world: World) -> None:
    _, me = world.account()
    right = email("right")
    with Service(backend, backend.settings(login_attempts=2)) as strict:
        door = strict.browser()
        for tried in (me["email"], right):
            assert [door.login(tried, "not it").status_code for _ in range(3)] == [401, 401, 429]
        correct(world, me, name="Somebody Else")
        assert door.login(me["email"], PASSWORD).status_code == 429
        correct(world, me, email=right)
        assert door.login(right, PASSWORD).status_code == 200
        assert door.login(me["email"], "not it").status_code == 401


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"name": " "}, "name: is required"),
        ({"name": None}, "name: is required"),
        ({"email": None}, "email: is required"),
        ({"email": "nobody"}, "email: must be an e-mail address"),
        ({"email": "a\u200b@example.com"}, "email: "),
        (
            {"email": "\u0130" * 64 + "@" + "e" * 185 + ".com"},
            "email: must have at most 254 characters in lower case",
        ),
        ({"department": "Surgery"}, "department: is not a known field"),
    ],
)
def test_an_invalid_name_or_email_is_400(world: World, body: Any, detail: str) -> None:
    path = f"/api/users/{world.patient.me()['id']}"
    refused = world.admin.patch(path, body)
    assert refused.status_code == 400
    assert refused.json()["detail"].startswith(detail)


def test_only_administrators_correct_an_account(world: World) -> None:
    """People change their own name, and nobody their own e-mail."""
    path = f"/api/users/{world.patient.me()['id']}"
    for browser in (world.doctor, world.staff, world.patient):
        assert browser.patch(path, {"name": "Mallory"}).status_code == 403
        assert browser.patch("/api/users/me", {"email": email()}).status_code == 400


def test_the_last_administrator_may_correct_their_own_account(
    populated: tuple[Backend, dict[str, dict[str, str]], float],
) -> None:
    own = populated[0].copy()
    own.sql("DELETE FROM sessions")  # whose ends the other instances would hear of
    with Service(own, own.settings()) as service:
        admin = service.browser()
        assert admin.login("admin@test.example", PASSWORD).status_code == 200
        path, right = f"/api/users/{admin.me()['id']}", email("admin")
        assert admin.patch(path, {"name": "Ada", "email": right, "status": "active"}).json()["name"] == "Ada"
        assert admin.get("/api/users/me").status_code == 401
        assert admin.login(right, PASSWORD).status_code == 200


def test_administrators_who_correct_each_other_do_not_deadlock(world: World) -> None:
    admins = [world.account(Role.ADMIN) for _ in range(2)]
    (first, me), (second, other) = admins
    with ThreadPoolExecutor(2) as pool:
        tasks = [
            pool.submit(first.patch, f"/api/users/{other['id']}", {"email": email()}),
            pool.submit(second.patch, f"/api/users/{me['id']}", {"email": email()}),
        ]
        answers = sorted(task.result().status_code for task in tasks)
    assert answers == [200, 401], "the first to be stored ends the session of the other"


def test_staff_read_patient_accounts_and_no_others(world: World) -> None:
    """Contract: "staff those of patients: to them, any other is 404"."""
    for role in Role:
        _, me = world.account(role)
        path = f"/api/users/{me['id']}"
        assert world.admin.get(path).json() == {**me, "status": "active"}
        answer = world.staff.get(path)
        assert answer.status_code == (200 if role is Role.PATIENT else 404)
        if role is not Role.PATIENT:
            assert answer.json() == {"detail": "User not found"}
        assert world.doctor.get(path).status_code == 403
    assert world.staff.get("/api/users/me-too").status_code == 404
    trail = world.admin.get(f"/api/audit?action=account.read&userId={world.staff.me()['id']}").json()[
        "events"
    ]
    assert {event["outcome"] for event in trail} == {"success", "refused"}


def test_who_signs_in_by_the_old_email_while_it_changes_is_401(world: World, backend: Backend) -> None:
    """Their sessions have ended before this one begins."""
    _, me = world.account()
    with ThreadPoolExecutor(1) as pool:
        with transaction(backend) as hold:
            hold("UPDATE users SET email = $1 WHERE id = $2", email("another"), me["id"])
            signing_in = pool.submit(world.service.browser().login, me["email"], PASSWORD)
            until_they_wait(backend, signing_in)
        assert signing_in.result().status_code == 401


def test_a_password_that_is_set_while_the_email_changes_unlocks_the_new_one(
    world: World, backend: Backend
) -> None:
    _, me = world.account()
    another = email("another")
    for _ in range(5):
        assert world.service.browser().login(another, "not it").status_code == 401
    path, body = f"/api/users/{me['id']}/password", {"newPassword": "another horse"}
    with ThreadPoolExecutor(1) as pool:
        with transaction(backend) as hold:
            hold("UPDATE users SET email = $1 WHERE id = $2", another, me["id"])
            setting = pool.submit(world.admin.post, path, body)
            until_they_wait(backend, setting)
        assert setting.result().status_code == 200
    assert world.service.browser().login(another, "another horse").status_code == 200
