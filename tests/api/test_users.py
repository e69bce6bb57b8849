"""Accounts: one's own (requirement, section 2), and those that an administrator looks after (contract)."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from security.roles import Role
from tests.support.client import Browser
from tests.support.factories import PASSWORD, World, registration
from tests.support.locks import transaction, until_they_wait
from tests.support.service import Backend, Service

UNKNOWN_ID = "0e4a7c52-93b1-4d6f-8a25-6b1f0c9d3e77"

ME = "/api/users/me"
OTHER = "another horse"
CHANGED = {"message": "Password changed"}
LAST_ADMIN = {"detail": "The last active administrator cannot be disabled or demoted"}

Sessions = list[Browser]


@pytest.fixture
def at_both(service: Service, second_instance: Service) -> Callable[[Browser], Sessions]:
    """The same session at two instances, both of which have just found it alive."""

    def copies(browser: Browser) -> Sessions:
        both = [instance.browser(dict(browser.cookies)) for instance in (service, second_instance)]
        assert [copy.get(ME).status_code for copy in both] == [200, 200]
        return both

    return copies


def statuses(sessions: Sessions) -> set[int]:
    return {session.get(ME).status_code for session in sessions} | {
        session.post("/api/auth/refresh").status_code for session in sessions
    }


def made(world: World, role: Role = Role.PATIENT, **changes: Any) -> dict[str, Any]:
    """A new active account that nobody has signed in to."""
    body = registration(role, **changes)
    answer = world.admin.post("/api/auth/register", body)
    assert answer.status_code == 201
    return dict(answer.json())


@pytest.fixture(scope="module")
def cohort(world: World) -> dict[str, dict[str, Any]]:
    """Accounts that a search for `cohort` finds: one of each role, a pending and a disabled one, and a
    patient who is linked to a chart."""
    people = {role.value: made(world, role, name=f"Cohort {role.title()}") for role in Role}
    people["linked"] = made(world, name="Cohort Linked", phone="+90 212 100%")
    link = {"userId": people["linked"]["id"]}
    assert world.staff.put(f"/api/patients/{world.chart()['id']}/account", link).status_code == 200
    people["disabled"] = made(world, name="Cohort Disabled")
    world.admin.patch(f"/api/users/{people['disabled']['id']}", {"status": "disabled"})
    body = registration(Role.STAFF, name="Cohort Pending")
    people["pending"] = world.service.browser().post("/api/auth/register", body).json()
    return people


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
    def test_a_new_own_password_ends_every_session_and_opens_a_new_one(
        self, service: Service, world: World, at_both: Callable[[Browser], Sessions]
    ) -> None:
        """Contract, accounts: "Disabling an account, changing its role or its password ends its sessions at
        once (changing one's own password ends them all and opens a new one, whose cookies the answer sets: a
        copy of the old cookies is dead)"."""
        here, me = world.account()
        phone = service.browser()
        phone.login(me["email"], PASSWORD)
        others, copies = at_both(phone), at_both(here)
        old = dict(here.cookies)

        answer = here.post(f"{ME}/password", {"currentPassword": PASSWORD, "newPassword": OTHER})
        assert (answer.status_code, answer.json()) == (200, CHANGED)
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
        assert service.browser().login(me["email"], OTHER).status_code == 200

    def test_a_wrong_current_password_is_400(self, world: World) -> None:
        """Contract, shapes: "`currentPassword` (wrong: 400)"."""
        body = {"currentPassword": "not it", "newPassword": OTHER}
        answer = world.patient.post(f"{ME}/password", body)
        assert answer.status_code == 400
        assert answer.json() == {"detail": "currentPassword: is not the current password"}
        assert world.patient.get(ME).status_code == 200

    def test_of_two_concurrent_password_changes_one_is_made(
        self, service: Service, second_instance: Service, world: World
    ) -> None:
        """Contract, shapes: `currentPassword` is judged by what is stored when it is replaced."""
        here, me = world.account()
        sessions = [here, second_instance.browser()]
        assert sessions[1].login(me["email"], PASSWORD).status_code == 200

        def change(number: int) -> int:
            body = {"currentPassword": PASSWORD, "newPassword": f"{OTHER} {number}"}
            return sessions[number].post(f"{ME}/password", body).status_code

        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(change, range(2)))
        assert answers.count(200) == 1
        assert set(answers) <= {200, 400, 401}
        winner = answers.index(200)
        assert service.browser().login(me["email"], f"{OTHER} {winner}").status_code == 200
        assert sessions[winner].get(ME).status_code == 200
        assert sessions[1 - winner].get(ME).status_code == 401

    def test_a_password_change_whose_session_was_ended_by_another_is_401(
        self, backend: Backend, service: Service, world: World
    ) -> None:
        """Contract, accounts: a new password ends every session "at once"; whoever was about to set another
        one by then is told so, and nothing about passwords."""
        here, me = world.account()
        there = service.browser()
        assert there.login(me["email"], PASSWORD).status_code == 200
        with ThreadPoolExecutor(2) as pool:
            with transaction(backend) as run:
                run("SELECT FROM users WHERE id = $1 FOR UPDATE", me["id"])
                body = {"currentPassword": PASSWORD, "newPassword": OTHER}
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
            ({"password": OTHER}, "password: is not a known field"),
        ],
    )
    def test_an_invalid_new_own_password_is_400(
        self, world: World, change: dict[str, Any], detail: str
    ) -> None:
        """Requirement, Password Requirements, "Minimum 6 characters"; contract: 72 bytes at most."""
        body = {"currentPassword": PASSWORD, "newPassword": OTHER} | change
        answer = world.patient.post(f"{ME}/password", body)
        assert answer.status_code == 400
        assert answer.json()["detail"].startswith(detail)


