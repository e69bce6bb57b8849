"""Conditional requests (RFC 9110, 13): a client that has the current content already is not sent it again."""

import re
from collections.abc import Mapping
from hashlib import sha256
from http import HTTPStatus
from types import MappingProxyType
from typing import TypeVar

from litestar import MediaType, Response

from api.http.errors import AnyRequest, ApiError
from api.http.headers import header_lines

# An entity tag in a list (RFC 9110, 8.8.3). Between its quotes there may be commas, but no blanks.
ENTITY_TAG = re.compile(r'[ \t,]*((?:W/)?"[\x21\x23-\x7e\x80-\xff]*")[ \t]*(?:,|\Z)')
ANY = "*"
T = TypeVar("T")


class PreconditionFailed(ApiError):
    status_code = HTTPStatus.PRECONDITION_FAILED


def entity_tag(*parts: bytes) -> str:
    """A strong validator (RFC 9110, 8.8.1) of content, given in parts."""
    digest = sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8) + part)
    return f'"{digest.hexdigest()}"'


def parse_entity_tags(field: str) -> frozenset[str] | None:
    """The entity tags of a list, or `*` alone. None if the list is malformed."""
    if field.strip(" \t") == ANY:
        return frozenset({ANY})
    found, at = [], 0
    while member := ENTITY_TAG.match(field, at):
        found.append(member[1])
        at = member.end()
    return frozenset(found) if found and not field[at:].strip(" \t,") else None


def combined_field(request: AnyRequest, name: bytes) -> str | None:
    """The field's lines as one value (RFC 9110, 5.3), or None if there are none."""
    lines = header_lines(request.scope, name)
    return ", ".join(lines) if lines else None


def require_match(request: AnyRequest, tag: str) -> None:
    """Raise 412 unless If-Match, which compares strongly (13.1.1), names the tag. A malformed one does
    not."""
    field = combined_field(request, b"if-match")
    if field is not None and not {ANY, tag} & (parse_entity_tags(field) or frozenset()):
        raise PreconditionFailed("If-Match: none of these is the ETag of what is here")


def is_cached(request: AnyRequest, tag: str) -> bool:
    """Whether If-None-Match, which compares weakly (13.1.2), names the tag. A malformed one counts as
    absent."""
    tags = parse_entity_tags(combined_field(request, b"if-none-match") or "") or frozenset()
    return ANY in tags or tag in {held.removeprefix("W/") for held in tags}


def conditional_response(
    request: AnyRequest,
    content: T,
    tag: str,
    *,
    media_type: str = MediaType.JSON,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Response[T] | Response[bytes]:
    """The answer to a GET or HEAD that could be 200: 412, 304 or `content`, in this order (13.2.2)."""
    require_match(request, tag)
    headers = {**headers, "ETag": tag}
    if is_cached(request, tag):
        return Response(b"", status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(content, media_type=media_type, headers=headers)
