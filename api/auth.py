"""Signing in and out (requirement, section 1)."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from time import time
from typing import Annotated
from uuid import UUID, uuid4

from litestar import Controller, Response, post
from litestar.di import NamedDependency
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException, TooManyRequestsException
from litestar.middleware.rate_limit import RateLimitConfig
from litestar.params import JSONBody
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy.exc import IntegrityError

from api.errors import BadRequest, Unavailable, answer
from api.requests import StrictRequest
from api.schemas import (
    TEXT,
    AnyPassword,
    Email,
    Error,
    Id,
    Input,
    Message,
    Name,
    NewPassword,
    Output,
    Phone,
    or_none,
)
from api.trail import done, seen
from persistence import sessions, users
from persistence.audit import Action, Outcome
from persistence.database import AnyRow, Reader, Transaction
from persistence.models import AccountStatus
from security.admission import Admission, Count
from security.authentication import BY_REFRESH_TOKEN, EXEMPT, OPTIONAL, address_of
from security.cookies import ACCESS, access_cookie, cleared_cookies, read_cookie, refresh_cookie
from security.counters import UNAVAILABLE
from security.login_attempts import LoginAttempts
from security.passwords import MAX_BYTES, Passwords, is_common
from security.rate_limit import rate_limit_headers
from security.roles import Role
from security.tokens import Kind, TokenIssuer

SECOND_TAB = 30  # seconds within which a used refresh token is a second tab and not a thief
WAITING = {
    AccountStatus.PENDING: "This account is waiting for approval by an administrator",
    AccountStatus.DISABLED: "This account is disabled",
}

Label = Annotated[str, Meta(max_length=120, pattern=TEXT)]


class Credentials(Input):
    email: Annotated[str, Meta(min_length=1, max_length=254, pattern=TEXT)]
    password: AnyPassword


class AccountSummary(Output):
    id: Id
    email: Email
    name: Name
    role: Role


class LoginResult(Output):
    user: AccountSummary


class Registration(Input):
    name: Name
    email: Email
    password: NewPassword
    role: Role
    phone: Phone | UnsetType | None = UNSET
    specialization: Label | UnsetType | None = UNSET
    department: Label | UnsetType | None = UNSET


@dataclass(frozen=True)
class SignIn:
    """What signing in takes, put together by api/app.py."""

    passwords: Passwords
    attempts: LoginAttempts
    issuer: TokenIssuer
    admission: Admission
    session_lifetime: timedelta
    approved: frozenset[Role]
    refuses_common: bool


async def checked(
    sign_in: SignIn, reader: Reader, email: str, address: str, password: str
) -> tuple[AnyRow | None, bool]:
    """The account, and whether the password is its own. A slot whose password was never checked is given
    back."""
    try:
        user = await users.credentials(reader, email)
        right = await sign_in.passwords.verify(password, user.password_hash if user else None)
    except Exception:
        await sign_in.attempts.give_back(email, address)
        raise
    return user, right


async def failed(request: StrictRequest, user: AnyRow | None, count: Count) -> None:
    """Store the failure and, with the last attempt, that the e-mail is locked now. What was typed is not
    stored where no account has it: it may be a password in the wrong field."""
    target = user.id if user else None
    await seen(request, Outcome.FAILURE, user=user, target_id=target)
    if count.remaining == 0:
        await seen(request, Outcome.REFUSED, action=Action.AUTH_LOCK, user=user, target_id=target)


async def slot(sign_in: SignIn, email: str, address: str) -> Count:
    try:
        count = await sign_in.attempts.take(email, address)
    except UNAVAILABLE as error:
        raise Unavailable("Sign-in is unavailable right now. Please try again shortly.", 5) from error
    if count.exceeded:
        minutes = max(1, ceil(count.reset / 60))
        headers = {**login_headers(sign_in, count), "Retry-After": str(count.reset)}
        raise TooManyRequestsException(
            f"Too many failed attempts. Please try again in {minutes} minute(s).", headers=headers
        )
    return count


def login_headers(sign_in: SignIn, count: Count) -> dict[str, str]:
    config = RateLimitConfig(rate_limit=("minute", count.limit))
    return rate_limit_headers(count, config, sign_in.attempts.window)


def suits_role(role: Role, specialization: str | None, department: str | None) -> None:
    """Raise 400 where a person of another role is given what only doctors, or only staff, have."""
    if specialization and role is not Role.DOCTOR:
        raise BadRequest("specialization: only a doctor has one")
    if department and role is not Role.STAFF:
        raise BadRequest("department: only staff have one")


def acceptable(sign_in: SignIn, password: str, field: str = "password") -> str:
    """The password; 400 if bcrypt would not read all of it or, where the clinic refuses those, it is one of
    the most common ones."""
    if len(password.encode()) > MAX_BYTES:
        raise BadRequest(f"{field}: must be at most {MAX_BYTES} bytes of UTF-8")
    if sign_in.refuses_common and is_common(password):
        raise BadRequest(f"{field}: is one of the most common passwords; choose another")
    return password


class AuthController(Controller):
    path = "/api/auth"

    @post("/login", operation_id="login", status_code=200, opt={**EXEMPT}, action=Action.AUTH_LOGIN)
    async def login(
        self,
        data: JSONBody[Credentials],
        request: StrictRequest,
        sign_in: NamedDependency[SignIn],
        reader: NamedDependency[Reader],
        transaction: NamedDependency[Transaction],
    ) -> Response[LoginResult]:
        """Take the same time, and count the same, whether or not the account exists."""
        email = users.normal_email(data.email)
        address = address_of(request)
        count = await slot(sign_in, email, address)
        user, right = await checked(sign_in, reader, email, address, data.password)
        # Asked again in the transaction: a password that changed meanwhile has ended its sessions already.
        if (
            user is None
            or not right
            or not await users.keeps_password(transaction, user.id, user.password_hash)
        ):
            await failed(request, user, count)
            raise NotAuthorizedException("Invalid email or password", headers=login_headers(sign_in, count))
        if user.status in WAITING:
            await seen(request, Outcome.REFUSED, user=user, target_id=user.id)
            raise PermissionDeniedException(WAITING[user.status], headers=login_headers(sign_in, count))
        with suppress(*UNAVAILABLE):  # the right password is enough, even if the count must wait to lapse
            await sign_in.attempts.clear(email, address)

        token_id = uuid4()
        session = await sessions.add(
            transaction,
            user_id=user.id,
            refresh_jti=token_id,
            lifetime=sign_in.session_lifetime,
            address=address,
            user_agent=request.headers.get("user-agent", "")[:400],
        )
        await done(transaction, request, user=user, target_id=session.id)
        holder = (user.id, user.email, user.role, session.id)
        return Response(
            LoginResult(AccountSummary(user.id, user.email, user.name, user.role)),
            headers=login_headers(sign_in, Count(0, count.limit, sign_in.attempts.window)),
            cookies=[
                access_cookie(
                    sign_in.issuer.access(*holder), int(sign_in.issuer.access_lifetime.total_seconds())
                ),
                refresh_cookie(
                    sign_in.issuer.refresh(*holder, token_id, session.expires_at),
                    int(sign_in.session_lifetime.total_seconds()),
                ),
            ],
        )

    @post(
        "/register", operation_id="register", status_code=201, opt={**OPTIONAL}, action=Action.ACCOUNT_CREATE
    )
    async def register(
        self,
        data: JSONBody[Registration],
        request: StrictRequest,
        sign_in: NamedDependency[SignIn],
        transaction: NamedDependency[Transaction],
    ) -> AccountSummary:
        """201 for every role; whether the account may sign in at once is another matter."""
        specialization, department = or_none(data.specialization), or_none(data.department)
        suits_role(data.role, specialization, department)
        hashed = await sign_in.passwords.hash(acceptable(sign_in, data.password))
        by_admin = request.scope.get("user") is not None and request.user.role is Role.ADMIN
        active = by_admin or data.role in sign_in.approved
        try:
            user = await users.add(
                transaction,
                name=data.name,
                email=users.normal_email(data.email),
                password_hash=hashed,
                role=data.role,
                phone=or_none(data.phone),
                specialization=specialization,
                department=department,
                status=AccountStatus.ACTIVE if active else AccountStatus.PENDING,
            )
        except IntegrityError as error:
            raise BadRequest("Email already registered") from error
        await done(transaction, request, target_id=user.id)
        return AccountSummary(user.id, user.email, user.name, user.role)

    @post(
        "/refresh",
        operation_id="refresh",
        status_code=200,
        opt={**BY_REFRESH_TOKEN},
        action=Action.AUTH_REUSE,
    )
    async def refresh(
        self,
        request: StrictRequest,
        sign_in: NamedDependency[SignIn],
        transaction: NamedDependency[Transaction],
    ) -> Response[Message] | Response[Error]:
        """Yield an access token, and rotate the refresh token (RFC 9700, 4.14.2)."""
        token = request.auth.token
        session = await sessions.locked(transaction, request.user.session_id)
        if token is None or session is None:
            raise NotAuthorizedException("Not authenticated")
        holder = (session.user_id, session.email, session.role, session.id)
        cookies = [
            access_cookie(sign_in.issuer.access(*holder), int(sign_in.issuer.access_lifetime.total_seconds()))
        ]
        now = time()
        used = {jti: at for jti, at in session.used_refreshes.items() if now - at <= SECOND_TAB}
        if token.token_id == session.refresh_jti:
            token_id = uuid4()
            await sessions.rotate(transaction, session.id, token_id, {**used, str(token.token_id): now})
            left = sessions.seconds_left(session.expires_at, datetime.now(UTC))
            cookies.append(
                refresh_cookie(sign_in.issuer.refresh(*holder, token_id, session.expires_at), left)
            )
        elif str(token.token_id) not in used:
            end_everywhere(transaction, sign_in.admission, await sessions.end(transaction, session.id))
            await done(transaction, request, outcome=Outcome.FAILURE, target_id=session.id)
            return answer(NotAuthorizedException("Not authenticated"))  # not raised: the end is to be stored
        return Response(Message("Token refreshed"), cookies=cookies)

    @post("/logout", operation_id="logout", status_code=200, opt={**OPTIONAL}, action=Action.AUTH_LOGOUT)
    async def logout(
        self,
        request: StrictRequest,
        sign_in: NamedDependency[SignIn],
        transaction: NamedDependency[Transaction],
    ) -> Response[Message]:
        """End the session of a validly signed access token, expired or not; 200 whatever came."""
        cookie = read_cookie(request.scope["headers"], ACCESS)
        token = sign_in.issuer.read(cookie, Kind.ACCESS, expired=True)
        if token is not None:
            ended = await sessions.end(transaction, token.session_id)
            end_everywhere(transaction, sign_in.admission, ended)
            if ended:
                user = await users.one(transaction, token.user_id)
                await done(transaction, request, user=user, target_id=token.session_id)
        return Response(Message("Logged out successfully"), cookies=cleared_cookies())


def end_everywhere(transaction: Transaction, admission: Admission, ended: Sequence[UUID]) -> None:
    """Leave tombstones for sessions that this transaction has ended, once it is stored."""
    if ended:
        transaction.after_commit(lambda: admission.end(ended))
