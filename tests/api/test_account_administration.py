"""Accounts as administrators and staff see and change them (contract, accounts)."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from security.roles import Role
from tests.support.accounts import ME, OTHER_PASSWORD, PASSWORD_CHANGED, make_account, statuses
from tests.support.client import Browser
from tests.support.factories import PASSWORD, World, registration
from tests.support.locks import transaction, until_they_wait
from tests.support.service import Backend, Service

UNKNOWN_ID = "0e4a7c52-93b1-4d6f-8a25-6b1f0c9d3e77"


LAST_ADMIN = {"detail": "The last active administrator cannot be disabled or demoted"}


@pytest.fixture(scope="module")
def cohort(world: World) -> dict[str, dict[str, Any]]:
    """Accounts that a search for `cohort` finds: one of each role, a pending and a disabled one, and a
    patient who is linked to a chart."""
    people = {role.value: make_account(world, role, name=f"Cohort {role.title()}") for role in Role}
    people["linked"] = make_account(world, name="Cohort Linked", phone="+90 212 100%")
    link = {"userId": people["linked"]["id"]}
    assert world.staff.put(f"/api/patients/{world.chart()['id']}/account", link).status_code == 200
    people["disabled"] = make_account(world, name="Cohort Disabled")
    world.admin.patch(f"/api/users/{people['disabled']['id']}", {"status": "disabled"})
    body = registration(Role.STAFF, name="Cohort Pending")
    people["pending"] = world.service.browser().post("/api/auth/register", body).json()
    return people


class TestPasswordSetByAnAdministrator:
    @pytest.mark.slow
    def test_a_password_set_by_an_administrator_ends_every_session(
        self, service: Service, world: World, at_both: Callable[[Browser], list[Browser]]
    ) -> None:
        """Contract, shapes: "`POST /api/users/{id}/password` takes `newPassword`"; accounts: "ends its
        sessions at once"."""
        browser, me = world.account(Role.DOCTOR)
        copies = at_both(browser)
        answer = world.admin.post(f"/api/users/{me['id']}/password", {"newPassword": OTHER_PASSWORD})
        assert (answer.status_code, answer.json()) == (200, PASSWORD_CHANGED)
        assert statuses(copies) == {401}
        assert service.browser().login(me["email"], PASSWORD).status_code == 401
        assert service.browser().login(me["email"], OTHER_PASSWORD).status_code == 200

    @pytest.mark.slow
    def test_a_password_set_by_an_administrator_clears_the_failed_attempts(
        self, backend: Backend, world: World
    ) -> None:
        """Contract, accounts: "A password set by an admin (or at the console) clears the count of that
        e-mail"."""
        _, me = world.account()
        with Service(backend, backend.settings(login_attempts=2)) as strict:
            door = strict.browser()
            assert [door.login(me["email"], "not it").status_code for _ in range(3)] == [401, 401, 429]
            set_anew = world.admin.post(f"/api/users/{me['id']}/password", {"newPassword": OTHER_PASSWORD})
            assert set_anew.status_code == 200
            assert door.login(me["email"], OTHER_PASSWORD).status_code == 200

    @pytest.mark.parametrize("user_id", [UNKNOWN_ID, "x", "00000000000000000000000000000000"])
    def test_setting_the_password_of_an_unknown_account_is_404(self, world: World, user_id: str) -> None:
        """Contract, order: "A malformed id in a path is 404 after sign-in"."""
        for answer in (
            world.admin.post(f"/api/users/{user_id}/password", {"newPassword": OTHER_PASSWORD}),
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
    @pytest.mark.slow
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

    @pytest.mark.slow
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
    @pytest.mark.slow
    def test_an_approved_account_may_sign_in(self, anonymous: Browser, world: World) -> None:
        """Contract, accounts: "`pending` until an administrator approves it"."""
        body = registration(Role.DOCTOR)
        user_id = anonymous.post("/api/auth/register", body).json()["id"]
        assert anonymous.login(body["email"], PASSWORD).status_code == 403
        approved = world.admin.patch(f"/api/users/{user_id}", {"status": "active"})
        assert (approved.status_code, approved.json()["status"]) == (200, "active")
        assert anonymous.login(body["email"], PASSWORD).status_code == 200
        assert approved.json() == anonymous.me() | {"status": "active"}

    @pytest.mark.slow
    def test_disabling_an_account_ends_its_sessions_on_every_instance(
        self, service: Service, world: World, at_both: Callable[[Browser], list[Browser]]
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

    @pytest.mark.slow
    def test_changing_an_accounts_role_ends_its_sessions_and_drops_fields_of_the_old_role(
        self, service: Service, world: World, at_both: Callable[[Browser], list[Browser]]
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
            ({"phone": "1"}, "phone: is not a known field"),
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
        """Contract, who may do what: "accounts: approve, disable, change role, name or e-mail, set a
        password"."""
        path = f"/api/users/{world.patient.me()['id']}"
        for browser in (world.doctor, world.staff, world.patient):
            assert browser.patch(path, {"role": "admin"}).status_code == 403
            assert browser.post(f"{path}/password", {"newPassword": OTHER_PASSWORD}).status_code == 403


class TestTheLastAdministrator:
    """Contract, accounts: "The last active admin cannot be disabled or demoted (400)"."""

    @pytest.mark.slow
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

    @pytest.mark.slow
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
