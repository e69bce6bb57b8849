"""The one exception handler: it turns every exception into an error in our own words, which
api/http/problems.py encodes."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from litestar import Request, Response
from litestar.exceptions import (
    HTTPException,
    NotAuthorizedException,
    NotFoundException,
    PermissionDeniedException,
    TooManyRequestsException,
)
from litestar.handlers import BaseRouteHandler

from api.http.fields import MAX_BODY_BYTES
from api.http.json_schema import schema_of
from api.http.logs import format_traceback
from api.http.problems import ErrorCode, Fault, code_for_status, encode_error
from persistence.postgres import failures
from persistence.postgres.failures import Failure, kind_of
from security.availability import UNAVAILABLE, BusyError
from security.guards import NOT_SIGNED_IN
from security.passwords import TooBusyError

AnyRequest = Request[Any, Any, Any]  # of our class, or Litestar's own where no route was found
log = logging.getLogger("medisecure.errors")

TOO_LARGE = f"The request body is too large; the limit is {MAX_BODY_BYTES // 1024} KiB"
DETAIL_BY_STATUS = {
    HTTPStatus.BAD_REQUEST: "Bad request",
    HTTPStatus.NOT_FOUND: "Not found",
    HTTPStatus.METHOD_NOT_ALLOWED: "Method not allowed",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: TOO_LARGE,
    HTTPStatus.INTERNAL_SERVER_ERROR: "Internal server error",
    HTTPStatus.SERVICE_UNAVAILABLE: "The service is unavailable right now. Please try again shortly.",
}
CHALLENGE = 'Cookie realm="medisecure"'  # of a 401 (RFC 9110, 11.6.1)
# What the caller is told about the database's failures.
DETAIL_BY_FAILURE = {
    Failure.EMAIL_TAKEN: ("email: is already registered", ErrorCode.DUPLICATE),
    Failure.ACCOUNT_LINKED: ("userId: this account is linked to another patient", ErrorCode.ALREADY_LINKED),
    Failure.OVERLAP: ("date: there is another appointment at that time", ErrorCode.SLOT_TAKEN),
}
NAMED_DETAIL = re.compile(r"(?P<name>[A-Za-z_]+): (?P<detail>.+)", re.DOTALL)


class ApiError(HTTPException):
    """An error that this project raises itself. `detail`: what the caller reads; "field: sentence" if it is
    about one field. `field`: that field, if the detail does not begin with it; `parameter`: of the query.
    `faults`: what is wrong and where, if it is more than that."""

    def __init__(
        self,
        detail: str,
        code: ErrorCode | None = None,
        faults: Sequence[Fault] = (),
        *,
        field: str | None = None,
        parameter: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail, headers=headers)
        self.code = code or code_for_status(self.status_code)
        of_field = [Fault(pointer=f"/{field}", code=self.code, detail=detail)] if field else []
        of_query = [Fault(parameter=parameter, code=self.code, detail=detail)] if parameter else []
        self.faults = [*faults, *of_field, *of_query]


class BadRequest(ApiError):
    status_code = HTTPStatus.BAD_REQUEST


class InvalidInput(BadRequest):
    """A body or a query that breaks its schema, in one or more places."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(faults[0].sentence, faults[0].code, faults)


class Unauthorized(ApiError):
    status_code = HTTPStatus.UNAUTHORIZED


class Forbidden(ApiError):
    status_code = HTTPStatus.FORBIDDEN


class NotFound(ApiError):
    status_code = HTTPStatus.NOT_FOUND


class TooManyRequests(ApiError):
    status_code = HTTPStatus.TOO_MANY_REQUESTS


class ServiceUnavailable(ApiError):
    status_code = HTTPStatus.SERVICE_UNAVAILABLE

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)})


# Exceptions of Litestar that this project raises as well, with a detail of its own.
WITH_OUR_DETAIL = (
    NotAuthorizedException,
    NotFoundException,
    PermissionDeniedException,
    TooManyRequestsException,
)


@dataclass(frozen=True)
class ErrorDescription:
    """What the caller is told about an error."""

    status: int
    detail: str
    headers: dict[str, str] = field(default_factory=dict)
    code: ErrorCode | None = None
    faults: Sequence[Fault] = ()


