"""Whether a value is valid: fast, and without saying what is wrong. What is refused here is checked again by
api/http/violations.py, which says so; so this may refuse too much, but never accept too much."""

from collections.abc import Callable, Mapping
from datetime import date
from functools import cache
from math import inf
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from api.http.fields import (
    EMAIL,
    EMPTY_OR_NOT_BLANK,
    FORMAT_PATTERNS,
    NOT_BLANK,
    REFERENCE,
    TEXT,
    is_unicode,
    is_visible,
)
from api.http.json_schema import Schema, array_of, schema_of, without_null
from api.http.violations import DIGITS, MAX_INT32_DIGITS, text_violation, value_violation

Check = Callable[[Any], bool]  # of a value of the type that the schema says
PATTERNS_WITHOUT_NUL = {TEXT, NOT_BLANK, EMPTY_OR_NOT_BLANK, EMAIL, REFERENCE}


class BodyDecoder:
    """Decodes and checks the bodies of one schema."""

    def __init__(self, schema: type[Struct]) -> None:
        self.decode: Callable[[bytes], Any] = msgspec.json.Decoder(schema).decode  # Any: a `schema`
        self.fields = [(field.name, field.encode_name) for field in msgspec.structs.fields(schema)]
        properties = schema_of(schema)["properties"]
        self.checks = [
            (name, check) for name, rules in properties.items() if (check := stricter_check(rules))
        ]

    def is_valid(self, sent: Mapping[str, object]) -> bool:
        """Whether a body that msgspec has accepted is valid for us, too. `sent`: the body as plain JSON
        values."""
        for name, check in self.checks:
            value = sent.get(name)
            if value is not None and not check(value):
                return False
        return True

    def given_fields(self, value: Struct) -> dict[str, Any]:
        """The fields that were sent and are not null, by their names in the contract. `Any`: each is of its
        type."""
        found = ((name, getattr(value, field)) for field, name in self.fields)
        return {name: value for name, value in found if value is not UNSET and value is not None}


@cache
def body_decoder(schema: type[Struct]) -> BodyDecoder:
    return BodyDecoder(schema)


def stricter_check(schema: Schema) -> Check | None:
    """A check for what msgspec accepts in a field of this schema and we do not; None if there is no
    difference."""
    kind = without_null(schema)
    if "enum" in kind or kind.get("type") == "boolean":
        return None
    if kind.get("type") == "array":
        check = stricter_check(kind["items"])
        return None if check is None else lambda items: all(map(check, items))
    if kind.get("type") != "string" or kind.get("pattern", TEXT) not in PATTERNS_WITHOUT_NUL:
        return lambda value: value_violation(kind, value, "") is None
    if "format" in kind:
        return format_check(kind)
    if "not" in kind:
        return lambda text: (text.isascii() and text.isprintable()) or is_visible(text)
    return None if "pattern" in kind else lambda text: "\0" not in text


def format_check(kind: Schema) -> Check:
    fits, most = FORMAT_PATTERNS[kind["format"]].fullmatch, kind.get("maxLength", inf)
    return lambda text: len(text) <= most and fits(text) is not None


def query_check(schema: Schema) -> Check:
    """A check whether a parameter, as written in a query, is a value of this schema."""
    if several := array_of(schema):
        check, most = query_check(several["items"]), several["maxItems"]
        return lambda text: len(values := text.split(",")) <= most and all(map(check, values))
    if "enum" in schema:
        return frozenset(schema["enum"]).__contains__
    match schema.get("type"), schema.get("format"):
        case "integer", _:
            least, most = schema["minimum"], schema["maximum"]
            return lambda text: is_int32(text) and least <= int(text) <= most
        case "string", "uuid":
            return format_check(schema)
        case "string", "date":
            fits = format_check(schema)
            return lambda text: fits(text) and is_calendar_day(text)
        case "string", None:
            return lambda text: text != "" and is_unicode(text) and text_violation(schema, text, "") is None
    return lambda text: False


def is_int32(text: str) -> bool:
    return len(text) <= MAX_INT32_DIGITS and DIGITS.fullmatch(text) is not None


def is_calendar_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
