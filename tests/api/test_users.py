"""Accounts: one's own (requirement, section 2), and those that an administrator looks after (contract)."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from security.roles import Role
from tests.support.accounts import ME, OTHER_PASSWORD, PASSWORD_CHANGED, statuses
from tests.support.client import Browser
from tests.support.factories import PASSWORD, World
from tests.support.locks import transaction, until_they_wait
from tests.support.service import Backend, Service


class TestMe:
    @pytest.mark.parametrize(
        ("role", "own"),
        [
            (Role.ADMIN, {}),
            (Role.DOCTOR, {"specialization": "Cardiology"}),
            (Role.STAFF, {"department": "Front desk"}),
            (Role.PATIENT, {}),
        ],
    )
    def test_the_own_account_has_the_fields_of_its_role(
        self, client_as: Callable[[Role], Browser], role: Role, own: dict[str, str]
    ) -> None:
        """Requirement 2, GET /api/users/me: `specialization` "(doctor only)", `department` "(staff only)"."""
        me = client_as(role).me()
        assert me == {
            "id": me["id"], "email": f"{role}@test.example", "name": me["name"], "role": role, "phone": None,
            "created_at": me["created_at"], **own,
        }  # fmt: skip
        assert me["created_at"].endswith("Z")

    def test_an_account_that_was_deleted_beside_the_service_is_not_signed_in(
        self, backend: Backend, world: World
    ) -> None:
        browser, me = world.account()
        with backend.redis as redis:
            for session in redis.scan_iter("session:*"):
                redis.persist(session)  # the test may take longer than the service remembers it
            backend.sql("DELETE FROM sessions WHERE user_id = $1::uuid", me["id"])
            backend.sql("DELETE FROM users WHERE id = $1::uuid", me["id"])
            assert browser.get(ME).status_code == 401
            assert browser.patch(ME, {"phone": "1"}).status_code == 401
            for session in redis.scan_iter("session:*"):
                redis.delete(session)

    def test_anonymous_callers_cannot_read_the_own_account(self, anonymous: Browser) -> None:
        """Requirement 2, "Automatic via HttpOnly cookie"."""
        answer = anonymous.get(ME)
        assert (answer.status_code, answer.json()) == (401, {"detail": "Not authenticated"})
        assert anonymous.patch(ME, {"name": "Mallory"}).status_code == 401


class TestChangingMe:
    def test_absent_fields_of_the_own_account_stay_and_null_or_empty_ones_clear(self, world: World) -> None:
        """Requirement 2, PATCH /api/users/me, "Same as GET /api/users/me"; contract, values: "on PATCH
        absent leaves and `null` clears a nullable field"."""
        doctor, before = world.other_doctor, world.other_doctor.me()
        full = {"name": "Emilia Durand", "phone": "+33 1 55", "specialization": "Surgery"}
        changed = doctor.patch(ME, full)
        assert changed.status_code == 200
        assert changed.json() == doctor.me() == before | full
        assert doctor.patch(ME, {"phone": None}).json() == before | full | {"phone": None}
        assert doctor.patch(ME, {"specialization": ""}).json()["specialization"] is None
        assert doctor.patch(ME, {"name": before["name"]}).json()["name"] == before["name"]

    @pytest.mark.parametrize(
        "body",
        [{}, {"name": "Sam Staff"}, {"phone": None, "department": "Front desk"}, {"specialization": None}],
    )
    def test_equal_values_change_nothing_in_the_own_account(
        self, backend: Backend, world: World, body: Any
    ) -> None:
        """Contract, values: "`PATCH {}` is 200 and changes nothing"; who may do what: "a field equal to its
        stored value counts as absent"."""
        row = "SELECT * FROM users WHERE email = 'staff@test.example'"
        before = backend.sql(row)
        answer = world.staff.patch(ME, body)
        assert (answer.status_code, answer.json()) == (200, world.staff.me())
        assert backend.sql(row) == before

    def test_a_change_of_the_own_account_sets_updated_at(self, backend: Backend, world: World) -> None:
        """Requirement, Database Schema, User: `updated_at`."""
        world.staff.patch(ME, {"phone": "+1 555 0199"})
        [row] = backend.sql("SELECT * FROM users WHERE email = 'staff@test.example'")
        assert row["updated_at"] > row["created_at"]
        world.staff.patch(ME, {"phone": ""})
        assert world.staff.me()["phone"] is None

    @pytest.mark.parametrize(
        ("role", "body", "detail"),
        [
            (Role.PATIENT, {"name": None}, "name: is required"),
            (Role.PATIENT, {"name": "  "}, "name: is required"),
            (Role.PATIENT, {"phone": 1}, "phone: must be null or text of at most 40 characters"),
            (Role.PATIENT, {"role": "admin"}, "role: is not a known field"),
            (Role.PATIENT, {"email": "x@example.com"}, "email: is not a known field"),
            (Role.PATIENT, {"status": "active"}, "status: is not a known field"),
            (Role.PATIENT, {"specialization": "Surgery"}, "specialization: only a doctor has one"),
            (Role.STAFF, {"specialization": "Surgery"}, "specialization: only a doctor has one"),
            (Role.DOCTOR, {"department": "Surgery"}, "department: only staff have one"),
            (Role.ADMIN, {"name": "Eve", "department": "X"}, "department: only staff have one"),
        ],
    )
    def test_an_invalid_change_of_the_own_account_is_400_and_changes_nothing(
        self, client_as: Callable[[Role], Browser], role: Role, body: Any, detail: str
    ) -> None:
        """Requirement 2, PATCH /api/users/me, Request; contract: "on `PATCH /api/users/me` too"."""
        before = client_as(role).me()
        answer = client_as(role).patch(ME, body)
        assert answer.status_code == 400
        assert answer.json()["detail"].startswith(detail)
        assert client_as(role).me() == before


