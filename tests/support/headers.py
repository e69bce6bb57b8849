"""Net 2, headers of answers: which of them openapi.yaml declares where, and which the code can send there.

What no signature tells is held by tests/support/conformance.py on every answer that a test receives: an
answer carries all that is declared as `required`, and nothing that is not declared.
"""

from collections.abc import Iterator

from litestar import Litestar

from api.http.operation import Operation
from api.http.outermost import OUR_NAMES
from security.admission import Count
from security.rate_limit import rate_limit_headers
from tests.support.handlers import builds_its_answer, counts_anonymous, handlers, is_counted
from tests.support.openapi import Json, operations, resolve

RATE_LIMIT = frozenset(rate_limit_headers(Count(1, 2, 3, 4)))
COMMON_HEADERS = frozenset({"Access-Control-Allow-Origin", "Cache-Control", "X-Request-Id"})
HEADERS_BY_STATUS = {"401": {"WWW-Authenticate"}, "429": {"Retry-After"}, "503": {"Retry-After"}}
HANDLER_HEADERS = frozenset({"ETag", "Set-Cookie"})
# Those that depend on the origin of the page, or on whether the request was counted.
OPTIONAL_HEADERS = frozenset({"Access-Control-Allow-Origin"}) | RATE_LIMIT
# Login counts by e-mail, and has one only once it has read its body.
COUNTED_LOGIN_STATUSES = {"200", "401", "403", "429"}
# What no operation declares: HTTP's own headers, and those that protect browsers, of which the description of
# openapi.yaml tells once.
HTTP_HEADERS = {"content-type", "content-length", "transfer-encoding", "connection", "date", "server"}
BROWSER_HEADERS = {name.decode() for name in OUR_NAMES} - {name.lower() for name in COMMON_HEADERS}
UNDECLARED = frozenset(HTTP_HEADERS | BROWSER_HEADERS)


def header_drift(document: Json, app: Litestar) -> list[str]:
    code = handlers(app)
    return [
        f"{method} {path}: {status}: {error}"
        for method, path, operation in operations(document)
        for status, response in operation["responses"].items()
        for error in find_header_errors(
            document, code.get((method, path)), status, resolve(document, response)
        )
    ]


def find_header_errors(
    document: Json, handler: Operation | None, status: str, response: Json
) -> Iterator[str]:
    declared = response.get("headers", {})
    for name, header in declared.items():
        must = name not in OPTIONAL_HEADERS
        if resolve(document, header).get("required", False) != must:
            yield f"header {name}: required must be {must}"
    if handler is None:
        return
    sent, own = sendable_headers(handler, status), declared.keys() & HANDLER_HEADERS
    for name in sorted(sent - declared.keys()):
        yield f"header {name} can be sent, and is not declared"
    for name in sorted(declared.keys() - sent - own):
        yield f"header {name} is declared, and never sent"
    if builds_its_answer(handler) and status < "400":
        if not own:
            yield f"none of {sorted(HANDLER_HEADERS)} is declared, though the handler returns a Response"
    else:
        for name in sorted(own):
            yield f"header {name} is declared, though the handler returns no Response"


def sendable_headers(handler: Operation, status: str) -> set[str]:
    """The headers that an answer of this status may carry, less those that the handler itself sets."""
    names = COMMON_HEADERS | HEADERS_BY_STATUS.get(status, set())
    if handler.operation_id == "login":
        is_told = status in COUNTED_LOGIN_STATUSES
    else:
        is_told = is_counted(handler) and (status != "401" or counts_anonymous(handler))
    return set(names | RATE_LIMIT) if is_told else set(names)
