"""What the operations on accounts and sessions share: an account's fields, what signing in takes, the rules
of a password, the end of a session."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID, uuid4

from litestar.datastructures import Cookie
from msgspec import UNSET, Meta, UnsetType

from api.http.fields import TEXT, Email, Id, Instant, Name, Output, Phone
from api.http.problems import ErrorCode, Fault
from api.http.requests import Given, Rule, StrictRequest
from api.http.violations import of_field
from persistence import sessions
from persistence.models import AccountStatus
from persistence.postgres.database import Transaction
from persistence.postgres.statements import AnyRow
from security.admission import Admission
from security.cookies import access_cookie, refresh_cookie
from security.login_attempts import LoginAttempts
from security.passwords import MAX_BYTES, Passwords, is_common
from security.roles import Role
from security.tokens import TokenIssuer

MAX_USER_AGENT = 400  # characters that we keep of what a browser calls itself
Label = Annotated[str, Meta(max_length=120, pattern=TEXT)]


class User(Output, kw_only=True):
    id: Id
    email: Email
    name: Name
    role: Role
    phone: Phone | None
    specialization: Label | UnsetType | None = UNSET  # left out for everyone but doctors
    department: Label | UnsetType | None = UNSET  # left out for everyone but staff
    created_at: Instant


class Account(User, kw_only=True):
    status: AccountStatus


# What an account of this role does not have: only doctors have a specialization, only staff a department.
LOST_WITH_ROLE = {
    Role.ADMIN: ("specialization", "department"),
    Role.DOCTOR: ("department",),
    Role.STAFF: ("specialization",),
    Role.PATIENT: ("specialization", "department"),
}


@dataclass(frozen=True)
class SignIn:
    """What signing in takes, put together by api/app.py."""

    passwords: Passwords
    attempts: LoginAttempts
    issuer: TokenIssuer
    admission: Admission
    session_lifetime: timedelta
    idle_lifetime: timedelta | None
    approved: frozenset[Role]
    refuses_common: bool


def fields_of(row: Sequence[Any]) -> dict[str, Any]:
    """The fields of an account in these columns (persistence.users.COLUMNS), less what its role does not
    have."""
    values = dict(zip(Account.__struct_fields__, row, strict=True))
    for name in LOST_WITH_ROLE[values["role"]]:
        del values[name]
    return values


def account(row: Sequence[Any]) -> Account:
    return Account(**fields_of(row))


def unsuited(role: Role | None, given: Given) -> Iterator[Fault]:
    """What only doctors, or only staff, have and is given to a person of another role."""
    for name, whose, detail in (
        ("specialization", Role.DOCTOR, "only a doctor has one"),
        ("department", Role.STAFF, "only staff have one"),
    ):
        if given.get(name) and role not in {whose, None}:
            yield of_field(name, ErrorCode.NOT_OF_THIS_ROLE, detail)


def acceptable(name: str) -> Rule:
    """The new password in the field `name` is one that bcrypt reads all of and, where the clinic refuses
    those, none of the most common ones."""

    def acceptable(given: Given, request: StrictRequest) -> Iterator[Fault]:
        sign_in: SignIn = request.service(SignIn)
        password = given.get(name, "")
        if len(password.encode()) > MAX_BYTES:
            yield of_field(name, ErrorCode.TOO_LONG, f"must be at most {MAX_BYTES} bytes of UTF-8")
        elif sign_in.refuses_common and is_common(password):
            detail = "is one of the most common passwords; choose another"
            yield of_field(name, ErrorCode.COMMON_PASSWORD, detail)

    return acceptable


def end_everywhere(transaction: Transaction, admission: Admission, ended: Sequence[UUID]) -> None:
    """Leave tombstones for sessions that this transaction has ended, once it is stored."""
    if ended:
        transaction.after_commit(lambda: admission.end(ended))


async def opened_session(
    transaction: Transaction, request: StrictRequest, sign_in: SignIn, user: AnyRow
) -> tuple[UUID, list[Cookie]]:
    """Open a session of the user; returns its id and its two cookies."""
    token_id = uuid4()
    session = await sessions.add(
        transaction,
        user_id=user.id,
        refresh_jti=token_id,
        lifetime=sign_in.session_lifetime,
        address=request.address,
        user_agent=request.headers.get("user-agent", "")[:MAX_USER_AGENT],
    )
    holder = (user.id, user.email, user.role, session.id)
    access = sign_in.issuer.access(*holder)
    refresh = sign_in.issuer.refresh(*holder, token_id, session.expires_at)
    return session.id, [
        access_cookie(access, int(sign_in.issuer.access_lifetime.total_seconds())),
        refresh_cookie(refresh, int(sign_in.session_lifetime.total_seconds())),
    ]
