"""Charts that may be of the person who is about to get one."""

from typing import Annotated

from litestar import Controller
from litestar.di import NamedDependency
from litestar.params import QueryParameter
from msgspec import Meta

from api.charts import PatientSummary, summary_of
from api.http.auditing import record_read
from api.http.errors import InvalidInput
from api.http.fields import MAX_EMAIL_LENGTH, MAX_PHONE_LENGTH, MAX_SEARCH_LENGTH, TEXT, Day, Output
from api.http.operation import get
from api.http.problems import ErrorCode, Fault
from api.http.requests import StrictRequest
from persistence.audit import Action
from persistence.duplicates import candidates
from persistence.duplicates.candidates import MAX_DUPLICATES
from persistence.duplicates.likeness import Likeness, MatchedField
from persistence.duplicates.sought import Sought
from persistence.postgres.database import Reader
from security.guards import requires
from security.roles import Role


class Duplicate(Output):
    patient: PatientSummary
    score: Annotated[float, Meta(ge=0, le=1)]
    matched: Annotated[
        list[MatchedField],
        Meta(min_length=1, max_length=len(MatchedField), extra_json_schema={"uniqueItems": True}),
    ]


class DuplicateList(Output):
    duplicates: Annotated[list[Duplicate], Meta(max_length=MAX_DUPLICATES)]


def duplicate_of(likeness: Likeness) -> Duplicate:
    return Duplicate(summary_of(likeness.row), likeness.score, likeness.matched)


def require_one(sought: Sought) -> None:
    """Raise 400 where nothing was asked for."""
    if sought.is_nobody:
        detail = "is required, unless dateOfBirth, email or phone is given"
        raise InvalidInput([Fault(parameter="name", code=ErrorCode.REQUIRED, detail=detail)])


class DuplicateController(Controller):
    @get(
        "/api/patients/duplicates",
        operation_id="listPatientDuplicates",
        action=Action.PATIENT_DUPLICATES,
        guards=[requires(Role.ADMIN, Role.STAFF)],
    )
    async def list_patient_duplicates(
        self,
        request: StrictRequest,
        reader: NamedDependency[Reader],  # the primary, which has the chart that a colleague made just now
        name: Annotated[
            str,
            Meta(max_length=MAX_SEARCH_LENGTH, pattern=TEXT),
            QueryParameter(max_length=MAX_SEARCH_LENGTH, pattern=TEXT),
        ] = "",
        date_of_birth: Annotated[Day | None, QueryParameter(name="dateOfBirth")] = None,
        email: Annotated[
            str,
            Meta(max_length=MAX_EMAIL_LENGTH, pattern=TEXT),
            QueryParameter(max_length=MAX_EMAIL_LENGTH, pattern=TEXT),
        ] = "",
        phone: Annotated[
            str,
            Meta(max_length=MAX_PHONE_LENGTH, pattern=TEXT),
            QueryParameter(max_length=MAX_PHONE_LENGTH, pattern=TEXT),
        ] = "",
    ) -> DuplicateList:
        sought = Sought(name, date_of_birth, email, phone)
        require_one(sought)
        found = await candidates.find(reader, sought)
        ids = [likeness.row.id for likeness in found]
        await record_read(request, target_ids=ids, patient_ids=ids)
        return DuplicateList([duplicate_of(likeness) for likeness in found])
