"""Accounts: the caller's own (requirement, section 2), and all of them for administrators and staff."""

from collections.abc import Iterator
from typing import Annotated, Literal

from litestar import Controller, Response
from litestar.di import NamedDependency
from litestar.exceptions import NotAuthorizedException, NotFoundException
from litestar.params import FromQuery, JSONBody
from msgspec import UNSET, Meta, UnsetType

from api.accounts import (
    Account,
    Label,
    SessionService,
    User,
    account_of,
    clear_fields_not_of_role,
    find_role_faults,
    require_settable_password,
    require_short_email,
    user_of,
)
from api.http.auditing import record_read, record_write
from api.http.conditional import IF_MATCH, Tagged, require_unchanged
from api.http.errors import BadRequest, InvalidInput
from api.http.fields import (
    MAX_PAGE_SIZE,
    AnyPassword,
    Count,
    Input,
    Limit,
    Message,
    Name,
    NewPassword,
    Output,
    Page,
    PathId,
    Phone,
    Search,
    SentEmail,
    path_id,
)
from api.http.operation import get, patch, post
from api.http.problems import ErrorCode, Fault
from api.http.reauthorization import require_signed_in
from api.http.requests import Given, StrictRequest
from api.http.structs import changed_fields, sent_fields_of
from persistence import users
from persistence.audit import Action, Outcome
from persistence.login_attempts import LoginAttempts
from persistence.models import AccountStatus
from persistence.postgres.database import Reader, Transaction
from security.guards import NOT_SIGNED_IN, requires
from security.passwords import Passwords
from security.policy import Counter
from security.roles import Role


class AccountPage(Output):
    users: Annotated[list[Account], Meta(max_length=MAX_PAGE_SIZE)]
    total: Count


class UserUpdate(Input):
    name: Name | UnsetType = UNSET
    phone: Phone | UnsetType | None = UNSET
    specialization: Label | UnsetType | None = UNSET
    department: Label | UnsetType | None = UNSET


class PasswordChange(Input):
    current_password: AnyPassword
    new_password: NewPassword


class PasswordReset(Input):
    new_password: NewPassword


class AccountUpdate(Input):
    status: AccountStatus | UnsetType = UNSET
    role: Role | UnsetType = UNSET
    name: Name | UnsetType = UNSET
    email: SentEmail | UnsetType = UNSET


WRONG_PASSWORD = "currentPassword: is not the current password"  # noqa: S105  # an error's detail
NULLABLE_FIELDS = frozenset({"phone", "specialization", "department"})
sent_fields_of_own = sent_fields_of(UserUpdate, users.UserChanges, NULLABLE_FIELDS)
sent_fields = sent_fields_of(AccountUpdate, users.UserChanges)
ADMITTING_FIELDS = frozenset({"status", "role"})  # which decide what the person may do
SESSION_FIELDS = ADMITTING_FIELDS | {"email"}  # of which a session knows


def require_fields_of_own_role(given: Given, request: StrictRequest) -> Iterator[Fault]:
    yield from find_role_faults(request.user.role, given)


def require_allowed_change(changed: users.UserChanges, *, last_admin: bool) -> None:
    """Raise 400 where an account would be pending again, and where no administrator would be left."""
    if changed.get("status") is AccountStatus.PENDING:
        raise BadRequest("status: an account never returns to pending", ErrorCode.NEVER_PENDING)
    if last_admin and ADMITTING_FIELDS & changed.keys():
        detail = "The last active administrator cannot be disabled or demoted"
        raise BadRequest(detail, ErrorCode.LAST_ADMIN)


def changes_to_store(data: AccountUpdate) -> users.UserChanges:
    """The fields that were sent, as they are stored."""
    sent = sent_fields(data)
    if "email" in sent:
        sent["email"] = users.normal_email(sent["email"])
    return sent