class TestOwnPassword:
    @pytest.mark.slow
    def test_a_new_own_password_ends_every_session_and_opens_a_new_one(
        self, service: Service, world: World, at_both: Callable[[Browser], list[Browser]]
    ) -> None:
        """Contract, accounts: "Disabling an account, changing its role or its password ends its sessions at
        once (changing one's own password ends them all and opens a new one, whose cookies the answer sets: a
        copy of the old cookies is dead)"."""
        here, me = world.account()
        phone = service.browser()
        phone.login(me["email"], PASSWORD)
        others, copies = at_both(phone), at_both(here)
        old = dict(here.cookies)

        answer = here.post(f"{ME}/password", {"currentPassword": PASSWORD, "newPassword": OTHER_PASSWORD})
        assert (answer.status_code, answer.json()) == (200, PASSWORD_CHANGED)
        access, refresh = answer.headers.get_list("set-cookie")
        assert access.endswith("; HttpOnly; Secure; SameSite=Strict; Path=/; Max-Age=900")
        assert refresh.endswith("; HttpOnly; Secure; SameSite=Strict; Path=/api/auth/refresh; Max-Age=604800")
        assert statuses(others) == statuses(copies) == {401}
        assert service.browser(old).post("/api/auth/refresh").status_code == 401
        assert here.get(ME).status_code == 200
        assert here.post("/api/auth/refresh").status_code == 200
        [session] = here.get(f"{ME}/sessions").json()["sessions"]
        assert session["current"]
        events = world.admin.get(f"/api/audit?userId={me['id']}&action=account.password").json()["events"]
        assert [(event["targetId"], event["targetIds"]) for event in events] == [(me["id"], [session["id"]])]
        assert events[0]["sessionId"] != session["id"]
        assert service.browser().login(me["email"], PASSWORD).status_code == 401
        assert service.browser().login(me["email"], OTHER_PASSWORD).status_code == 200

    def test_a_wrong_current_password_is_400(self, world: World) -> None:
        """Contract, shapes: "`currentPassword` (wrong: 400)"."""
        body = {"currentPassword": "not it", "newPassword": OTHER_PASSWORD}
        answer = world.patient.post(f"{ME}/password", body)
        assert answer.status_code == 400
        assert answer.json() == {"detail": "currentPassword: is not the current password"}
        assert world.patient.get(ME).status_code == 200

    @pytest.mark.slow
    def test_of_two_concurrent_password_changes_one_is_made(
        self, service: Service, second_instance: Service, world: World
    ) -> None:
        """Contract, shapes: `currentPassword` is judged by what is stored when it is replaced."""
        here, me = world.account()
        sessions = [here, second_instance.browser()]
        assert sessions[1].login(me["email"], PASSWORD).status_code == 200

        def change(number: int) -> int:
            body = {"currentPassword": PASSWORD, "newPassword": f"{OTHER_PASSWORD} {number}"}
            return sessions[number].post(f"{ME}/password", body).status_code

        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(change, range(2)))
        assert answers.count(200) == 1
        assert set(answers) <= {200, 400, 401}
        winner = answers.index(200)
        assert service.browser().login(me["email"], f"{OTHER_PASSWORD} {winner}").status_code == 200
        assert sessions[winner].get(ME).status_code == 200
        assert sessions[1 - winner].get(ME).status_code == 401

    @pytest.mark.slow
    def test_a_password_change_whose_session_was_ended_by_another_is_401(
        self, backend: Backend, service: Service, world: World
    ) -> None:
        """Contract, accounts: a new password ends every session "at once"; a request that was about to set
        another one is told that its session has ended, and nothing about passwords."""
        here, me = world.account()
        there = service.browser()
        assert there.login(me["email"], PASSWORD).status_code == 200
        with ThreadPoolExecutor(2) as pool:
            with transaction(backend) as run:
                run("SELECT FROM users WHERE id = $1 FOR UPDATE", me["id"])
                body = {"currentPassword": PASSWORD, "newPassword": OTHER_PASSWORD}
                changes = [pool.submit(one.post, f"{ME}/password", body) for one in (here, there)]
                until_they_wait(backend, *changes)
            assert sorted(change.result().status_code for change in changes) == [200, 401]

    @pytest.mark.parametrize(
        ("change", "detail"),
        [
            ({"newPassword": "12345"}, "newPassword: must be text of 6 to 72 characters"),
            ({"newPassword": "a" * 73}, "newPassword: must be text of 6 to 72 characters"),
            ({"newPassword": "\u00e9" * 37}, "newPassword: must be at most 72 bytes of UTF-8"),
            ({"newPassword": None}, "newPassword: is required"),
            ({"currentPassword": None}, "currentPassword: is required"),
            ({"password": OTHER_PASSWORD}, "password: is not a known field"),
        ],
    )
    def test_an_invalid_new_own_password_is_400(
        self, world: World, change: dict[str, Any], detail: str
    ) -> None:
        """Requirement, Password Requirements, "Minimum 6 characters"; contract: 72 bytes at most."""
        body = {"currentPassword": PASSWORD, "newPassword": OTHER_PASSWORD} | change
        answer = world.patient.post(f"{ME}/password", body)
        assert answer.status_code == 400
        assert answer.json()["detail"].startswith(detail)
