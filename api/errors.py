"""The one exception handler: anything becomes `{"detail": …}`, in words of our own."""

import logging
import traceback
from http import HTTPStatus
from typing import Any

from litestar import MediaType, Request, Response
from litestar.exceptions import (
    HTTPException,
    NotAuthorizedException,
    NotFoundException,
    PermissionDeniedException,
    TooManyRequestsException,
    ValidationException,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from api.rules import parameter_rule
from api.schemas import ErrorDetail
from security.counters import UNAVAILABLE, BusyError
from security.passwords import TooBusyError

log = logging.getLogger("medisecure.errors")

DETAILS = {
    HTTPStatus.BAD_REQUEST: "Bad request",
    HTTPStatus.NOT_FOUND: "Not found",
    HTTPStatus.METHOD_NOT_ALLOWED: "Method not allowed",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The request body is too large; the limit is 256 KiB",
    HTTPStatus.INTERNAL_SERVER_ERROR: "Internal server error",
    HTTPStatus.SERVICE_UNAVAILABLE: "The service is unavailable right now. Please try again shortly.",
}
# 40001 serialization failure, 40P01 deadlock, 53300 too many connections, 55P03 lock not available,
# 57014 cancelled at a time-out, 57P01-03 shutting down or starting, 25006 a server that only reads.
PASSING = {"40001", "40P01", "53300", "55P03", "57014", "57P01", "57P02", "57P03", "25006"}
EXCLUDED = "23P01"  # an exclusion constraint, the backstop against two appointments at once
# What a unique constraint that we rely on means to the caller.
DUPLICATES = {
    "uq_users_email": "Email already registered",
    "uq_patients_user_id": "userId: this account is linked to another patient",
}


class Refused(HTTPException):
    """An error of a resource's own rules, with the detail that the caller is to read."""


class BadRequest(Refused):
    status_code = HTTPStatus.BAD_REQUEST


class Unavailable(Refused):
    status_code = HTTPStatus.SERVICE_UNAVAILABLE

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)})


RAISED_HERE = (
    Refused,
    NotAuthorizedException,
    NotFoundException,
    PermissionDeniedException,
    TooManyRequestsException,
)


def handle(request: Request[Any, Any, Any], error: Exception) -> Response[ErrorDetail]:
    status, detail, headers = judged(request, error)
    where = f"{request.method} {path_template(request)}"
    if status == HTTPStatus.SERVICE_UNAVAILABLE:  # many at once: a line each is enough
        log.warning("%s: unavailable, %s", where, type(error).__name__)
    elif status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("%s: %s\n%s", where, detail, stack_of(error))
    return built(status, detail, headers)


def stack_of(error: Exception) -> str:
    """Where it happened and what kind it was, without the message: PostgreSQL quotes values in its own."""
    sqlstate = getattr(getattr(error, "orig", None), "sqlstate", None) or ""
    return f"{''.join(traceback.format_tb(error.__traceback__))}{type(error).__name__} {sqlstate}".rstrip()


def answer(error: HTTPException) -> Response[ErrorDetail]:
    """The answer for an error that must not be raised, because what was done before it is to be stored."""
    return built(error.status_code, error.detail, dict(error.headers or {}))


def built(status: int, detail: str, headers: dict[str, str]) -> Response[ErrorDetail]:
    if status == HTTPStatus.UNAUTHORIZED:
        headers = {**headers, "WWW-Authenticate": 'Cookie realm="medisecure"'}
    return Response(ErrorDetail(detail), status_code=status, headers=headers, media_type=MediaType.JSON)


def judged(request: Request[Any, Any, Any], error: Exception) -> tuple[int, str, dict[str, str]]:
    """(status, detail, headers) for `error`. Details of others' exceptions never pass."""
    match error:
        case ValidationException():
            return HTTPStatus.BAD_REQUEST, invalid_parameter(request, error), {}
        case HTTPException() if isinstance(error, Refused) or error.status_code < 500:
            return error.status_code, own_detail(error), dict(error.headers or {})
        case TooBusyError() | BusyError():
            return unavailable(error.retry_after)
        case DBAPIError():
            return judged_sql(error)
    if isinstance(error, (PoolTimeoutError, *UNAVAILABLE)):
        return unavailable(2)
    return HTTPStatus.INTERNAL_SERVER_ERROR, DETAILS[HTTPStatus.INTERNAL_SERVER_ERROR], {}


def own_detail(error: HTTPException) -> str:
    """The detail if it was written in this project; a phrase of the status if it is Litestar's."""
    status = HTTPStatus(error.status_code)
    if isinstance(error, RAISED_HERE) and error.detail != status.phrase:
        return error.detail
    return DETAILS.get(status, status.phrase)


def judged_sql(error: DBAPIError) -> tuple[int, str, dict[str, str]]:
    sqlstate = getattr(error.orig, "sqlstate", None) or ""
    if error.connection_invalidated or sqlstate in PASSING or sqlstate.startswith("08"):
        return unavailable(1)
    if sqlstate == EXCLUDED:
        return HTTPStatus.BAD_REQUEST, "date: there is another appointment at that time", {}
    constraint = getattr(error.orig.__cause__, "constraint_name", None) if error.orig else None
    if constraint in DUPLICATES:
        return HTTPStatus.BAD_REQUEST, DUPLICATES[constraint], {}
    if sqlstate.startswith("22"):  # a value that our own checks let through and PostgreSQL cannot hold
        log.error("PostgreSQL refused a value that the contract allows: %s", sqlstate)
        return HTTPStatus.BAD_REQUEST, "A value in the request cannot be stored", {}
    return HTTPStatus.INTERNAL_SERVER_ERROR, DETAILS[HTTPStatus.INTERNAL_SERVER_ERROR], {}


def unavailable(retry_after: int) -> tuple[int, str, dict[str, str]]:
    status = HTTPStatus.SERVICE_UNAVAILABLE
    return status, DETAILS[status], {"Retry-After": str(retry_after)}


def path_template(request: Request[Any, Any, Any]) -> str:
    """The path as the contract writes it: no id and no query string reaches a log."""
    return str(request.scope.get("path_template") or "(no route)")


def invalid_parameter(request: Request[Any, Any, Any], error: ValidationException) -> str:
    names = [item["key"] for item in error.extra or [] if isinstance(item, dict) and "key" in item]
    return parameter_rule(request, names[0]) if names else "The request is not valid"
