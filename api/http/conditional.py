"""Conditional requests (RFC 9110, 13): a client that has the current content already is not sent it again,
and what somebody else has changed meanwhile is not overwritten."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from types import MappingProxyType
from typing import Generic, TypeVar

import msgspec
from litestar import MediaType, Response
from litestar.response import Stream
from msgspec import Struct

from api.http.errors import AnyRequest, ApiError
from api.http.headers import header_lines
from api.http.problems import ErrorCode, Fault
from api.http.requests import StrictRequest

# An entity tag in a list (RFC 9110, 8.8.3). Between its quotes there may be commas, but no blanks.
ENTITY_TAG = re.compile(r'[ \t,]*((?:W/)?"[\x21\x23-\x7e\x80-\xff]*")[ \t]*(?:,|\Z)')
ANY = "*"
MAX_MATCH_LENGTH = 2048  # some thirty tags
T = TypeVar("T")
S_co = TypeVar("S_co", bound=Struct, covariant=True)
encode = msgspec.json.Encoder().encode


class PreconditionFailed(ApiError):
    status_code = HTTPStatus.PRECONDITION_FAILED


def entity_tag(*parts: bytes) -> str:
    """A strong validator (RFC 9110, 8.8.1) of content, given in parts."""
    digest = sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8) + part)
    return f'"{digest.hexdigest()}"'


class Tagged(Generic[S_co]):
    """One object as an answer. Its entity tag changes with everything that the answer shows, and with
    `unseen`. `whole`: the object, where the answer shows only a part of it."""

    def __init__(self, shown: S_co, *unseen: bytes, whole: Struct | None = None) -> None:
        self.shown = shown
        self.unseen = unseen
        self.whole = whole

    def encoded(self) -> tuple[bytes, str]:
        """The JSON and the object's tag."""
        body = encode(self.shown)
        return body, entity_tag(body if self.whole is None else encode(self.whole), *self.unseen)


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


def require_unchanged(request: StrictRequest, current: Tagged[Struct]) -> None:
    """Raise 412 where the request says, by If-Match or If-None-Match, that it is not to be done to `current`:
    the object as it is now, locked, so that of two requests with one tag the second finds it changed. To be
    called after every other check that may refuse the request."""
    wanted = combined_field(request, b"if-match")
    refused = combined_field(request, b"if-none-match")
    if wanted is None and refused is None:
        return
    _, tag = current.encoded()
    if wanted is not None and not {ANY, tag} & (parse_entity_tags(wanted) or frozenset()):
        raise PreconditionFailed("If-Match: this has changed since it was read. Read it again.")
    if is_cached(request, tag):
        raise PreconditionFailed("If-None-Match: this is what is here")


def find_match_faults(request: StrictRequest) -> Iterator[Fault]:
    """A rule for `headers`: If-Match, if it is there, is what RFC 9110 calls one, and not longer than any
    client needs."""
    field = combined_field(request, b"if-match")
    if field is not None and len(field) > MAX_MATCH_LENGTH:
        detail = f"must be at most {MAX_MATCH_LENGTH} characters"
        yield Fault(parameter="If-Match", code=ErrorCode.TOO_LONG, detail=detail)
        return
    if field is not None and parse_entity_tags(field) is None:
        yield Fault(parameter="If-Match", code=ErrorCode.BAD_FORMAT, detail="must be * or a list of ETags")


@dataclass(frozen=True)
class MatchPolicy:
    """Whether a chart is changed only by those who say which one they have read."""

    is_required: bool


def find_required_match_faults(request: StrictRequest) -> Iterator[Fault]:
    """A rule as the one above, and If-Match is there, if the clinic requires that."""
    is_required = request.service(MatchPolicy).is_required
    if is_required and combined_field(request, b"if-match") is None:
        detail = "is required: the ETag with which this was read"
        yield Fault(parameter="If-Match", code=ErrorCode.REQUIRED, detail=detail)
    yield from find_match_faults(request)


IF_MATCH = {"If-Match": find_match_faults}
IF_MATCH_AS_REQUIRED = {"If-Match": find_required_match_faults}


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


def conditional_head(request: AnyRequest, tag: str, *, media_type: str) -> Response[bytes] | Stream:
    """As `conditional_response`, to a HEAD whose content was not made: without its length (9.3.2)."""
    answer = conditional_response(request, b"", tag, media_type=media_type)
    if is_cached(request, tag):
        return answer
    return Stream(iter(()), media_type=media_type, headers={"ETag": tag})
