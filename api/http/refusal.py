"""The answer to what is not HTTP."""

import msgspec

from api.http.fields import ErrorDetail
from api.http.security_headers import SECURITY_HEADERS

INVALID_REQUEST = "Invalid HTTP request"
BODY = msgspec.json.encode(ErrorDetail(INVALID_REQUEST))
HEAD = [
    (b"content-type", b"application/json"),
    (b"content-length", b"%d" % len(BODY)),
    *SECURITY_HEADERS,
    (b"connection", b"close"),
]
LINES = [b"HTTP/1.1 400 Bad Request", *(name + b": " + value for name, value in HEAD)]
REFUSAL = b"\r\n".join(LINES) + b"\r\n\r\n" + BODY