class TestPasswordSetByAnAdministrator:
    def test_a_password_set_by_an_administrator_ends_every_session(
        self, service: Service, world: World, at_both: Callable[[Browser], Sessions]
    ) -> None:
        """Contract, shapes: "`POST /api/users/{id}/password` takes `newPassword`"; accounts: "ends its
        sessions at once"."""
        browser, me = world.account(Role.DOCTOR)
        copies = at_both(browser)
        answer = world.admin.post(f"/api/users/{me['id']}/password", {"newPassword": OTHER})
        assert (answer.status_code, answer.json()) == (200, CHANGED)
        assert statuses(copies) == {401}
        assert service.browser().login(me["email"], PASSWORD).status_code == 401
        assert service.browser().login(me["email"], OTHER).status_code == 200

    def test_a_password_set_by_an_administrator_clears_the_failed_attempts(
        self, backend: Backend, world: World
    ) -> None:
        """Contract, accounts: "A password set by an admin (or at the console) clears the count of that
        e-mail"."""
        _, me = world.account()
        with Service(backend, backend.settings(login_attempts=2)) as strict:
            door = strict.browser()
            assert [door.login(me["email"], "not it").status_code for _ in range(3)] == [401, 401, 429]
            set_anew = world.admin.post(f"/api/users/{me['id']}/password", {"newPassword": OTHER})
            assert set_anew.status_code == 200
            assert door.login(me["email"], OTHER).status_code == 200

    @pytest.mark.parametrize("user_id", [UNKNOWN_ID, "x", "00000000000000000000000000000000"])
    def test_setting_the_password_of_an_unknown_account_is_404(self, world: World, user_id: str) -> None:
        """Contract, order: "A malformed id in a path is 404 after sign-in"."""
        for answer in (
            world.admin.post(f"/api/users/{user_id}/password", {"newPassword": OTHER}),
            world.admin.patch(f"/api/users/{user_id}", {"status": "active"}),
            world.admin.patch(f"/api/users/{user_id}", {}),
        ):
            assert (answer.status_code, answer.json()) == (404, {"detail": "User not found"})

    def test_an_invalid_password_set_by_an_administrator_is_400(self, world: World) -> None:
        """Requirement, Password Requirements."""
        path = f"/api/users/{world.patient.me()['id']}/password"
        for password in ("12345", "a" * 73, "\u00e9" * 37):
            for some in (path, f"/api/users/{UNKNOWN_ID}/password", "/api/users/x/password"):
                assert world.admin.post(some, {"newPassword": password}).status_code == 400


