"""Registering an account (requirement, section 1)."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jwt
import pytest

from security.roles import Role
from tests.support.client import Browser
from tests.support.factories import PASSWORD, World, email, registration
from tests.support.service import Backend, Service

pytestmark = pytest.mark.slow

PENDING = {"detail": "This account is waiting for approval by an administrator"}
INVALID = {"detail": "Invalid email or password"}


@pytest.fixture
def registered(anonymous: Browser) -> str:
    """The e-mail of an account."""
    body = registration()
    assert anonymous.post("/api/auth/register", body).status_code == 201
    return str(body["email"])


def stored(backend: Backend, account: str) -> dict[str, Any]:
    [row] = backend.sql("SELECT * FROM users WHERE email = $1", account)
    return dict(row)


@pytest.mark.parametrize("role", Role)
def test_registration_is_201_for_every_role_but_only_patients_may_sign_in_at_once(
    anonymous: Browser, role: Role
) -> None:
    """Requirement 1, POST /api/auth/register; contract: "any other account is `pending` until an
    administrator approves it"."""
    body = registration(role, name="  Robin Roe", phone="+1 555 0100")
    made = anonymous.post("/api/auth/register", body)
    assert made.status_code == 201
    assert made.json() == {
        "id": made.json()["id"], "email": body["email"], "name": "  Robin Roe", "role": role
    }  # fmt: skip
    assert made.headers.get_list("set-cookie") == []

    answer = anonymous.login(body["email"], PASSWORD)
    if role is Role.PATIENT:
        assert answer.status_code == 200
    else:
        assert (answer.status_code, answer.json()) == (403, PENDING)
        assert answer.headers.get_list("set-cookie") == []


def test_a_wrong_password_does_not_tell_that_an_account_is_pending(anonymous: Browser) -> None:
    """Contract, accounts: "a wrong one 401"."""
    body = registration(Role.DOCTOR)
    anonymous.post("/api/auth/register", body)
    wrong = anonymous.login(body["email"], "not it")
    assert (wrong.status_code, wrong.json()) == (401, INVALID)


def test_roles_in_auto_approve_roles_need_no_approval(backend: Backend) -> None:
    """Contract, environment: `AUTO_APPROVE_ROLES`."""
    with Service(backend, backend.settings(auto_approve_roles=(Role.STAFF,))) as clinic:
        for role, status in ((Role.STAFF, "active"), (Role.PATIENT, "pending")):
            body = registration(role)
            assert clinic.browser().post("/api/auth/register", body).status_code == 201
            assert stored(backend, body["email"])["status"] == status


def test_accounts_registered_by_an_administrator_are_active_and_the_administrator_stays_signed_in(
    backend: Backend, world: World
) -> None:
    """Contract, accounts: "A caller who is a signed-in admin creates active accounts"."""
    body = registration(Role.ADMIN)
    made = world.admin.post("/api/auth/register", body)
    assert made.status_code == 201
    assert made.headers.get_list("set-cookie") == []
    assert stored(backend, body["email"])["status"] == "active"
    assert world.admin.me()["email"] == "admin@test.example"


@pytest.mark.parametrize("kind", ["ended session", "forged token", "member of staff", "foreign page"])
def test_accounts_registered_by_other_callers_are_not_active_at_once(
    backend: Backend, service: Service, world: World, kind: str
) -> None:
    """Contract, accounts: "dead cookies mean anonymous. So nobody makes themselves an
    administrator"."""
    body, headers = registration(Role.ADMIN), {}
    if kind == "ended session":
        caller = service.browser()
        caller.login("admin@test.example", PASSWORD)
        dead = dict(caller.cookies)
        caller.post("/api/auth/logout")
        caller = service.browser(dead)
    elif kind == "forged token":
        forged = jwt.decode(world.admin.cookies["access_token"], options={"verify_signature": False})
        caller = service.browser({"access_token": jwt.encode(forged, "another key " * 4)})
    elif kind == "member of staff":
        caller = world.staff
    else:
        caller, headers = world.admin, {"origin": "https://evil.example"}
    made = caller.post("/api/auth/register", body, headers=headers)
    if kind == "foreign page":
        assert made.status_code == 403
        assert not backend.sql("SELECT 1 FROM users WHERE email = $1", body["email"])
    else:
        assert made.status_code == 201
        assert stored(backend, body["email"])["status"] == "pending"


@pytest.mark.parametrize("change", [str, str.upper, lambda address: f" {address}\t"])
def test_registering_an_email_twice_is_400(anonymous: Browser, registered: str, change: Any) -> None:
    """Requirement, Database Schema, "email: String (unique)"; contract: "Duplicate: 400"."""
    answer = anonymous.post("/api/auth/register", registration(email=change(registered)))
    assert (answer.status_code, answer.json()) == (400, {"detail": "email: is already registered"})


def test_concurrent_registrations_of_one_email_make_one_account(
    service: Service, second_instance: Service
) -> None:
    """Requirement, Database Schema, "email: String (unique)", under concurrency on two instances."""
    body = registration()
    browsers = [instance.browser() for instance in (service, second_instance) * 2]
    with ThreadPoolExecutor(len(browsers)) as pool:
        answers = list(pool.map(lambda browser: browser.post("/api/auth/register", body), browsers))
    assert sorted(answer.status_code for answer in answers) == [201, 400, 400, 400]


