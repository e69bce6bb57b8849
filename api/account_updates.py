"""An account, changed by an administrator: let in, disabled, given another role, name or e-mail."""

from collections.abc import Iterator
from typing import Literal
from uuid import UUID

from litestar import Controller
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.params import JSONBody
from msgspec import UNSET, UnsetType

from api.accounts import Account, SessionService, account_of, clear_fields_not_of_role, require_short_email
from api.clinic import Clinic
from api.handovers import TO_ONESELF, Handover, Reassignment, carry_out, heir_of, judge, lock
from api.http.auditing import record_write
from api.http.conditional import IF_MATCH, Tagged, require_unchanged
from api.http.errors import BadRequest
from api.http.fields import Input, Name, PathId, SentEmail, path_id
from api.http.operation import patch
from api.http.problems import ErrorCode, Fault
from api.http.reauthorization import require_signed_in
from api.http.requests import Given, StrictRequest
from api.http.structs import changed_fields, sent_fields_of
from api.http.violations import field_fault
from persistence import users
from persistence.audit import Action
from persistence.login_attempts import LoginAttempts
from persistence.models import AccountStatus
from persistence.postgres.database import Transaction
from security.guards import requires
from security.roles import Role


class AccountUpdate(Input):
    status: AccountStatus | UnsetType = UNSET
    role: Role | UnsetType = UNSET
    name: Name | UnsetType = UNSET
    email: SentEmail | UnsetType = UNSET
    appointments: Literal["keep", "cancel"] | Reassignment | UnsetType = UNSET


sent_fields = sent_fields_of(AccountUpdate, users.UserChanges, others=frozenset({"appointments"}))
ONLY_WHO_LEAVES = "goes with a change that disables a doctor or gives them another role"
ADMITTING_FIELDS = frozenset({"status", "role"})  # which decide what the person may do
SESSION_FIELDS = ADMITTING_FIELDS | {"email"}  # of which a session knows


def require_departure(given: Given, request: StrictRequest) -> Iterator[Fault]:
    """Nothing is said of appointments that stay with their doctor, nor are they reassigned to them."""
    asked = given.get("appointments")
    if asked is not None and given.get("status") is not AccountStatus.DISABLED and "role" not in given:
        yield field_fault("appointments", ErrorCode.NOT_LEAVING, ONLY_WHO_LEAVES)
    if isinstance(asked, Reassignment) and str(asked.reassign_to) == request.path_params["id"].lower():
        yield field_fault("appointments/reassignTo", ErrorCode.SAME_DOCTOR, TO_ONESELF)


def require_leaving(data: AccountUpdate, current: users.UserRow, changed: users.UserChanges) -> None:
    """Raise 400 where something is said of the appointments of somebody who was no doctor, or remains one."""
    is_leaving = "role" in changed or changed.get("status") is AccountStatus.DISABLED
    if data.appointments is not UNSET and not (current.role is Role.DOCTOR and is_leaving):
        raise BadRequest(f"appointments: {ONLY_WHO_LEAVES}", ErrorCode.NOT_LEAVING)


def handover_of(doctor_id: UUID, data: AccountUpdate) -> Handover | None:
    """None where the appointments stay as they are."""
    asked = data.appointments
    return None if isinstance(asked, UnsetType) or asked == "keep" else Handover(doctor_id, heir_of(asked))


def heirs_of(handover: Handover | None) -> list[UUID]:
    return [handover.heir_id] if handover and handover.heir_id else []


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


class AccountUpdates(Controller):
    """A part of UserController: Litestar wants all methods of one path in one controller."""

    @patch(
        "/{id:str}",
        operation_id="updateUser",
        action=Action.ACCOUNT_UPDATE,
        changes_access=True,
        guards=[requires(Role.ADMIN)],
        rules=[require_short_email, require_departure],
        headers=IF_MATCH,
    )
    async def update_user(
        self,
        id: PathId,
        data: JSONBody[AccountUpdate],
        request: StrictRequest,
        attempts: NamedDependency[LoginAttempts],
        clinic: NamedDependency[Clinic],
        session_service: NamedDependency[SessionService],
        transaction: NamedDependency[Transaction],
    ) -> Tagged[Account]:
        """Sessions end with a change of what they know of the account."""
        # Longer than other handlers by what else must change with an e-mail or a role.
        user_id, sent = path_id(id, "User"), changes_to_store(data)
        handover = handover_of(user_id, data)
        coming = await lock(transaction, request, handover) if handover else []
        last_admin = bool(SESSION_FIELDS & sent.keys()) and await users.is_last_active_admin(
            transaction, user_id, *heirs_of(handover)
        )
        current = await users.locked(transaction, user_id)
        await require_signed_in(transaction, request)
        if current is None:
            raise NotFoundException("User not found")
        changed = changed_fields(sent, current)
        require_allowed_change(changed, last_admin=last_admin)
        require_leaving(data, current, changed)
        outcome = await judge(transaction, handover, coming, clinic) if handover else None
        clear_fields_not_of_role(changed)
        row = await users.change(transaction, current, **changed)  # or 400: the e-mail is another account's
        require_unchanged(request, Tagged(account_of(current)))
        if "email" in changed:
            await attempts.forgive(transaction, current.email, row.email)
        if SESSION_FIELDS & changed.keys():
            await session_service.revoke_all(transaction, user_id)
        record_write(transaction, request, target_id=user_id)
        if handover and outcome:
            await carry_out(transaction, request, handover, outcome)
        return Tagged(account_of(row))