class TestList:
    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("", {"admin", "doctor", "staff", "patient", "linked", "disabled", "pending"}),
            ("&role=patient", {"patient", "linked", "disabled"}),
            ("&role=staff", {"staff", "pending"}),
            ("&role=admin", {"admin"}),
            ("&role=doctor", {"doctor"}),
            ("&status=pending", {"pending"}),
            ("&status=disabled", {"disabled"}),
            ("&status=active&role=staff", {"staff"}),
            ("&linked=true", {"linked"}),
            ("&linked=false&role=patient", {"patient", "disabled"}),
            ("&linked=false&role=patient&status=active", {"patient"}),
            ("&linked=true&role=doctor", set()),
        ],
    )
    def test_administrators_list_and_filter_all_accounts(
        self, world: World, cohort: dict[str, dict[str, Any]], query: str, expected: set[str]
    ) -> None:
        """Contract, shapes: "`GET /api/users?role=&status=&linked=&search=&page=&limit=`"."""
        answer = world.admin.get(f"/api/users?search=cohort&limit=100{query}").json()
        assert {user["id"] for user in answer["users"]} == {cohort[name]["id"] for name in expected}
        assert answer["total"] == len(expected)

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("", {"patient", "linked", "disabled"}),
            ("&role=patient", {"patient", "linked", "disabled"}),
            ("&role=doctor", set()),
            ("&role=admin", set()),
            ("&role=staff&status=pending", set()),
            ("&status=pending", set()),
            ("&status=active&linked=false", {"patient"}),
        ],
    )
    def test_staff_list_patient_accounts_only(
        self, world: World, cohort: dict[str, dict[str, Any]], query: str, expected: set[str]
    ) -> None:
        """Contract, who may do what: "patient accounts only, whatever the filter"."""
        answer = world.staff.get(f"/api/users?search=cohort&limit=100{query}").json()
        assert {user["id"] for user in answer["users"]} == {cohort[name]["id"] for name in expected}
        assert answer["total"] == len(expected)

    def test_a_listed_account_is_the_own_account_with_status(
        self, world: World, cohort: dict[str, dict[str, Any]]
    ) -> None:
        """Contract, shapes: "An account is the `GET /api/users/me` object plus `status`"."""
        [doctor] = world.admin.get("/api/users?search=dora%20demir").json()["users"]
        assert doctor == world.doctor.me() | {"status": "active"}
        [linked] = world.staff.get("/api/users?search=cohort%20linked").json()["users"]
        assert linked == cohort["linked"] | {
            "phone": "+90 212 100%", "created_at": linked["created_at"], "status": "active"
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("search", "found"),
        [("COHORT LINK", True), ("212%20100%25", True), ("cohort_linked", False), ("100%25%25", False)],
    )
    def test_the_search_for_accounts_is_literal(
        self, world: World, search: str, found: bool, cohort: dict[str, Any]
    ) -> None:
        """Contract, paging: "a literal part of name, e-mail or phone"."""
        assert world.admin.get(f"/api/users?search={search}").json()["total"] == int(found)

    def test_pages_of_accounts_follow_each_other_in_one_order(
        self, world: World, cohort: dict[str, Any]
    ) -> None:
        """Contract, paging: "Past the end: an empty list and the true total. … The order is stable"."""
        pages = [world.admin.get(f"/api/users?search=cohort&limit=3&page={n}").json() for n in range(1, 5)]
        names = [user["name"] for page in pages for user in page["users"]]
        assert names == sorted(person["name"] for person in cohort.values())
        assert [len(page["users"]) for page in pages] == [3, 3, 1, 0]
        assert {page["total"] for page in pages} == {7}
        assert len(world.admin.get("/api/users").json()["users"]) == 10, "ten by default"

    @pytest.mark.parametrize(
        "query",
        ["role=root", "status=gone", "linked=yes", "linked=1", "page=0", "limit=101", "x=1&x=2"],
    )
    def test_invalid_account_filters_are_400(self, world: World, query: str) -> None:
        """Contract, paging: "outside: 400"; values: "repeated ones everywhere"."""
        assert world.admin.get(f"/api/users?{query}").status_code == 400

    def test_doctors_and_patients_cannot_list_accounts(self, world: World) -> None:
        """Contract, who may do what, "accounts: list"."""
        for browser in (world.doctor, world.patient):
            answer = browser.get("/api/users")
            assert (answer.status_code, answer.json()) == (
                403,
                {"detail": "Only admin and staff may do this"},
            )


