"""Whether a value is sound: quickly, and without a word for what is wrong with one that is not. What is
not accepted here, api/http/violations.py judges anew; so this may refuse too much, and never too little."""

from collections.abc import Callable
from datetime import date
from functools import cache
from math import inf
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from api.http.fields import EMAIL, NOT_BLANK, REFERENCE, TEXT, WRITTEN, is_unicode, is_visible
from api.http.json_schema import schema_of, without_null
from api.http.violations import DIGITS, MOST_DIGITS, broken_text, broken_value

Check = Callable[[Any], bool]
NUL_FREE = {TEXT, NOT_BLANK, EMAIL, REFERENCE}


class Body:
    """Reads the bodies of one schema."""

    def __init__(self, schema: type[Struct]) -> None:
        self.decode: Callable[[bytes], Any] = msgspec.json.Decoder(schema).decode
        self.fields = [(field.name, field.encode_name) for field in msgspec.structs.fields(schema)]
        properties = schema_of(schema)["properties"]
        self.checks = [
            (name, check) for name, rules in properties.items() if (check := beyond_decoder(rules))
        ]

    def is_sound(self, sent: dict[str, Any]) -> bool:
        """Whether what the decoder has taken is sound, of which `sent` is the JSON."""
        for name, check in self.checks:
            value = sent.get(name)
            if value is not None and not check(value):
                return False
        return True

    def given(self, value: Struct) -> dict[str, Any]:
        """The fields that were sent and are not null, by their names in the contract."""
        found = ((name, getattr(value, field)) for field, name in self.fields)
        return {name: value for name, value in found if value is not UNSET and value is not None}


@cache
def body_of(schema: type[Struct]) -> Body:
    return Body(schema)


def beyond_decoder(schema: dict[str, Any]) -> Check | None:
    """What msgspec lets pass in a field of this schema and we do not, or None where we agree."""
    kind = without_null(schema)
    if "enum" in kind or kind.get("type") == "boolean":
        return None
    if kind.get("type") == "array":
        check = beyond_decoder(kind["items"])
        return None if check is None else lambda items: all(map(check, items))
    if kind.get("type") != "string" or kind.get("pattern", TEXT) not in NUL_FREE:
        return lambda value: broken_value(kind, value, "") is None
    if "format" in kind:
        return written_as(kind)
    if "not" in kind:
        return lambda text: (text.isascii() and text.isprintable()) or is_visible(text)
    return None if "pattern" in kind else lambda text: "\0" not in text


def written_as(kind: dict[str, Any]) -> Check:
    fits, most = WRITTEN[kind["format"]].fullmatch, kind.get("maxLength", inf)
    return lambda text: len(text) <= most and fits(text) is not None


def of_query(schema: dict[str, Any]) -> Check:
    """Whether a parameter, as it is written in a query, is a value of this schema."""
    if "enum" in schema:
        return frozenset(schema["enum"]).__contains__
    match schema.get("type"), schema.get("format"):
        case "integer", _:
            least, most = schema["minimum"], schema["maximum"]
            return lambda text: is_whole(text) and least <= int(text) <= most
        case "string", "uuid":
            return written_as(schema)
        case "string", "date":
            fits = written_as(schema)
            return lambda text: fits(text) and is_day(text)
        case "string", None:
            return lambda text: text != "" and is_unicode(text) and broken_text(schema, text, "") is None
    return lambda text: False


def is_whole(text: str) -> bool:
    return len(text) <= MOST_DIGITS and DIGITS.fullmatch(text) is not None


def is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
