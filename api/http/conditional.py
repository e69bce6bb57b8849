"""Conditional requests (RFC 9110, 13): whoever holds what we would answer need not be sent it again."""

import re
from collections.abc import Mapping
from hashlib import sha256
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from litestar import MediaType, Request, Response

from api.http.errors import ApiError
from api.http.headers import header_lines

# An entity tag among others (RFC 9110, 8.8.3); its quotes may hold commas, and no blanks.
ENTITY_TAG = re.compile(r'[ \t,]*((?:W/)?"[\x21\x23-\x7e\x80-\xff]*")[ \t]*(?:,|\Z)')
ANY = "*"
AnyRequest = Request[Any, Any, Any]


class PreconditionFailed(ApiError):
    status_code = HTTPStatus.PRECONDITION_FAILED


def entity_tag(*parts: bytes) -> str:
    """A strong validator of content, and of whatever else it stands for."""
    digest = sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8) + part)
    return f'"{digest.hexdigest()}"'


def parse_entity_tags(field: str) -> frozenset[str] | None:
    """The entity tags of a list, `*` alone for `*`, and None where it is not written as one."""
    if field.strip(" \t") == ANY:
        return frozenset({ANY})
    found, at = [], 0
    while member := ENTITY_TAG.match(field, at):
        found.append(member[1])
        at = member.end()
    return frozenset(found) if found and not field[at:].strip(" \t,") else None


def combined_field(request: AnyRequest, name: bytes) -> str | None:
    """All lines of the field as one (RFC 9110, 5.3), or None where there are none."""
    lines = header_lines(request.scope, name)
    return ", ".join(lines) if lines else None


def require_match(request: AnyRequest, tag: str) -> None:
    """If-Match, which compares strongly (13.1.1). One that nobody can read names no tag of ours: 412."""
    field = combined_field(request, b"if-match")
    if field is not None and not {ANY, tag} & (parse_entity_tags(field) or frozenset()):
        raise PreconditionFailed("If-Match: none of these is the ETag of what is here")


def is_cached(request: AnyRequest, tag: str) -> bool:
    """If-None-Match, which compares weakly (13.1.2). One that nobody can read counts as absent."""
    tags = parse_entity_tags(combined_field(request, b"if-none-match") or "") or frozenset()
    return ANY in tags or tag in {held.removeprefix("W/") for held in tags}


def conditional_response(
    request: AnyRequest,
    content: Any,
    tag: str,
    *,
    media_type: str = MediaType.JSON,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Response[Any]:
    """The answer to a GET or HEAD that would be 200: 412, 304 or `content`, in this order (13.2.2)."""
    require_match(request, tag)
    headers = {**headers, "ETag": tag}
    if is_cached(request, tag):
        return Response(b"", status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(content, media_type=media_type, headers=headers)