class TestChangingAnAccount:
    def test_an_approved_account_may_sign_in(self, anonymous: Browser, world: World) -> None:
        """Contract, accounts: "`pending` until an administrator approves it"."""
        body = registration(Role.DOCTOR)
        user_id = anonymous.post("/api/auth/register", body).json()["id"]
        assert anonymous.login(body["email"], PASSWORD).status_code == 403
        approved = world.admin.patch(f"/api/users/{user_id}", {"status": "active"})
        assert (approved.status_code, approved.json()["status"]) == (200, "active")
        assert anonymous.login(body["email"], PASSWORD).status_code == 200
        assert approved.json() == anonymous.me() | {"status": "active"}

    def test_disabling_an_account_ends_its_sessions_on_every_instance(
        self, service: Service, world: World, at_both: Callable[[Browser], Sessions]
    ) -> None:
        """Contract, accounts: "Disabling an account … ends its sessions at once"."""
        browser, me = world.account()
        copies = at_both(browser)
        path = f"/api/users/{me['id']}"
        disabled = world.admin.patch(path, {"status": "disabled"})
        assert (disabled.status_code, disabled.json()) == (200, me | {"status": "disabled"})
        assert statuses(copies) == {401}

        assert world.admin.patch(path, {"status": "active"}).json()["status"] == "active"
        assert statuses(copies) == {401}, "what has ended does not come back"
        assert service.browser().login(me["email"], PASSWORD).status_code == 200

    def test_changing_an_accounts_role_ends_its_sessions_and_drops_fields_of_the_old_role(
        self, service: Service, world: World, at_both: Callable[[Browser], Sessions]
    ) -> None:
        """Contract, accounts: "changing its role … ends its sessions at once"."""
        browser, me = world.account(Role.DOCTOR)
        copies = at_both(browser)
        moved = world.admin.patch(f"/api/users/{me['id']}", {"role": "staff"}).json()
        assert (moved["role"], moved["department"]) == ("staff", None)
        assert "specialization" not in moved
        assert statuses(copies) == {401}
        again = service.browser()
        assert again.login(me["email"], PASSWORD).json()["user"]["role"] == "staff"
        assert again.get("/api/users").status_code == 200
        assert (
            world.admin.patch(f"/api/users/{me['id']}", {"role": "doctor"}).json()["specialization"] is None
        )

    def test_equal_values_change_no_account_and_end_no_session(self, world: World) -> None:
        """Contract, values: "`PATCH {}` is 200 and changes nothing"."""
        me = world.patient.me()
        looks = f"/api/audit?action=account.update&userId={world.admin.me()['id']}"
        before = world.admin.get(looks).json()["total"]
        for body in ({}, {"status": "active"}, {"role": "patient", "status": "active"}):
            answer = world.admin.patch(f"/api/users/{me['id']}", body)
            assert (answer.status_code, answer.json()) == (200, me | {"status": "active"})
        assert world.admin.get(looks).json()["total"] == before + 3, "each showed the account"
        assert world.patient.get(ME).status_code == 200

    @pytest.mark.parametrize(
        ("body", "detail"),
        [
            ({"status": "pending"}, "status: an account never returns to pending"),
            ({"status": "gone"}, "status: must be one of pending, active, disabled"),
            ({"status": None}, "status: must be one of pending, active, disabled"),
            ({"role": "root"}, "role: must be one of admin, doctor, staff, patient"),
            ({"role": None}, "role: must be one of"),
            ({"name": "Mallory"}, "name: is not a known field"),
            ({"role": "doctor", "status": "pending"}, "status: an account never returns to pending"),
        ],
    )
    def test_an_invalid_change_of_an_account_is_400(self, world: World, body: Any, detail: str) -> None:
        """Contract, accounts: "An account never returns to `pending`"."""
        me = world.patient.me()
        answer = world.admin.patch(f"/api/users/{me['id']}", body)
        assert answer.status_code == 400
        assert answer.json()["detail"].startswith(detail)
        assert world.patient.me() == me

    def test_only_administrators_change_accounts_and_set_passwords(self, world: World) -> None:
        """Contract, who may do what: "accounts: approve, disable, change role, set a password"."""
        path = f"/api/users/{world.patient.me()['id']}"
        for browser in (world.doctor, world.staff, world.patient):
            assert browser.patch(path, {"role": "admin"}).status_code == 403
            assert browser.post(f"{path}/password", {"newPassword": OTHER}).status_code == 403


