"""The header fields of a request, as they came (RFC 9110, 5). Names are in lower case."""

from typing import Any

from litestar.types import Scope

HttpScope = Any  # Litestar's Scope is a union with that of WebSockets, which lacks most keys
Header = tuple[bytes, bytes]
RawHeaders = list[Header]


def header_value(scope: Scope, name: bytes) -> str | None:
    """The value of the field's first line."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return None


def header_lines(scope: Scope, name: bytes) -> list[str]:
    """The value of each line of the field."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]
