"""Net 2, headers of answers: which of them openapi.yaml declares where, and with which values; and which the
code can send there.

What no signature tells is held by tests/support/conformance.py on every answer that a test receives: an
answer carries all that is declared as `required`, and nothing that is not declared.
"""

from collections.abc import Iterator
from typing import Annotated

import msgspec
from litestar import Litestar
from msgspec import Meta

from api.changes import LAST_EVENT_ID, STREAM_HEADERS
from api.http import fields
from api.http.conditional import entity_tag
from api.http.errors import CHALLENGE
from api.http.idempotency import NAME
from api.http.operation import Operation
from api.http.outermost import OUR_NAMES
from api.http.requests import OperationPolicy
from api.http.security_headers import SECURITY_HEADERS
from security.admission import Count
from security.cookies import access_cookie, refresh_cookie
from security.rate_limit import rate_limit_headers
from tests.support.handlers import builds_its_answer, counts_anonymous, handlers, is_counted, is_tagged
from tests.support.openapi import Json, operations, resolve
from tests.support.shapes import differences, normalize

RATE_LIMIT = frozenset(rate_limit_headers(Count(1, 2, 3, 4)))
COMMON_HEADERS = frozenset({"Access-Control-Allow-Origin", "Cache-Control", "X-Request-Id"})
HEADERS_BY_STATUS = {"401": {"WWW-Authenticate"}, "429": {"Retry-After"}, "503": {"Retry-After"}}
HANDLER_HEADERS = frozenset({"Content-Disposition", "ETag", "Set-Cookie"})
# Those that depend on the origin of the page, on whether the request was counted or came before, and on what
# it accepts.
OPTIONAL_HEADERS = (
    frozenset({"Access-Control-Allow-Origin", "Idempotency-Replayed", "X-Accel-Buffering"}) | RATE_LIMIT
)
# Login counts by e-mail, and has one only once it has read its body.
COUNTED_LOGIN_STATUSES = {"200", "401", "403", "429"}
# What no operation declares: HTTP's own headers, and those that protect browsers, of which the description of
# openapi.yaml tells once.
HTTP_HEADERS = {"content-type", "content-length", "transfer-encoding", "connection", "date", "server"}
BROWSER_HEADERS = {name.decode() for name in OUR_NAMES} - {name.lower() for name in COMMON_HEADERS}
UNDECLARED = frozenset(HTTP_HEADERS | BROWSER_HEADERS)
Positive = Annotated[int, Meta(ge=1, le=fields.MAX_INT32, extra_json_schema=fields.INT32)]
# What the code sends in each header, as the type of a field would say it.
HEADER_TYPES = {
    "Access-Control-Allow-Origin": Annotated[str, Meta(max_length=255, pattern="^https?://")],
    "Cache-Control": Annotated[
        str, Meta(extra_json_schema={"const": dict(SECURITY_HEADERS)[b"cache-control"].decode()})
    ],
    "Content-Disposition": Annotated[
        str, Meta(max_length=80, pattern=r'^attachment; filename="day-sheet-[0-9-]{10}\.pdf"$')
    ],
    "ETag": Annotated[str, Meta(max_length=80, pattern='^"[0-9a-f]+"$')],
    "Idempotency-Replayed": Annotated[str, Meta(extra_json_schema={"const": "true"})],
    "RateLimit-Limit": Positive,
    "RateLimit-Policy": Annotated[str, Meta(max_length=40, pattern="^[0-9]+; w=[0-9]+$")],
    "RateLimit-Remaining": fields.Count,
    "RateLimit-Reset": fields.Count,
    "Retry-After": Positive,
    "Set-Cookie": Annotated[str, Meta(max_length=4096, pattern="^(access|refresh)_token=")],
    "WWW-Authenticate": Annotated[str, Meta(extra_json_schema={"const": CHALLENGE})],
    "X-Accel-Buffering": Annotated[
        str, Meta(extra_json_schema={"const": dict(STREAM_HEADERS)[b"x-accel-buffering"].decode()})
    ],
    "X-Request-Id": fields.Id,
}
# Values that the code makes; tests/contract/test_contract.py compares them with these types.
SAMPLES = [
    ("ETag", entity_tag(b"")),
    ("Set-Cookie", access_cookie("a.b.c", 900).to_encoded_header()[1].decode()),
    ("Set-Cookie", refresh_cookie("", 0).to_encoded_header()[1].decode()),
    *rate_limit_headers(Count(1, fields.MAX_INT32, 60, fields.MAX_INT32)).items(),
    *rate_limit_headers(Count(2, 1, 0, 1)).items(),
]


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
        if name in HEADER_TYPES:
            schema = resolve(document, resolve(document, header)["schema"])
            yield from differences(
                normalize(msgspec.json.schema(HEADER_TYPES[name])), normalize(schema), f"header {name}"
            )
        else:
            yield f"header {name}: HEADER_TYPES of tests/support/headers.py does not know it"
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
        for name in sorted(own - sent):
            yield f"header {name} is declared, though the handler returns no Response"


def sendable_headers(handler: Operation, status: str) -> set[str]:
    """The headers that an answer of this status may carry, less those that the handler itself sets."""
    names = set(COMMON_HEADERS | HEADERS_BY_STATUS.get(status, set()))
    if handler.operation_id == "login":
        is_told = status in COUNTED_LOGIN_STATUSES
    else:
        is_told = is_counted(handler) and (status != "401" or counts_anonymous(handler))
    if is_tagged(handler) and status < "400":
        names |= {"ETag"}
    if NAME in OperationPolicy.of(handler).headers and status < "400":
        names |= {"Idempotency-Replayed"}
    if LAST_EVENT_ID in OperationPolicy.of(handler).headers and status < "400":
        names |= {"X-Accel-Buffering"}
    return names | RATE_LIMIT if is_told else names