class TestTheLastAdministrator:
    """Contract, accounts: "The last active admin cannot be disabled or demoted (400)"."""

    @pytest.mark.parametrize("change", [{"status": "disabled"}, {"role": "staff"}])
    def test_the_last_administrator_can_neither_be_disabled_nor_demoted(
        self, world: World, change: dict[str, str]
    ) -> None:
        """Pending and disabled administrators do not count."""
        pending = world.service.browser().post("/api/auth/register", registration(Role.ADMIN)).json()
        everyone = world.admin.get("/api/users?role=admin&status=active&limit=100").json()["users"]
        me = world.admin.me()
        for other in everyone:
            if other["id"] != me["id"]:
                world.admin.patch(f"/api/users/{other['id']}", {"status": "disabled"})
        answer = world.admin.patch(f"/api/users/{me['id']}", change)
        assert (answer.status_code, answer.json()) == (400, LAST_ADMIN)
        assert world.admin.patch(f"/api/users/{me['id']}", {}).status_code == 200
        assert world.admin.patch(f"/api/users/{me['id']}", {"status": "active"}).status_code == 200
        assert world.admin.get(ME).status_code == 200
        assert world.admin.patch(f"/api/users/{pending['id']}", {"role": "staff"}).status_code == 200

    def test_one_administrator_remains_when_all_resign_at_once(
        self, populated: tuple[Backend, dict[str, dict[str, str]], float]
    ) -> None:
        """Under concurrency, on two instances."""
        own = populated[0].copy()
        own.sql("UPDATE users SET role = 'admin'")
        names = ("admin", "doctor", "staff", "patient")
        with Service(own, own.settings()) as one, Service(own, own.settings()) as two:
            admins = [service.browser() for service in (one, two) * 2]
            for browser, name in zip(admins, names, strict=True):
                assert browser.login(f"{name}@test.example", PASSWORD).status_code == 200
            own.sql("UPDATE users SET status = 'disabled' WHERE email LIKE 'other%'")
            paths = [f"/api/users/{browser.me()['id']}" for browser in admins]

            def resign(number: int) -> int:
                change = {"status": "disabled"} if number % 2 else {"role": "patient"}
                return admins[number].patch(paths[number], change).status_code

            with ThreadPoolExecutor(4) as pool:
                with transaction(own) as run:
                    run("SELECT 1 FROM users FOR UPDATE")
                    resignations = [pool.submit(resign, number) for number in range(4)]
                    until_they_wait(own, *resignations)
                answers = [resignation.result() for resignation in resignations]
            assert sorted(answers) == [200, 200, 200, 400]
            remaining = admins[answers.index(400)]
            everyone = remaining.get("/api/users?role=admin&status=active").json()
            assert [user["id"] for user in everyone["users"]] == [remaining.me()["id"]]
