"""What the resources of accounts and sessions share: the fields of an account, the rules for them, and the
service that opens and revokes sessions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Literal, TypeVar
from uuid import UUID, uuid4

from litestar.datastructures import Cookie
from msgspec import UNSET, Meta, UnsetType

from api.http.fields import MAX_EMAIL_LENGTH, TEXT, Email, Id, Instant, Name, Output, Phone
from api.http.problems import ErrorCode, Fault
from api.http.requests import Given, Rule, StrictRequest
from api.http.structs import struct_of
from api.http.violations import field_fault
from persistence import sessions
from persistence.models import AccountStatus
from persistence.postgres.database import Transaction
from persistence.sessions import RefreshRow
from persistence.users import HolderRow, UserChanges, UserRow, normal_email
from security.admission import Admission
from security.cookies import access_cookie, refresh_cookie
from security.passwords import MAX_BYTES, Passwords, Weakness
from security.roles import Caller, Role
from security.tokens import TokenIssuer

# For so long after its use a refresh token is accepted again: a second tab sent it, or an answer was lost.
REFRESH_REUSE_SECONDS = 30
MAX_USER_AGENT_LENGTH = 400  # characters of the header that are stored
Label = Annotated[str, Meta(max_length=120, pattern=TEXT)]


class User(Output, kw_only=True):
    id: Id
    email: Email
    name: Name
    role: Role
    phone: Phone | None
    specialization: Label | UnsetType | None = UNSET  # present for doctors only
    department: Label | UnsetType | None = UNSET  # present for staff only
    created_at: Instant


class Account(User, kw_only=True):
    status: AccountStatus


class AccountSummary(Output):
    id: Id
    email: Email
    name: Name
    role: Role


U = TypeVar("U", bound=User)


# Only doctors have a specialization, and only staff have a department.
FIELDS_NOT_OF_ROLE: dict[Role, tuple[Literal["specialization", "department"], ...]] = {
    Role.ADMIN: ("specialization", "department"),
    Role.DOCTOR: ("department",),
    Role.STAFF: ("specialization",),
    Role.PATIENT: ("specialization", "department"),
}
PASSWORD_FAULTS = {
    Weakness.TOO_LONG: (ErrorCode.TOO_LONG, f"must be at most {MAX_BYTES} bytes of UTF-8"),
    Weakness.COMMON: (ErrorCode.COMMON_PASSWORD, "is one of the most common passwords; choose another"),
}


whole_account_of = struct_of(Account, UserRow)
whole_user_of = struct_of(User, UserRow)


def account_of(row: UserRow) -> Account:
    return with_fields_of_role(whole_account_of(row))


def user_of(row: UserRow) -> User:
    return with_fields_of_role(whole_user_of(row))


def summary_of(user: HolderRow | UserRow) -> AccountSummary:
    return AccountSummary(id=user.id, email=user.email, name=user.name, role=user.role)


def with_fields_of_role(user: U) -> U:
    for name in FIELDS_NOT_OF_ROLE[user.role]:
        setattr(user, name, UNSET)
    return user


def clear_fields_not_of_role(changed: UserChanges) -> None:
    """With a change of role, clear the fields that people of the new role do not have."""
    if "role" in changed:
        for name in FIELDS_NOT_OF_ROLE[changed["role"]]:
            changed[name] = None


def find_role_faults(role: Role | None, given: Given) -> Iterator[Fault]:
    """A fault for each field that is given and that people of this role do not have."""
    for name, owner, detail in (
        ("specialization", Role.DOCTOR, "only a doctor has one"),
        ("department", Role.STAFF, "only staff have one"),
    ):
        if given.get(name) and role not in {owner, None}:
            yield field_fault(name, ErrorCode.NOT_OF_THIS_ROLE, detail)


def require_short_email(given: Given, request: StrictRequest) -> Iterator[Fault]:
    """An e-mail address fits in its bound in lower case too, where it may be longer: "İ" becomes two
    letters."""
    if len(normal_email(given.get("email", ""))) > MAX_EMAIL_LENGTH:
        detail = f"must have at most {MAX_EMAIL_LENGTH} characters in lower case"
        yield field_fault("email", ErrorCode.TOO_LONG, detail)


def require_settable_password(name: str) -> Rule:
    """The rule that the field `name` holds a password that may be set."""

    def require_settable(given: Given, request: StrictRequest) -> Iterator[Fault]:
        weakness = request.service(Passwords).weakness_of(given.get(name, ""))
        if weakness:
            yield field_fault(name, *PASSWORD_FAULTS[weakness])

    return require_settable


@dataclass(frozen=True)
class SessionService:
    """Opens sessions, renews their cookies, and revokes them. A session lives for `lifetime` and, where the
    clinic sets `idle_lifetime`, no longer than that without a request."""

    issuer: TokenIssuer
    admission: Admission
    lifetime: timedelta
    idle_lifetime: timedelta | None

    async def open(
        self, transaction: Transaction, request: StrictRequest, user: HolderRow
    ) -> tuple[UUID, list[Cookie]]:
        """Open a session of the user; returns its id and its two cookies."""
        token_id = uuid4()
        session = await sessions.add(
            transaction,
            user_id=user.id,
            refresh_jti=token_id,
            lifetime=self.lifetime,
            address=request.address,
            user_agent=request.headers.get("user-agent", "")[:MAX_USER_AGENT_LENGTH],
        )
        holder = Caller(id=user.id, email=user.email, role=user.role, session_id=session.id)
        max_age = int(self.lifetime.total_seconds())
        return session.id, self.cookies_of(holder, token_id, session.expires_at, max_age)

    async def renew(
        self, transaction: Transaction, session: RefreshRow, presented: UUID
    ) -> list[Cookie] | None:
        """Rotate the refresh token of a session (RFC 9700, 4.14.2); returns its new cookies, for the time
        that is left. None where the token `presented` is no longer accepted, because somebody may have copied
        it."""
        now = session.now.timestamp()
        used = {jti: at for jti, at in session.used_refreshes.items() if now - at <= REFRESH_REUSE_SECONDS}
        token_id = session.refresh_jti
        if presented == token_id:
            token_id = uuid4()
            await sessions.rotate(transaction, session, used, token_id)
        elif str(presented) not in used:
            return None
        holder = Caller(id=session.user_id, email=session.email, role=session.role, session_id=session.id)
        left = sessions.seconds_left(session.expires_at, session.now)
        return self.cookies_of(holder, token_id, session.expires_at, left)

    def cookies_of(self, holder: Caller, token_id: UUID, expires_at: datetime, max_age: int) -> list[Cookie]:
        """`token_id`, `expires_at` and `max_age` (seconds) are those of the refresh token."""
        access = self.issuer.issue_access(holder)
        refresh = self.issuer.issue_refresh(holder, token_id, expires_at)
        return [
            access_cookie(access, int(self.issuer.access_lifetime.total_seconds())),
            refresh_cookie(refresh, max_age),
        ]

    async def revoke(self, transaction: Transaction, *session_ids: UUID) -> Sequence[UUID]:
        """End these sessions. Like the other two, returns the ids of those that were alive, which every
        instance refuses as soon as the transaction is stored."""
        return self.leave_tombstones(transaction, await sessions.end(transaction, *session_ids))

    async def revoke_own(self, transaction: Transaction, user_id: UUID, session_id: UUID) -> Sequence[UUID]:
        """End the session if it is the user's and alive."""
        ended = await sessions.end_own(transaction, user_id, session_id, self.idle_lifetime)
        return self.leave_tombstones(transaction, ended)

    async def revoke_all(self, transaction: Transaction, user_id: UUID) -> Sequence[UUID]:
        """End every session of the user."""
        return self.leave_tombstones(transaction, await sessions.end_all(transaction, user_id))

    def leave_tombstones(self, transaction: Transaction, ended: Sequence[UUID]) -> Sequence[UUID]:
        """Once the transaction is stored, tell every instance that these sessions have ended."""
        if ended:
            transaction.after_commit(lambda: self.admission.end_sessions(ended))
        return ended
