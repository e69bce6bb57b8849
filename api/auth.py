"""Signing in and out (requirement, section 1)."""

from math import ceil
from typing import Annotated

from litestar import Controller, Response
from litestar.di import NamedDependency
from litestar.exceptions import NotAuthorizedException
from litestar.params import JSONBody
from msgspec import Meta

from api.accounts import AccountSummary, SessionService, summary_of
from api.http.auditing import record_read, record_write
from api.http.errors import Forbidden, TooManyRequests, Unauthorized, error_response
from api.http.fields import (
    MAX_EMAIL_LENGTH,
    NOT_BLANK,
    VISIBLE_ONLY,
    AnyPassword,
    Input,
    Message,
    Output,
)
from api.http.operation import post
from api.http.problems import ErrorCode
from api.http.requests import StrictRequest
from persistence import sessions, users
from persistence.audit import Action, Outcome
from persistence.login_attempts import Attempt, LoginAttempts
from persistence.models import AccountStatus
from persistence.postgres.database import Reader, Transaction
from persistence.users import CredentialsRow, HolderRow
from security.admission import Count
from security.cookies import ACCESS, cleared_cookies, read_cookies
from security.guards import NOT_SIGNED_IN
from security.passwords import Passwords
from security.policy import Authentication
from security.rate_limit import rate_limit_headers
from security.tokens import TokenKind

INVALID_CREDENTIALS = "Invalid email or password", ErrorCode.INVALID_CREDENTIALS
INACTIVE_ACCOUNT_ERRORS = {
    AccountStatus.PENDING: (
        "This account is waiting for approval by an administrator",
        ErrorCode.ACCOUNT_PENDING,
    ),
    AccountStatus.DISABLED: ("This account is disabled", ErrorCode.ACCOUNT_DISABLED),
}


class Credentials(Input):
    email: Annotated[
        str,
        Meta(min_length=1, max_length=MAX_EMAIL_LENGTH, pattern=NOT_BLANK, extra_json_schema=VISIBLE_ONLY),
    ]
    password: AnyPassword


class LoginResult(Output):
    user: AccountSummary


async def take_attempt(
    transaction: Transaction, attempts: LoginAttempts, email: str, address: str
) -> Attempt:
    """An attempt to sign in, or 429. However the request ends, it is given back unless kept or cleared."""
    attempt = await attempts.take(email, address)
    count = attempt.count
    if count.is_exceeded:
        minutes = max(1, ceil(count.reset / 60))
        headers = {**rate_limit_headers(count), "Retry-After": str(count.reset)}
        detail = f"Too many failed attempts. Please try again in {minutes} minute(s)."
        raise TooManyRequests(detail, ErrorCode.TOO_MANY_FAILED_ATTEMPTS, headers=headers)
    transaction.unless_committed(lambda: attempts.give_back(attempt))
    return attempt


async def verify_credentials(
    transaction: Transaction, reader: Reader, passwords: Passwords, email: str, password: str
) -> tuple[CredentialsRow | None, HolderRow | None]:
    """The account with this e-mail address, and, if the password is right, the same account as it is now."""
    found = await users.credentials(reader, email)
    is_right = await passwords.verify(password, found.password_hash if found else None)
    if found is None or not is_right:
        return found, None
    # Another request may have changed the password or the e-mail meanwhile, and so ended every session.
    user = await users.lock_if_password_unchanged(transaction, found.id, found.password_hash)
    return found, user if user and user.email == found.email else None


async def record_failure(request: StrictRequest, found: CredentialsRow | None, count: Count) -> None:
    """Store the failure and, with the last attempt, that the e-mail address is locked. An address without an
    account is not stored: somebody may have typed a password into the wrong field."""
    target = found.id if found else None
    await record_read(request, Outcome.FAILURE, user=found, target_id=target)
    if count.remaining == 0:
        await record_read(request, Outcome.REFUSED, action=Action.AUTH_LOCK, user=found, target_id=target)


async def require_may_sign_in(
    request: StrictRequest,
    attempts: LoginAttempts,
    attempt: Attempt,
    found: CredentialsRow | None,
    user: HolderRow | None,
) -> HolderRow:
    """The user, as verify_credentials found them, if they may sign in. Otherwise store and count the failure,
    and raise 401 or 403."""
    headers = rate_limit_headers(attempt.count)
    if user is None:
        await record_failure(request, found, attempt.count)
        await attempts.keep(attempt)
        raise Unauthorized(*INVALID_CREDENTIALS, headers=headers)
    if user.status in INACTIVE_ACCOUNT_ERRORS:
        await record_read(request, Outcome.REFUSED, user=user, target_id=user.id)
        await attempts.keep(attempt)
        raise Forbidden(*INACTIVE_ACCOUNT_ERRORS[user.status], headers=headers)
    return user


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
        passwords: NamedDependency[Passwords],
        attempts: NamedDependency[LoginAttempts],
        session_service: NamedDependency[SessionService],
        reader: NamedDependency[Reader],
        transaction: NamedDependency[Transaction],
    ) -> Response[LoginResult]:
        """Take the same time, and count the same, whether or not the account exists."""
        email = users.normal_email(data.email)
        attempt = await take_attempt(transaction, attempts, email, request.address)
        found, current = await verify_credentials(transaction, reader, passwords, email, data.password)
        user = await require_may_sign_in(request, attempts, attempt, found, current)
        transaction.after_commit(lambda: attempts.clear(attempt))
        session_id, cookies = await session_service.open(transaction, request, user)
        record_write(transaction, request, user=user, target_id=session_id)
        limit, window = attempt.count.limit, attempt.count.window
        return Response(
            LoginResult(summary_of(user)),
            headers=rate_limit_headers(Count(0, limit, window, window)),
            cookies=cookies,
        )

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
        session_service: NamedDependency[SessionService],
        transaction: NamedDependency[Transaction],
    ) -> Response[Message] | Response[bytes]:
        """Give a new access token, and a new refresh token for the one that was sent."""
        token = request.auth.token
        session = await sessions.locked(transaction, request.user.session_id)
        if token is None or session is None:
            raise NotAuthorizedException(NOT_SIGNED_IN)
        cookies = await session_service.renew(transaction, session, token.token_id)
        if cookies is None:
            await session_service.revoke(transaction, session.id)
            record_write(transaction, request, outcome=Outcome.FAILURE, target_id=session.id)
            # Returned and not raised: an exception would roll the end of the session back.
            return error_response(request, NotAuthorizedException(NOT_SIGNED_IN))
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
        session_service: NamedDependency[SessionService],
        transaction: NamedDependency[Transaction],
    ) -> Response[Message]:
        """End the session of every validly signed access token, expired or not; 200 whatever was sent. If
        there are several, somebody may have planted one of them, and the service cannot tell which."""
        values = read_cookies(request.scope["headers"], ACCESS)
        tokens = [
            session_service.issuer.read(value.strip('"'), TokenKind.ACCESS, expired=True) for value in values
        ]
        known = {token.session_id: token for token in tokens if token is not None}
        if known:
            await users.lock(transaction, *{token.user_id for token in known.values()})
            for session_id in await session_service.revoke(transaction, *known):
                user = await users.one(transaction, known[session_id].user_id)
                record_write(transaction, request, user=user, session_id=session_id, target_id=session_id)
        return Response(Message("Logged out successfully"), cookies=cleared_cookies())
