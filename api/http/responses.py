"""Answers of the layers around Litestar."""

from collections.abc import Sequence
from http import HTTPStatus

from litestar.types import Scope, Send

from api.http.errors import DETAIL_BY_STATUS
from api.http.headers import RawHeaders
from api.http.problems import ErrorCode, encode_error


async def send_error(
    scope: Scope,
    send: Send,
    status: HTTPStatus,
    detail: str | None = None,
    code: ErrorCode | None = None,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> None:
    """`detail`: by default, what is always said with this status."""
    media_type, body = encode_error(scope, status, detail or DETAIL_BY_STATUS[status], code)
    await send_response(send, status, [(b"content-type", media_type.encode()), *headers], body)


async def send_response(send: Send, status: HTTPStatus, headers: RawHeaders, body: bytes = b"") -> None:
    is_empty = status == HTTPStatus.NO_CONTENT  # which has no Content-Length (RFC 9110, 8.6)
    length = [] if is_empty else [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
    await send({"type": "http.response.body", "body": body, "more_body": False})