def handle_exception(request: AnyRequest, error: Exception) -> Response[bytes]:
    description = classify(error)
    where = f"{request.method} {path_template(request) or '(no route)'}"
    of_request = {"request_id": request.scope.get("state", {}).get("request_id")}
    if description.status == HTTPStatus.SERVICE_UNAVAILABLE:  # often many at once, so one line each
        log.warning("%s: unavailable, %s", where, kind_of(error), extra=of_request)
    elif description.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("%s: %s\n%s", where, description.detail, format_traceback(error), extra=of_request)
    return build_error_response(request, description)


def error_response(request: AnyRequest, error: HTTPException) -> Response[bytes]:
    """The answer for an error that must not be raised, because that would roll the transaction back."""
    return build_error_response(request, classify(error))


def build_error_response(request: AnyRequest, description: ErrorDescription) -> Response[bytes]:
    headers = description.headers
    if description.status == HTTPStatus.UNAUTHORIZED:
        headers = {**headers, "WWW-Authenticate": CHALLENGE}
    faults = description.faults or faults_in_detail(request, description)
    media_type, body = encode_error(
        request.scope, description.status, description.detail, description.code, faults
    )
    return Response(body, status_code=description.status, headers=headers, media_type=media_type)


def faults_in_detail(request: AnyRequest, description: ErrorDescription) -> list[Fault]:
    """The fault in the field that the detail begins with, or in the body as a whole."""
    handler: BaseRouteHandler | None = request.scope.get("route_handler")
    if handler is None or description.status not in {HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN}:
        return []
    body = handler.parsed_data_field
    fields = schema_of(body.annotation)["properties"] if body else {}
    code = description.code or code_for_status(description.status)
    named = NAMED_DETAIL.fullmatch(description.detail)
    if named and named["name"] in fields:
        return [Fault(pointer=f"/{named['name']}", code=code, detail=named["detail"])]
    if named and named["name"] == "body":
        return [Fault(pointer="", code=code, detail=named["detail"])]
    if body and description.status == HTTPStatus.BAD_REQUEST:
        return [Fault(pointer="", code=code, detail=description.detail)]
    return []


def classify(error: Exception) -> ErrorDescription:
    """What the caller is told about an exception. The detail of one that this project did not raise is never
    repeated."""
    match error:
        case ApiError():
            headers = dict(error.headers or {})
            return ErrorDescription(error.status_code, error.detail, headers, error.code, error.faults)
        case HTTPException() if error.status_code < 500:
            return ErrorDescription(error.status_code, safe_detail(error), dict(error.headers or {}))
        case TooBusyError() | BusyError():
            return service_unavailable(error.retry_after)
    failure = failures.classify(error)
    if failure is not None:
        return classify_database_failure(failure, error)
    return service_unavailable(2) if isinstance(error, UNAVAILABLE) else INTERNAL


def safe_detail(error: HTTPException) -> str:
    """The detail if this project wrote it; otherwise what is always said with this status."""
    status = HTTPStatus(error.status_code)
    if isinstance(error, WITH_OUR_DETAIL) and error.detail != status.phrase:
        return error.detail
    return DETAIL_BY_STATUS.get(status, status.phrase)


def classify_database_failure(failure: Failure, error: Exception) -> ErrorDescription:
    if failure is Failure.UNAVAILABLE:
        return service_unavailable(1)
    if failure is Failure.SESSION_ENDED:
        return ErrorDescription(HTTPStatus.UNAUTHORIZED, NOT_SIGNED_IN)
    if failure in DETAIL_BY_FAILURE:
        detail, code = DETAIL_BY_FAILURE[failure]
        return ErrorDescription(HTTPStatus.BAD_REQUEST, detail, code=code)
    if failure is Failure.UNSTORABLE:
        log.error("PostgreSQL refused a value that the contract allows: %s", type(error).__name__)
        return ErrorDescription(HTTPStatus.BAD_REQUEST, "A value in the request cannot be stored")
    return INTERNAL


INTERNAL = ErrorDescription(
    HTTPStatus.INTERNAL_SERVER_ERROR, DETAIL_BY_STATUS[HTTPStatus.INTERNAL_SERVER_ERROR]
)


def service_unavailable(retry_after: int) -> ErrorDescription:
    status = HTTPStatus.SERVICE_UNAVAILABLE
    return ErrorDescription(status, DETAIL_BY_STATUS[status], {"Retry-After": str(retry_after)})


def path_template(request: AnyRequest) -> str:
    """The path as the contract writes it: `{id}` instead of an id, and no query string. Empty if the contract
    has no such path."""
    return str(request.scope.get("path_template") or "")
