"""The account that people link to a chart (requirement, section 3)."""

from litestar import Controller
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.params import JSONBody

from api.accounts import Account, account_of
from api.charts import Patient, chart_of, lock_chart, require_chart
from api.http.auditing import record_read, record_write
from api.http.conditional import IF_MATCH, Tagged, require_unchanged
from api.http.errors import BadRequest, Forbidden, NotFound
from api.http.fields import Id, Input, PathId, path_id
from api.http.operation import delete, get, put
from api.http.problems import ErrorCode
from api.http.requests import StrictRequest
from persistence import patients, users
from persistence.audit import Action
from persistence.models import AccountStatus
from persistence.postgres.database import Reader, Transaction
from security.guards import requires
from security.roles import Caller, Role


class AccountLink(Input):
    user_id: Id


def require_may_link(caller: Caller, ever_linked: bool) -> None:
    """Raise 403 where staff link a chart that was linked before: they could move it to an account of their
    own and read its records. So a `patient.link` by staff in the audit trail is always its first link."""
    if ever_linked and caller.role is not Role.ADMIN:
        raise Forbidden("This chart was linked before: only admin may link it again")


class LinkController(Controller):
    path = "/api/patients/{id:str}/account"

    @get(
        operation_id="getPatientAccount",
        action=Action.ACCOUNT_READ,
        guards=[requires(Role.ADMIN, Role.STAFF)],
    )
    async def get_patient_account(
        self, id: PathId, request: StrictRequest, reader: NamedDependency[Reader]
    ) -> Account:
        """Staff see patient accounts only; a linked account may have been given another role since."""
        chart = await require_chart(reader, request.user, path_id(id, "Patient"))
        row = chart.user_id and await users.one(reader, chart.user_id)
        if not row or (request.user.role is Role.STAFF and row.role is not Role.PATIENT):
            raise NotFoundException("User not found")
        await record_read(request, patient_id=chart.id, target_id=row.id)
        return account_of(row)

    @put(
        operation_id="linkPatientAccount",
        action=Action.PATIENT_LINK,
        changes_access=True,
        headers=IF_MATCH,
        guards=[requires(Role.ADMIN, Role.STAFF)],
    )
    async def link_patient_account(
        self,
        id: PathId,
        data: JSONBody[AccountLink],
        request: StrictRequest,
        transaction: NamedDependency[Transaction],
    ) -> Tagged[Patient]:
        """Staff link by hand. An equal e-mail address proves nothing, because nobody has verified it."""
        by, current = await lock_chart(transaction, request.user, id)
        link = await patients.link_of(transaction, current.id)
        require_may_link(request.user, link.ever_linked)
        user = await users.locked(transaction, data.user_id)
        if user is None:
            raise NotFound("User not found", field="userId")
        if link.user_id != user.id:
            if user.role is not Role.PATIENT or user.status is not AccountStatus.ACTIVE:
                raise BadRequest("userId: must be an active patient account", ErrorCode.NOT_A_PATIENT_ACCOUNT)
            if link.user_id is not None:
                raise BadRequest("This patient is linked to another account", ErrorCode.ALREADY_LINKED)
            await patients.link(transaction, current, user.id, by=by)  # or 400
        require_unchanged(request, chart_of(current))
        record_write(transaction, request, patient_id=current.id, target_id=user.id)
        return chart_of(current._replace(user_id=user.id))

    @delete(
        operation_id="unlinkPatientAccount",
        status_code=200,
        action=Action.PATIENT_UNLINK,
        changes_access=True,
        headers=IF_MATCH,
        guards=[requires(Role.ADMIN, Role.STAFF)],
    )
    async def unlink_patient_account(
        self, id: PathId, request: StrictRequest, transaction: NamedDependency[Transaction]
    ) -> Tagged[Patient]:
        by, current = await lock_chart(transaction, request.user, id)
        require_unchanged(request, chart_of(current))
        if current.user_id is not None:
            await patients.link(transaction, current, None, by=by)
        record_write(transaction, request, patient_id=current.id, target_id=current.user_id)
        return chart_of(current._replace(user_id=None))
