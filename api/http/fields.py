"""What the contract's schemas are made of: types of fields with their bounds, base structs, page and
limit."""

import re
from datetime import UTC, date, datetime
from typing import Annotated
from unicodedata import category
from uuid import UUID

from litestar.exceptions import NotFoundException
from litestar.params import FromPath, QueryParameter
from msgspec import Meta, Struct, UnsetType

from security.authentication import MAX_ADDRESS_LENGTH
from security.passwords import MAX_BYTES, MIN_CHARACTERS

# White space is what Python or JavaScript takes for it, so that a pattern means the same in both. NUL is
# excluded because PostgreSQL cannot store it.
NOT_BLANK = r"^[\s\u001c-\u001f\u0085\ufeff]*[^\s\u001c-\u001f\u0085\ufeff\u0000][^\u0000]*$"
EMPTY_OR_NOT_BLANK = f"^(?:{NOT_BLANK[1:-1]})?$"
TEXT = r"^[^\u0000]*$"
EMAIL = r"^[ \t\r\n]*[^\s\u001c-\u001f\u0085\ufeff@\u0000]+@[^\s\u001c-\u001f\u0085\ufeff@\u0000]+[ \t\r\n]*$"
# Invisible characters, with which one e-mail address can look like another: control and format characters,
# white space beyond ASCII, fillers, variation selectors, private use. This pattern covers the basic
# multilingual plane, because Python and JavaScript share no escape for the other planes; `is_visible` covers
# them all.
INVISIBLE = (
    r"[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u00a0\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891"
    r"\u08e2\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164"
    r"\ue000-\uf8ff\ufdd0-\ufdef\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff]"
)
INVISIBLE_CATEGORIES = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"}
# A URI with the scheme https, or without a scheme. Browsers skip control characters and blanks before a
# scheme, and tabs and line breaks within it; so does this.
REFERENCE = (
    r"^(?![\s\u0000-\u0020\u0085\ufeff]*(?![hH][tT][tT][pP][sS]:)[A-Za-z][A-Za-z0-9+.\-\t\n\r]*:)[^\u0000]*$"
)
CLOCK = r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"
CURSOR = r"^[0-9a-z.-]*$"
INT32 = {"format": "int32"}
MAX_INT32 = 2_147_483_647
MAX_BODY_BYTES = 256 * 1024  # bytes
MAX_PAGE_SIZE = 100
MAX_SEARCH_LENGTH = 200
MAX_LISTED = 100  # values of one parameter
MAX_PHONE_LENGTH = 40
MAX_EMAIL_LENGTH = 254  # RFC 5321, 4.5.3.1.3, less the brackets
MAX_SAFE_INTEGER = 9_007_199_254_740_991  # what a JavaScript number holds exactly

# The formats of JSON Schema. msgspec and Litestar accept more spellings: a UUID without hyphens, an offset
# without a colon, a number of seconds since 1970.
FORMAT_PATTERNS = {
    "uuid": re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"),
    "date": re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}"),
    "date-time": re.compile(
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
    ),
}

MAX_UUID = {"maxLength": 36}
Id = Annotated[UUID, Meta(extra_json_schema=MAX_UUID)]
# An id in a path. The router takes any text, because a malformed id is 404 like an unknown one (`path_id`).
PathId = FromPath[Annotated[str, Meta(extra_json_schema={"format": "uuid", **MAX_UUID})]]
Instant = Annotated[datetime, Meta(tz=True, extra_json_schema={"maxLength": 64})]
Day = Annotated[date, Meta(extra_json_schema={"maxLength": 10})]
Clock = Annotated[str, Meta(max_length=5, pattern=CLOCK)]
Name = Annotated[str, Meta(min_length=1, max_length=200, pattern=NOT_BLANK)]
Reason = Annotated[str, Meta(min_length=1, max_length=500, pattern=NOT_BLANK)]
Email = Annotated[str, Meta(min_length=3, max_length=MAX_EMAIL_LENGTH, pattern=EMAIL)]
VISIBLE_ONLY = {"not": {"pattern": INVISIBLE}}
SentEmail = Annotated[
    str, Meta(min_length=3, max_length=MAX_EMAIL_LENGTH, pattern=EMAIL, extra_json_schema=VISIBLE_ONLY)
]
NewPassword = Annotated[str, Meta(min_length=MIN_CHARACTERS, max_length=MAX_BYTES, pattern=TEXT)]
AnyPassword = Annotated[str, Meta(max_length=1024, pattern=TEXT)]
Phone = Annotated[str, Meta(max_length=MAX_PHONE_LENGTH, pattern=TEXT)]
PeerAddress = Annotated[str, Meta(max_length=MAX_ADDRESS_LENGTH, pattern=TEXT)]
Count = Annotated[int, Meta(ge=0, le=MAX_INT32, extra_json_schema=INT32)]


def wire_name(field: str) -> str:
    """The name of a field in JSON: camelCase, except `created_at`, which the requirement writes like this."""
    first, *rest = field.split("_")
    return field if field == "created_at" else first + "".join(word.capitalize() for word in rest)


class Output(Struct, rename=wire_name):
    """What we answer. Its fields have no defaults, so that a missing column is an error and not a null."""


class Input(Struct, forbid_unknown_fields=True, rename=wire_name):
    """What we are sent. A field that the schema does not have is refused."""


class Message(Output):
    message: Annotated[str, Meta(min_length=1, max_length=200)]


class ErrorDetail(Output):
    detail: Annotated[str, Meta(min_length=1, max_length=1000)]


PageNumber = Annotated[int, Meta(ge=1, le=MAX_INT32, extra_json_schema=INT32)]
PageSize = Annotated[int, Meta(ge=1, le=MAX_PAGE_SIZE, extra_json_schema=INT32)]
# Litestar takes the bounds from QueryParameter, our error messages take them from the type
# (api/http/json_schema.py).
Page = Annotated[PageNumber, QueryParameter(ge=1, le=MAX_INT32)]
Limit = Annotated[PageSize, QueryParameter(ge=1, le=MAX_PAGE_SIZE)]
Search = Annotated[
    str,
    Meta(max_length=MAX_SEARCH_LENGTH, pattern=TEXT),
    QueryParameter(max_length=MAX_SEARCH_LENGTH, pattern=TEXT),
]


IdList = Annotated[list[Id], Meta(min_length=1, max_length=MAX_LISTED)]  # separated by commas


def or_none(text: str | UnsetType | None) -> str | None:
    """The value of an optional text of a POST body, in which absent, null and `""` all mean none."""
    return text or None


def to_utc(instant: datetime | None) -> datetime | None:
    """The bound of a filter, as PostgreSQL takes it: one without an offset of its own."""
    return instant and instant.astimezone(UTC)


def is_unicode(text: str) -> bool:
    """Whether the text has no lone surrogates, by which Python represents bytes that are not UTF-8."""
    return text.encode("utf-8", "replace").decode() == text


def is_visible(text: str) -> bool:
    """Whether each character, except for ASCII white space, is one that people see (by Unicode's general
    categories and its default-ignorable code points)."""
    hidden = re.search(INVISIBLE, text) or re.search("[\U000e0000-\U000e0fff\U0001bca0-\U0001bca3]", text)
    return not hidden and not any(
        category(one) in INVISIBLE_CATEGORIES for one in text if one not in " \t\r\n"
    )


def path_id(text: str, noun: str) -> UUID:
    """The id in a path. Raises 404 for a malformed one, as for an id that does not exist."""
    if not FORMAT_PATTERNS["uuid"].fullmatch(text):
        raise NotFoundException(f"{noun} not found")
    return UUID(text)
