"""Registering an account (requirement, section 1)."""

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID, uuid4

from litestar import Controller
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.params import JSONBody
from msgspec import UNSET, UnsetType

from api.accounts import (
    AccountSummary,
    Label,
    account_of,
    find_role_faults,
    require_settable_password,
    require_short_email,
    summary_of,
)
from api.http.auditing import record_write
from api.http.conditional import Tagged
from api.http.fields import Input, Name, NewPassword, Phone, SentEmail, or_none
from api.http.idempotency import IDEMPOTENCY_KEY, claim_key, is_claimed
from api.http.operation import post
from api.http.problems import Fault
from api.http.reauthorization import forget_ended_session
from api.http.requests import Given, StrictRequest
from persistence import registrations, users
from persistence.audit import Action
from persistence.models import AccountStatus
from persistence.postgres.database import Reader, Transaction
from security.passwords import Passwords
from security.policy import Authentication
from security.roles import Caller, Role


class Registration(Input):
    name: Name
    email: SentEmail
    password: NewPassword
    role: Role
    phone: Phone | UnsetType | None = UNSET
    specialization: Label | UnsetType | None = UNSET
    department: Label | UnsetType | None = UNSET


@dataclass(frozen=True)
class RegistrationPolicy:
    """People of the roles `auto_approved` may sign in as soon as they are registered."""

    auto_approved: frozenset[Role]

    def status_of(self, role: Role, registered_by: Caller | None) -> AccountStatus:
        """The status of a new account of `role`; an administrator approves by registering it."""
        by_admin = registered_by is not None and registered_by.role is Role.ADMIN
        return AccountStatus.ACTIVE if by_admin or role in self.auto_approved else AccountStatus.PENDING


def require_fields_of_role(given: Given, request: StrictRequest) -> Iterator[Fault]:
    yield from find_role_faults(given.get("role"), given)


async def show_again(
    transaction: Transaction, request: StrictRequest, account_id: UUID
) -> Tagged[AccountSummary]:
    """The account that an earlier request has registered, or 404."""
    row = await registrations.one(transaction, request.user.role, account_id)
    if row is None:
        raise NotFoundException("User not found")
    record_write(transaction, request, action=Action.ACCOUNT_READ, target_id=row.id)
    return Tagged(summary_of(row), whole=account_of(row))


class RegistrationController(Controller):
    @post(
        "/api/auth/register",
        operation_id="register",
        status_code=201,
        authentication=Authentication.OPTIONAL,
        action=Action.ACCOUNT_CREATE,
        rules=[require_short_email, require_fields_of_role, require_settable_password("password")],
        headers=IDEMPOTENCY_KEY,
    )
    async def register(
        self,
        data: JSONBody[Registration],
        request: StrictRequest,
        passwords: NamedDependency[Passwords],
        registration_policy: NamedDependency[RegistrationPolicy],
        reader: NamedDependency[Reader],
        transaction: NamedDependency[Transaction],
    ) -> Tagged[AccountSummary]:
        """201 for every role, also where an administrator must approve the account before it may sign in."""
        # Longer than other handlers by the columns of the new row, one a line.
        hashed = None if await is_claimed(request, reader) else await passwords.hash(data.password)
        await forget_ended_session(transaction, request)
        account_id = uuid4()
        if earlier := await claim_key(transaction, request, account_id):
            return await show_again(transaction, request, earlier)
        user = await users.add(
            transaction,
            id=account_id,
            name=data.name,
            email=users.normal_email(data.email),
            password_hash=hashed or await passwords.hash(data.password),
            role=data.role,
            phone=or_none(data.phone),
            specialization=or_none(data.specialization),
            department=or_none(data.department),
            status=registration_policy.status_of(data.role, request.caller),
        )
        record_write(transaction, request, target_id=user.id)
        return Tagged(summary_of(user), whole=account_of(user))