class UserController(Controller):
    path = "/api/users"

    @get("/me", operation_id="getMe")
    async def get_me(self, request: StrictRequest, reader: NamedDependency[Reader]) -> Tagged[User]:
        row = await users.one(reader, request.user.id)
        if row is None:
            raise NotAuthorizedException(NOT_SIGNED_IN)
        return Tagged(user_of(row))

    @patch(
        "/me",
        operation_id="updateMe",
        action=Action.ACCOUNT_UPDATE,
        rules=[require_fields_of_own_role],
        headers=IF_MATCH,
    )
    async def update_me(
        self,
        data: JSONBody[UserUpdate],
        request: StrictRequest,
        transaction: NamedDependency[Transaction],
    ) -> Tagged[User]:
        sent = sent_fields_of_own(data)
        current = await users.locked(transaction, request.user.id)
        if current is None:
            raise NotAuthorizedException(NOT_SIGNED_IN)
        if faults := list(find_role_faults(current.role, sent)):
            raise InvalidInput(faults)
        require_unchanged(request, Tagged(user_of(current)))
        row = await users.change(transaction, current, **changed_fields(sent, current))
        record_write(transaction, request, target_id=row.id)
        return Tagged(user_of(row))

    @post(
        "/me/password",
        operation_id="changeMyPassword",
        rules=[require_settable_password("newPassword")],
        status_code=200,
        counter=Counter.SAFEGUARD,
        action=Action.ACCOUNT_PASSWORD,
    )
    async def change_my_password(
        self,
        data: JSONBody[PasswordChange],
        request: StrictRequest,
        passwords: NamedDependency[Passwords],
        session_service: NamedDependency[SessionService],
        reader: NamedDependency[Reader],
        transaction: NamedDependency[Transaction],
    ) -> Response[Message]:
        """End the user's sessions, whose cookies somebody may have copied, and open a new one."""
        caller = request.user
        stored = await users.password_hash(reader, caller.id)
        if not await passwords.verify(data.current_password, stored):
            await record_read(request, Outcome.FAILURE, target_id=caller.id)
            raise BadRequest(WRONG_PASSWORD, ErrorCode.WRONG_PASSWORD)
        hashed = await passwords.hash(data.new_password)
        user = await users.lock_if_password_unchanged(transaction, caller.id, stored)
        await require_signed_in(transaction, request)  # 401 if another request has changed it
        if user is None:
            raise BadRequest(WRONG_PASSWORD, ErrorCode.WRONG_PASSWORD)
        await users.set_password(transaction, caller.id, hashed)
        await session_service.revoke_all(transaction, caller.id)
        session_id, cookies = await session_service.open(transaction, request, user)
        record_write(transaction, request, target_id=caller.id, target_ids=[session_id])
        return Response(Message("Password changed"), cookies=cookies)

    @get(operation_id="listUsers", action=Action.ACCOUNT_LIST, guards=[requires(Role.ADMIN, Role.STAFF)])
    async def list_users(
        self,
        request: StrictRequest,
        near_reader: NamedDependency[Reader],
        page: Page = 1,
        limit: Limit = 10,
        role: FromQuery[Role | None] = None,
        status: FromQuery[AccountStatus | None] = None,
        linked: FromQuery[Literal["true", "false"] | None] = None,
        search: Search = "",
    ) -> AccountPage:
        """Staff see patient accounts only, whatever they filter by."""
        rows, total, [ids] = await users.page(
            near_reader,
            request.user,
            page,
            limit,
            role=role,
            status=status,
            linked=None if linked is None else linked == "true",
            search=search,
        )
        await record_read(request, target_ids=ids)
        return AccountPage([account_of(row) for row in rows], total)

    @get(
        "/{id:str}",
        operation_id="getUser",
        action=Action.ACCOUNT_READ,
        guards=[requires(Role.ADMIN, Role.STAFF)],
    )
    async def get_user(
        self, id: PathId, request: StrictRequest, near_reader: NamedDependency[Reader]
    ) -> Tagged[Account]:
        """To staff, an account that is not a patient's is 404."""
        row = await users.readable(near_reader, request.user, path_id(id, "User"))
        if row is None:
            raise NotFoundException("User not found")
        await record_read(request, target_id=row.id)
        return Tagged(account_of(row))

    @patch(
        "/{id:str}",
        operation_id="updateUser",
        action=Action.ACCOUNT_UPDATE,
        changes_access=True,
        guards=[requires(Role.ADMIN)],
        rules=[require_short_email],
        headers=IF_MATCH,
    )
    async def update_user(
        self,
        id: PathId,
        data: JSONBody[AccountUpdate],
        request: StrictRequest,
        attempts: NamedDependency[LoginAttempts],
        session_service: NamedDependency[SessionService],
        transaction: NamedDependency[Transaction],
    ) -> Tagged[Account]:
        """Sessions end with a change of what they know of the account."""
        # Longer than other handlers by what else must change with an e-mail or a role.
        user_id, sent = path_id(id, "User"), changes_to_store(data)
        may_end_sessions = bool(SESSION_FIELDS & sent.keys())
        last_admin = may_end_sessions and await users.is_last_active_admin(transaction, user_id)
        current = await users.locked(transaction, user_id)
        await require_signed_in(transaction, request)
        if current is None:
            raise NotFoundException("User not found")
        changed = changed_fields(sent, current)
        require_allowed_change(changed, last_admin=last_admin)
        clear_fields_not_of_role(changed)
        row = await users.change(transaction, current, **changed)  # or 400: the e-mail is another account's
        require_unchanged(request, Tagged(account_of(current)))
        if "email" in changed:
            await attempts.forgive(transaction, current.email, row.email)
        if SESSION_FIELDS & changed.keys():
            await session_service.revoke_all(transaction, user_id)
        record_write(transaction, request, target_id=user_id)
        return Tagged(account_of(row))

    @post(
        "/{id:str}/password",
        operation_id="setUserPassword",
        rules=[require_settable_password("newPassword")],
        status_code=200,
        action=Action.ACCOUNT_PASSWORD,
        guards=[requires(Role.ADMIN)],
    )
    async def set_user_password(
        self,
        id: PathId,
        data: JSONBody[PasswordReset],
        request: StrictRequest,
        passwords: NamedDependency[Passwords],
        attempts: NamedDependency[LoginAttempts],
        session_service: NamedDependency[SessionService],
        reader: NamedDependency[Reader],
        transaction: NamedDependency[Transaction],
    ) -> Message:
        """End every session of the user."""
        user_id = path_id(id, "User")
        if await users.one(reader, user_id) is None:
            raise NotFoundException("User not found")
        hashed = await passwords.hash(data.new_password)
        await users.lock(transaction, request.user.id, user_id)
        await require_signed_in(transaction, request)
        email = await users.set_password(transaction, user_id, hashed)  # another than before, perhaps
        await attempts.forgive(transaction, email)
        await session_service.revoke_all(transaction, user_id)
        record_write(transaction, request, target_id=user_id)
        return Message("Password changed")
