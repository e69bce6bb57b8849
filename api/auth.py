"""Signing in and out (requirement, section 1)."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import Annotated
from uuid import uuid4

from litestar import Controller, Response
from litestar.di import NamedDependency
from litestar.exceptions import NotAuthorizedException
from litestar.params import JSONBody
from msgspec import UNSET, Meta, UnsetType

from api.accounts import Label, SignIn, acceptable, end_everywhere, opened_session, unsuited
from api.http.auditing import record_read, record_write
from api.http.errors import Forbidden, TooMany, Unauthorized, Unavailable, answer
from api.http.fields import (
    MAX_EMAIL,
    NOT_BLANK,
    VISIBLE,
    AnyPassword,
    Email,
    Id,
    Input,
    Message,
    Name,
    NewPassword,
    Output,
    Phone,
    SentEmail,
    or_none,
)
from api.http.operation import post
from api.http.problems import ErrorCode, Fault
from api.http.reauthorization import is_still_signed_in
from api.http.requests import Given, StrictRequest
from api.http.violations import of_field
from persistence import sessions, users
from persistence.audit import Action, Outcome
from persistence.models import AccountStatus
from persistence.postgres.database import Reader, Transaction
from persistence.postgres.statements import AnyRow
from security.admission import Count
from security.availability import UNAVAILABLE, BusyError
from security.cookies import ACCESS, access_cookie, cleared_cookies, read_cookies, refresh_cookie
from security.login_attempts import Attempt
from security.policy import Authentication
from security.rate_limit import rate_limit_headers
from security.roles import Role
from security.tokens import Kind

SECOND_TAB = 30  # seconds within which a used refresh token is a second tab or a lost answer, and no thief
INVALID = "Invalid email or password", ErrorCode.INVALID_CREDENTIALS
WAITING = {
    AccountStatus.PENDING: (
        "This account is waiting for approval by an administrator",
        ErrorCode.ACCOUNT_PENDING,
    ),
    AccountStatus.DISABLED: ("This account is disabled", ErrorCode.ACCOUNT_DISABLED),
}


class Credentials(Input):
    email: Annotated[
        str, Meta(min_length=1, max_length=MAX_EMAIL, pattern=NOT_BLANK, extra_json_schema=VISIBLE)
    ]
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
    email: SentEmail
    password: NewPassword
    role: Role
    phone: Phone | UnsetType | None = UNSET
    specialization: Label | UnsetType | None = UNSET
    department: Label | UnsetType | None = UNSET


async def failed(request: StrictRequest, user: AnyRow | None, count: Count) -> None:
    """Store the failure and, with the last attempt, that the e-mail is locked now. What was typed is not
    stored where no account has it: it may be a password in the wrong field."""
    target = user.id if user else None
    await record_read(request, Outcome.FAILURE, user=user, target_id=target)
    if count.remaining == 0:
        await record_read(request, Outcome.REFUSED, action=Action.AUTH_LOCK, user=user, target_id=target)


@contextmanager
def counting() -> Iterator[None]:
    """503 where the attempts cannot be counted: then nobody signs in."""
    try:
        yield
    except (*UNAVAILABLE, BusyError) as error:
        raise Unavailable("Sign-in is unavailable right now. Please try again shortly.", 5) from error


async def slot(transaction: Transaction, sign_in: SignIn, email: str, address: str) -> Attempt:
    """An attempt to sign in, which is given back however the request ends, unless it is kept or cleared."""
    with counting():
        attempt = await sign_in.attempts.take(email, address)
    count = attempt.count
    if count.exceeded:
        minutes = max(1, ceil(count.reset / 60))
        headers = {**rate_limit_headers(count), "Retry-After": str(count.reset)}
        detail = f"Too many failed attempts. Please try again in {minutes} minute(s)."
        raise TooMany(detail, ErrorCode.TOO_MANY_FAILED_ATTEMPTS, headers=headers)
    transaction.unless_committed(lambda: sign_in.attempts.give_back(attempt))
    return attempt


async def kept(sign_in: SignIn, attempt: Attempt) -> None:
    with counting():
        await sign_in.attempts.keep(attempt)


def short_enough(given: Given, request: StrictRequest) -> Iterator[Fault]:
    """A lower-case letter may be longer: "İ" becomes two."""
    if len(users.normal_email(given.get("email", ""))) > MAX_EMAIL:
        detail = f"must have at most {MAX_EMAIL} characters in lower case"
        yield of_field("email", ErrorCode.TOO_LONG, detail)


def of_its_role(given: Given, request: StrictRequest) -> Iterator[Fault]:
    yield from unsuited(given.get("role"), given)


class AuthController(Controller):
    path = "/api/auth"

    @post(
        "/login",
        operation_id="login",
        status_code=200,
        authentication=Authentication.NONE,
        action=Action.AUTH_LOGIN,
    )
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
        attempt = await slot(transaction, sign_in, email, request.address)
        found = await users.credentials(reader, email)
        right = await sign_in.passwords.verify(data.password, found.password_hash if found else None)
        user, count = None, attempt.count
        if found is not None and right:
            # As it is now: whoever changed it while the password was checked has ended its sessions already.
            user = await users.keeping_password(transaction, found.id, found.password_hash)
        if user is None:
            await failed(request, found, count)
            await kept(sign_in, attempt)
            raise Unauthorized(*INVALID, headers=rate_limit_headers(count))
        if user.status in WAITING:
            await record_read(request, Outcome.REFUSED, user=user, target_id=user.id)
            await kept(sign_in, attempt)
            raise Forbidden(*WAITING[user.status], headers=rate_limit_headers(count))
        transaction.after_commit(lambda: sign_in.attempts.clear(attempt))
        session_id, cookies = await opened_session(transaction, request, sign_in, user)
        record_write(transaction, request, user=user, target_id=session_id)
        return Response(
            LoginResult(AccountSummary(user.id, user.email, user.name, user.role)),
            headers=rate_limit_headers(Count(0, count.limit, count.window, count.window)),
            cookies=cookies,
        )

    @post(
        "/register",
        operation_id="register",
        status_code=201,
        authentication=Authentication.OPTIONAL,
        action=Action.ACCOUNT_CREATE,
        rules=[short_enough, of_its_role, acceptable("password")],
    )
    async def register(
        self,
        data: JSONBody[Registration],
        request: StrictRequest,
        sign_in: NamedDependency[SignIn],
        transaction: NamedDependency[Transaction],
    ) -> AccountSummary:
        """201 for every role; whether the account may sign in at once is another matter."""
        hashed = await sign_in.passwords.hash(data.password)
        if not await is_still_signed_in(transaction, request):  # a session that died meanwhile is no session
            request.set_caller(None)
        by_admin = request.caller is not None and request.caller.role is Role.ADMIN
        active = by_admin or data.role in sign_in.approved
        user = await users.add(
            transaction,
            name=data.name,
            email=users.normal_email(data.email),
            password_hash=hashed,
            role=data.role,
            phone=or_none(data.phone),
            specialization=or_none(data.specialization),
            department=or_none(data.department),
            status=AccountStatus.ACTIVE if active else AccountStatus.PENDING,
        )
        record_write(transaction, request, target_id=user.id)
        return AccountSummary(user.id, user.email, user.name, user.role)

    @post(
        "/refresh",
        operation_id="refresh",
        status_code=200,
        authentication=Authentication.REFRESH_TOKEN,
        manages_session=True,
        action=Action.AUTH_REUSE,
    )
    async def refresh(
        self,
        request: StrictRequest,
        sign_in: NamedDependency[SignIn],
        transaction: NamedDependency[Transaction],
    ) -> Response[Message] | Response[bytes]:
        """Yield an access token, and rotate the refresh token (RFC 9700, 4.14.2)."""
        token = request.auth.token
        session = await sessions.locked(transaction, request.user.session_id)
        if token is None or session is None:
            raise NotAuthorizedException("Not authenticated")
        now = session.now.timestamp()
        used = {jti: at for jti, at in session.used_refreshes.items() if now - at <= SECOND_TAB}
        current = session.refresh_jti
        if token.token_id == current:
            current = uuid4()
            await sessions.rotate(transaction, session, used, current)
        elif str(token.token_id) not in used:
            end_everywhere(transaction, sign_in.admission, await sessions.end(transaction, session.id))
            record_write(transaction, request, outcome=Outcome.FAILURE, target_id=session.id)
            # Not raised: the end is to be stored.
            return answer(request, NotAuthorizedException("Not authenticated"))
        holder = (session.user_id, session.email, session.role, session.id)
        left = sessions.seconds_left(session.expires_at, session.now)
        access = sign_in.issuer.access(*holder)
        refresh = sign_in.issuer.refresh(*holder, current, session.expires_at)
        cookies = [
            access_cookie(access, int(sign_in.issuer.access_lifetime.total_seconds())),
            refresh_cookie(refresh, left),
        ]
        return Response(Message("Token refreshed"), cookies=cookies)

    @post(
        "/logout",
        operation_id="logout",
        status_code=200,
        authentication=Authentication.NONE,
        action=Action.AUTH_LOGOUT,
    )
    async def logout(
        self,
        request: StrictRequest,
        sign_in: NamedDependency[SignIn],
        transaction: NamedDependency[Transaction],
    ) -> Response[Message]:
        """End the session of every validly signed access token, expired or not; 200 whatever came. Somebody
        may have planted one of several, and nobody can say which."""
        values = read_cookies(request.scope["headers"], ACCESS)
        tokens = [sign_in.issuer.read(value.strip('"'), Kind.ACCESS, expired=True) for value in values]
        known = {token.session_id: token for token in tokens if token is not None}
        if known:
            await users.lock(transaction, *{token.user_id for token in known.values()})
            ended = await sessions.end(transaction, *known)
            end_everywhere(transaction, sign_in.admission, ended)
            for session in ended:
                user = await users.one(transaction, known[session].user_id)
                record_write(transaction, request, user=user, session_id=session, target_id=session)
        return Response(Message("Logged out successfully"), cookies=cleared_cookies())
