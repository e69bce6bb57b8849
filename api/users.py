"""Accounts: the caller's own (requirement, section 2), and all of them for administrators and staff."""

from collections.abc import Iterator
from typing import Annotated, Literal

from litestar import Response
from litestar.di import NamedDependency
from litestar.exceptions import NotAuthorizedException, NotFoundException
from litestar.params import FromQuery, JSONBody
from msgspec import UNSET, Meta, UnsetType

from api.account_updates import AccountUpdates
from api.accounts import (
    Account,
    Label,
    SessionService,
    User,
    account_of,
    find_role_faults,
    require_settable_password,
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


WRONG_PASSWORD = "currentPassword: is not the current password"  # noqa: S105  # an error's detail
NULLABLE_FIELDS = frozenset({"phone", "specialization", "department"})
sent_fields = sent_fields_of(UserUpdate, users.UserChanges, NULLABLE_FIELDS)


def require_fields_of_own_role(given: Given, request: StrictRequest) -> Iterator[Fault]:
    yield from find_role_faults(request.user.role, given)


class UserController(AccountUpdates):
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
        sent = sent_fields(data)
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
