"""How an error is encoded: `{"detail"}` by default, problem details (RFC 9457) if the request names that
media type."""

import re
from collections.abc import Sequence
from enum import StrEnum
from http import HTTPStatus
from typing import Annotated

import msgspec
from litestar.types import Scope
from msgspec import UNSET, Meta, UnsetType

from api.http.fields import ErrorDetail, Output
from api.http.negotiation import JSON, PROBLEM, wants_problem

MAX_FAULTS = 100  # in one answer
NO_TYPE = "about:blank"  # RFC 9457, 4.2.1: no type beyond the status; `code` says more
TITLES = {HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "Content Too Large"}  # RFC 9110; Python's differs by version


class ErrorCode(StrEnum):
    BAD_REQUEST = "bad_request"
    MALFORMED_JSON = "malformed_json"
    INCOMPLETE_BODY = "incomplete_body"
    REQUIRED = "required"
    UNKNOWN_FIELD = "unknown_field"
    UNKNOWN_PARAMETER = "unknown_parameter"
    REPEATED = "repeated"
    INVALID_TYPE = "invalid_type"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    TOO_MANY_ITEMS = "too_many_items"
    OUT_OF_RANGE = "out_of_range"
    BAD_ORDER = "bad_order"
    OVERLAP = "overlap"
    BAD_FORMAT = "bad_format"
    STALE_CURSOR = "stale_cursor"
    BAD_CHARACTERS = "bad_characters"
    NOT_ALLOWED_VALUE = "not_allowed_value"
    IN_THE_FUTURE = "in_the_future"
    IN_THE_PAST = "in_the_past"
    DUPLICATE = "duplicate"
    ALREADY_LINKED = "already_linked"
    SAME_CHART = "same_chart"
    ALREADY_MERGED = "already_merged"
    NOT_MERGED = "not_merged"
    NOT_A_PATIENT_ACCOUNT = "not_a_patient_account"
    NOT_OF_THIS_ROLE = "not_of_this_role"
    WRONG_PASSWORD = "wrong_password"  # noqa: S105  # the name of an error
    COMMON_PASSWORD = "common_password"  # noqa: S105  # the name of an error
    NEVER_PENDING = "never_pending"
    LAST_ADMIN = "last_admin"
    NOT_LEAVING = "not_leaving"
    SAME_DOCTOR = "same_doctor"
    SLOT_TAKEN = "slot_taken"
    SLOT_TAKEN_DOCTOR = "slot_taken_doctor"
    SLOT_TAKEN_PATIENT = "slot_taken_patient"
    OUTSIDE_HOURS = "outside_hours"
    NOT_A_FREE_TIME = "not_a_free_time"
    TOO_SOON = "too_soon"
    TOO_FAR_AHEAD = "too_far_ahead"
    TOO_MANY_OPEN = "too_many_open"
    TOO_LATE = "too_late"
    DOCTOR_INACTIVE = "doctor_inactive"
    FINAL_STATE = "final_state"
    ALREADY_BEGUN = "already_begun"
    TOO_EARLY = "too_early"
    VISIT_STATE = "visit_state"
    RECORD_RETRACTED = "record_retracted"
    IDEMPOTENCY_KEY_USED = "idempotency_key_used"
    NOT_SIGNED_IN = "not_signed_in"
    INVALID_CREDENTIALS = "invalid_credentials"
    ROLE_NOT_ALLOWED = "role_not_allowed"
    NOT_THE_AUTHOR = "not_the_author"
    ORIGIN_NOT_ALLOWED = "origin_not_allowed"
    ACCOUNT_PENDING = "account_pending"
    ACCOUNT_DISABLED = "account_disabled"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    PRECONDITION_FAILED = "precondition_failed"
    BODY_TOO_LARGE = "body_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    TOO_MANY_REQUESTS = "too_many_requests"
    TOO_MANY_FAILED_ATTEMPTS = "too_many_failed_attempts"
    INTERNAL_ERROR = "internal_error"
    UNAVAILABLE = "unavailable"


# The code of an error that does not name one.
CODE_BY_STATUS = {
    HTTPStatus.UNAUTHORIZED: ErrorCode.NOT_SIGNED_IN,
    HTTPStatus.FORBIDDEN: ErrorCode.ROLE_NOT_ALLOWED,
    HTTPStatus.NOT_FOUND: ErrorCode.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED: ErrorCode.METHOD_NOT_ALLOWED,
    HTTPStatus.PRECONDITION_FAILED: ErrorCode.PRECONDITION_FAILED,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: ErrorCode.BODY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: ErrorCode.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.TOO_MANY_REQUESTS: ErrorCode.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR: ErrorCode.INTERNAL_ERROR,
    HTTPStatus.SERVICE_UNAVAILABLE: ErrorCode.UNAVAILABLE,
}

Sentence = Annotated[str, Meta(min_length=1, max_length=1000)]
Pointer = Annotated[str, Meta(max_length=300, extra_json_schema={"format": "json-pointer"})]
ParameterName = Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9_.-]*$")]


class Fault(Output, kw_only=True):
    pointer: Pointer | UnsetType = UNSET  # of the body
    parameter: ParameterName | UnsetType = UNSET  # of the query, or a header field
    code: ErrorCode
    detail: Sentence

    @property
    def sentence(self) -> str:
        """`attachments[3]: is required`, for people, who do not read JSON pointers."""
        if isinstance(self.parameter, str):
            return f"{self.parameter or 'query'}: {self.detail}"
        name = re.sub(r"/([0-9]+)", r"[\1]", str(self.pointer)).lstrip("/").replace("/", ".")
        return f"{name or 'body'}: {self.detail}"


class Problem(Output):
    type: Annotated[str, Meta(max_length=200, extra_json_schema={"format": "uri-reference"})]
    title: Annotated[str, Meta(min_length=1, max_length=100)]
    status: Annotated[int, Meta(ge=400, le=599, extra_json_schema={"format": "int32"})]
    detail: Sentence
    code: ErrorCode
    errors: Annotated[list[Fault], Meta(max_length=MAX_FAULTS)]


def encode_error(
    scope: Scope, status: int, detail: str, code: ErrorCode | None = None, faults: Sequence[Fault] = ()
) -> tuple[str, bytes]:
    """(media type, body) of an error, as the request's Accept header prefers."""
    if not wants_problem(scope):
        return JSON, msgspec.json.encode(ErrorDetail(detail))
    known = HTTPStatus(status)
    title = TITLES.get(known, known.phrase)
    problem = Problem(
        NO_TYPE, title, status, detail, code or code_for_status(status), list(faults[:MAX_FAULTS])
    )
    return PROBLEM, msgspec.json.encode(problem)


def code_for_status(status: int) -> ErrorCode:
    return CODE_BY_STATUS.get(HTTPStatus(status), ErrorCode.BAD_REQUEST)