@pytest.mark.parametrize(
    ("password", "detail"),
    [
        ("12345", "password: must be text of 6 to 72 characters"),
        ("\U0001f984" * 5, "password: must be text of 6 to 72 characters"),
        ("a" * 73, "password: must be text of 6 to 72 characters"),
        ("\u00e9" * 37, "password: must be at most 72 bytes of UTF-8"),
        ("\U0001f984" * 19, "password: must be at most 72 bytes of UTF-8"),
        ("123\x00456", "password: must not contain NUL characters"),
    ],
)
def test_a_password_that_is_too_short_or_that_bcrypt_would_cut_is_400(
    anonymous: Browser, password: str, detail: str
) -> None:
    """Requirement, Password Requirements, "Minimum 6 characters"; contract: "72 UTF-8 **bytes** at most
    (bcrypt reads no more), never cut"."""
    answer = anonymous.post("/api/auth/register", registration(password=password))
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(detail)


@pytest.mark.parametrize("password", ["123456", "\u00e9" * 36], ids=["6 characters", "72 bytes"])
def test_passwords_at_the_bounds_work_and_every_byte_of_them_counts(
    anonymous: Browser, password: str
) -> None:
    """Requirement, Password Requirements."""
    body = registration(password=password)
    assert anonymous.post("/api/auth/register", body).status_code == 201
    assert anonymous.login(body["email"], password).status_code == 200
    assert anonymous.login(body["email"], password + "x").status_code == 401
    assert anonymous.login(body["email"], password[:-1]).status_code == 401


@pytest.mark.parametrize(
    ("role", "optional", "expected"),
    [
        (Role.PATIENT, {}, {"phone": None}),
        (Role.PATIENT, {"phone": None, "specialization": None, "department": None}, {"phone": None}),
        (Role.PATIENT, {"phone": "", "specialization": "", "department": ""}, {"phone": None}),
        (Role.DOCTOR, {}, {"phone": None, "specialization": None}),
        (Role.DOCTOR, {"specialization": ""}, {"phone": None, "specialization": None}),
        (Role.STAFF, {"department": None}, {"phone": None, "department": None}),
        (
            Role.DOCTOR,
            {"phone": "+1 555", "specialization": "Surgery", "department": None},
            {"phone": "+1 555", "specialization": "Surgery"},
        ),
    ],
)
def test_absent_null_and_empty_optional_registration_fields_are_null(
    world: World, role: Role, optional: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Requirement 1, POST /api/auth/register, the "(optional)" fields, as an account has them."""
    body = {"name": "Robin Roe", "email": email(), "password": PASSWORD, "role": role, **optional}
    made = world.admin.post("/api/auth/register", body).json()
    [account] = world.admin.get(f"/api/users?search={body['email']}").json()["users"]
    assert account == {**made, **expected, "created_at": account["created_at"], "status": "active"}


@pytest.mark.parametrize(
    ("role", "field"),
    [
        (Role.PATIENT, "specialization"),
        (Role.STAFF, "specialization"),
        (Role.ADMIN, "specialization"),
        (Role.PATIENT, "department"),
        (Role.DOCTOR, "department"),
        (Role.ADMIN, "department"),
    ],
)
def test_registration_fields_of_another_role_are_400(anonymous: Browser, role: Role, field: str) -> None:
    """Requirement 1, POST /api/auth/register: "doctor only", "staff only"."""
    answer = anonymous.post("/api/auth/register", registration(role, **{field: "Surgery"}))
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(f"{field}: only")


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"role": "root"}, "role: must be one of admin, doctor, staff, patient"),
        ({"role": None}, "role: is required"),
        ({"name": ""}, "name: is required"),
        ({"name": " \n "}, "name: is required"),
        ({"name": "x" * 201}, "name: must be text of 1 to 200 characters"),
        ({"name": "a\x00b"}, "name: must not contain NUL characters"),
        ({"email": "nobody"}, "email: must be an e-mail address"),
        ({"email": "   "}, "email: is required"),
        ({"email": f"{'x' * 251}@b.c"}, "email: must be text of 3 to 254 characters"),
        ({"email": f"{'İ' * 200}@b.c"}, "email: must have at most 254 characters in lower case"),
        ({"email": "a@\ufeffb.c"}, "email: must be an e-mail address"),
        ({"name": "\ufeff\u0085\u001c"}, "name: is required"),
        ({"phone": 5550100}, "phone: must be null or text of at most 40 characters"),
        ({"phone": "1" * 41}, "phone: must be null or text of at most 40 characters"),
        ({"status": "active"}, "status: is not a known field"),
    ],
)
def test_an_invalid_registration_body_is_400(anonymous: Browser, change: dict[str, Any], detail: str) -> None:
    """Requirement 1, POST /api/auth/register, Request."""
    answer = anonymous.post("/api/auth/register", registration() | change)
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(detail)


@pytest.mark.parametrize("field", ["name", "email", "password", "role"])
def test_missing_or_null_required_registration_fields_are_400(anonymous: Browser, field: str) -> None:
    """Requirement 1, POST /api/auth/register, Request."""
    body = registration()
    del body[field]
    answer = anonymous.post("/api/auth/register", body)
    assert (answer.status_code, answer.json()) == (400, {"detail": f"{field}: is required"})
