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

from api.http.fields import MAX_BODY
from api.http.json_schema import schema_of
from api.http.problems import ErrorCode, Fault, code_of, written
from persistence.postgres.failures import Failure, failure_of
from security.availability import UNAVAILABLE, BusyError
from security.passwords import TooBusyError

log = logging.getLogger("medisecure.errors")

TOO_LARGE = f"The request body is too large; the limit is {MAX_BODY // 1024} KiB"
DETAILS = {
    HTTPStatus.BAD_REQUEST: "Bad request",
    HTTPStatus.NOT_FOUND: "Not found",
    HTTPStatus.METHOD_NOT_ALLOWED: "Method not allowed",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: TOO_LARGE,
    HTTPStatus.INTERNAL_SERVER_ERROR: "Internal server error",
    HTTPStatus.SERVICE_UNAVAILABLE: "The service is unavailable right now. Please try again shortly.",
}
NOT_SIGNED_IN = "Not authenticated"
# What the database's failures mean to the caller.
DUPLICATES = {
    Failure.EMAIL_TAKEN: ("email: is already registered", ErrorCode.DUPLICATE),
    Failure.ACCOUNT_LINKED: ("userId: this account is linked to another patient", ErrorCode.ALREADY_LINKED),
    Failure.OVERLAP: ("date: there is another appointment at that time", ErrorCode.SLOT_TAKEN),
}
FIELD = re.compile(r"(?P<name>[A-Za-z_]+): (?P<detail>.+)", re.DOTALL)


class Refused(HTTPException):
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
        self.code = code or code_of(self.status_code)
        of_field = [Fault(pointer=f"/{field}", code=self.code, detail=detail)] if field else []
        self.faults = [*faults, *of_field]


class BadRequest(Refused):
    status_code = HTTPStatus.BAD_REQUEST


class Invalid(BadRequest):
    """What breaks the schema of a body or a query, in one or more places."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(faults[0].sentence, faults[0].code, faults)


class Unauthorized(Refused):
    status_code = HTTPStatus.UNAUTHORIZED


class Forbidden(Refused):
    status_code = HTTPStatus.FORBIDDEN


class NotFound(Refused):
    status_code = HTTPStatus.NOT_FOUND


class TooMany(Refused):
    status_code = HTTPStatus.TOO_MANY_REQUESTS


class Unavailable(Refused):
    status_code = HTTPStatus.SERVICE_UNAVAILABLE

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)})


RAISED_HERE = (
    NotAuthorizedException,
    NotFoundException,
    PermissionDeniedException,
    TooManyRequestsException,
)


@dataclass
class Verdict:
    status: int
    detail: str
    headers: dict[str, str] = field(default_factory=dict)
    code: ErrorCode | None = None
    faults: Sequence[Fault] = ()


def handle(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    verdict = judged(error)
    where = f"{request.method} {path_template(request)}"
    if verdict.status == HTTPStatus.SERVICE_UNAVAILABLE:  # many at once: a line each is enough
        log.warning("%s: unavailable, %s", where, type(error).__name__)
    elif verdict.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("%s: %s\n%s", where, verdict.detail, stack_of(error))
    return built(request, verdict)


def stack_of(error: Exception) -> str:
    """Where it happened and what kind it was, without the message: PostgreSQL quotes values in its own."""
    sqlstate = getattr(error, "sqlstate", None) or ""
    return f"{''.join(traceback.format_tb(error.__traceback__))}{type(error).__name__} {sqlstate}".rstrip()


def answer(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """The answer for an error that must not be raised, because what was done before it is to be stored."""
    return built(request, judged(error))


def built(request: Request[Any, Any, Any], verdict: Verdict) -> Response[bytes]:
    headers = verdict.headers
    if verdict.status == HTTPStatus.UNAUTHORIZED:
        headers = {**headers, "WWW-Authenticate": 'Cookie realm="medisecure"'}
    faults = verdict.faults or faults_told(request, verdict)
    media_type, body = written(request.scope, verdict.status, verdict.detail, verdict.code, faults)
    return Response(body, status_code=verdict.status, headers=headers, media_type=media_type)


def faults_told(request: Request[Any, Any, Any], verdict: Verdict) -> list[Fault]:
    """The field or parameter that the detail opens with, or the body as a whole."""
    handler: Any = request.scope.get("route_handler")
    if handler is None or verdict.status not in {HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN}:
        return []
    body = handler.parsed_data_field
    fields = schema_of(body.annotation)["properties"] if body else {}
    code = verdict.code or code_of(verdict.status)
    opening = FIELD.fullmatch(verdict.detail)
    if opening and opening["name"] in fields:
        return [Fault(pointer=f"/{opening['name']}", code=code, detail=opening["detail"])]
    if opening and opening["name"] == "body":
        return [Fault(pointer="", code=code, detail=opening["detail"])]
    if opening and verdict.status == HTTPStatus.BAD_REQUEST:
        return [Fault(parameter=opening["name"], code=code, detail=opening["detail"])]
    if body and verdict.status == HTTPStatus.BAD_REQUEST:
        return [Fault(pointer="", code=code, detail=verdict.detail)]
    return []


def judged(error: Exception) -> Verdict:
    """Details of others' exceptions never pass."""
    match error:
        case Refused():
            headers = dict(error.headers or {})
            return Verdict(error.status_code, error.detail, headers, error.code, error.faults)
        case HTTPException() if error.status_code < 500:
            return Verdict(error.status_code, own_detail(error), dict(error.headers or {}))
        case TooBusyError() | BusyError():
            return unavailable(error.retry_after)
    failure = failure_of(error)
    if failure is not None:
        return judged_failure(failure, error)
    return unavailable(2) if isinstance(error, UNAVAILABLE) else INTERNAL


def own_detail(error: HTTPException) -> str:
    """The detail if it was written in this project; a phrase of the status if it is Litestar's."""
    status = HTTPStatus(error.status_code)
    if isinstance(error, RAISED_HERE) and error.detail != status.phrase:
        return error.detail
    return DETAILS.get(status, status.phrase)


def judged_failure(failure: Failure, error: Exception) -> Verdict:
    if failure is Failure.UNAVAILABLE:
        return unavailable(1)
    if failure is Failure.SESSION_ENDED:
        return Verdict(HTTPStatus.UNAUTHORIZED, NOT_SIGNED_IN)
    if failure in DUPLICATES:
        detail, code = DUPLICATES[failure]
        return Verdict(HTTPStatus.BAD_REQUEST, detail, code=code)
    if failure is Failure.UNSTORABLE:
        log.error("PostgreSQL refused a value that the contract allows: %s", type(error).__name__)
        return Verdict(HTTPStatus.BAD_REQUEST, "A value in the request cannot be stored")
    return INTERNAL


INTERNAL = Verdict(HTTPStatus.INTERNAL_SERVER_ERROR, DETAILS[HTTPStatus.INTERNAL_SERVER_ERROR])


def unavailable(retry_after: int) -> Verdict:
    status = HTTPStatus.SERVICE_UNAVAILABLE
    return Verdict(status, DETAILS[status], {"Retry-After": str(retry_after)})


def path_template(request: Request[Any, Any, Any]) -> str:
    """The path as the contract writes it: no id and no query string reaches a log."""
    return str(request.scope.get("path_template") or "(no route)")
