"""The fields of a request's head, as they came (RFC 9110, 5)."""

from litestar.types import Scope


def header_lines(scope: Scope, name: bytes) -> list[str]:
    """The value of every line of the field `name`, which is in lower case."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]
