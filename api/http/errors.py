"""The one exception handler: anything becomes an error in our own words. api/http/problems.py writes it."""

import logging
import re
import traceback
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

from api.http.fields import MAX_BODY_BYTES
from api.http.json_schema import schema_of
from api.http.problems import ErrorCode, Fault, code_for_status, encode_error
from persistence.postgres.failures import Failure, failure_of
from security.availability import UNAVAILABLE, BusyError
from security.passwords import TooBusyError

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
NOT_SIGNED_IN = "Not authenticated"
# What the database's failures mean to the caller.
DETAIL_BY_FAILURE = {
    Failure.EMAIL_TAKEN: ("email: is already registered", ErrorCode.DUPLICATE),
    Failure.ACCOUNT_LINKED: ("userId: this account is linked to another patient", ErrorCode.ALREADY_LINKED),
    Failure.OVERLAP: ("date: there is another appointment at that time", ErrorCode.SLOT_TAKEN),
}
NAMED_DETAIL = re.compile(r"(?P<name>[A-Za-z_]+): (?P<detail>.+)", re.DOTALL)


class ApiError(HTTPException):
    """An error of a resource's own rules, with the detail that the caller is to read: "field: sentence" where
    it is about one field. `field`: which one, if the detail does not say so; `faults`: what is wrong where,
    if it is more than that."""

    def __init__(
        self,
        detail: str,
        code: ErrorCode | None = None,
        faults: Sequence[Fault] = (),
        *,
        field: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail, headers=headers)
        self.code = code or code_for_status(self.status_code)
        of_field = [Fault(pointer=f"/{field}", code=self.code, detail=detail)] if field else []
        self.faults = [*faults, *of_field]


class BadRequest(ApiError):
    status_code = HTTPStatus.BAD_REQUEST


class InvalidInput(BadRequest):
    """What breaks the schema of a body or a query, in one or more places."""

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


WITH_OUR_DETAIL = (
    NotAuthorizedException,
    NotFoundException,
    PermissionDeniedException,
    TooManyRequestsException,
)


@dataclass
class ErrorDescription:
    status: int
    detail: str
    headers: dict[str, str] = field(default_factory=dict)
    code: ErrorCode | None = None
    faults: Sequence[Fault] = ()


def handle_exception(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    verdict = classify(error)
    where = f"{request.method} {path_template(request)}"
    if verdict.status == HTTPStatus.SERVICE_UNAVAILABLE:  # many at once: a line each is enough
        log.warning("%s: unavailable, %s", where, type(error).__name__)
    elif verdict.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("%s: %s\n%s", where, verdict.detail, format_traceback(error))
    return build_error_response(request, verdict)


def format_traceback(error: Exception) -> str:
    """Where it happened and what kind it was, without the message: PostgreSQL quotes values in its own."""
    sqlstate = getattr(error, "sqlstate", None) or ""
    return f"{''.join(traceback.format_tb(error.__traceback__))}{type(error).__name__} {sqlstate}".rstrip()


def error_response(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """The answer for an error that must not be raised, because what was done before it is to be stored."""
    return build_error_response(request, classify(error))


def build_error_response(request: Request[Any, Any, Any], verdict: ErrorDescription) -> Response[bytes]:
    headers = verdict.headers
    if verdict.status == HTTPStatus.UNAUTHORIZED:
        headers = {**headers, "WWW-Authenticate": 'Cookie realm="medisecure"'}
    faults = verdict.faults or faults_in_detail(request, verdict)
    media_type, body = encode_error(request.scope, verdict.status, verdict.detail, verdict.code, faults)
    return Response(body, status_code=verdict.status, headers=headers, media_type=media_type)


def faults_in_detail(request: Request[Any, Any, Any], verdict: ErrorDescription) -> list[Fault]:
    """The field or parameter that the detail opens with, or the body as a whole."""
    handler: Any = request.scope.get("route_handler")
    if handler is None or verdict.status not in {HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN}:
        return []
    body = handler.parsed_data_field
    fields = schema_of(body.annotation)["properties"] if body else {}
    code = verdict.code or code_for_status(verdict.status)
    opening = NAMED_DETAIL.fullmatch(verdict.detail)
    if opening and opening["name"] in fields:
        return [Fault(pointer=f"/{opening['name']}", code=code, detail=opening["detail"])]
    if opening and opening["name"] == "body":
        return [Fault(pointer="", code=code, detail=opening["detail"])]
    if opening and verdict.status == HTTPStatus.BAD_REQUEST:
        return [Fault(parameter=opening["name"], code=code, detail=opening["detail"])]
    if body and verdict.status == HTTPStatus.BAD_REQUEST:
        return [Fault(pointer="", code=code, detail=verdict.detail)]
    return []


def classify(error: Exception) -> ErrorDescription:
    """Details of others' exceptions never pass."""
    match error:
        case ApiError():
            headers = dict(error.headers or {})
            return ErrorDescription(error.status_code, error.detail, headers, error.code, error.faults)
        case HTTPException() if error.status_code < 500:
            return ErrorDescription(error.status_code, safe_detail(error), dict(error.headers or {}))
        case TooBusyError() | BusyError():
            return service_unavailable(error.retry_after)
    failure = failure_of(error)
    if failure is not None:
        return classify_database_failure(failure, error)
    return service_unavailable(2) if isinstance(error, UNAVAILABLE) else INTERNAL


def safe_detail(error: HTTPException) -> str:
    """The detail if it was written in this project; a phrase of the status if it is Litestar's."""
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


def path_template(request: Request[Any, Any, Any]) -> str:
    """The path as the contract writes it: no id and no query string reaches a log."""
    return str(request.scope.get("path_template") or "(no route)")
