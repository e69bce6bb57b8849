"""Everything that is wrong with a body or a query. msgspec stops at the first error, but a form marks all of
its fields at once."""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from functools import cache
from itertools import islice
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct

from api.http.fields import EMAIL, FORMAT_PATTERNS, MAX_SAFE_INTEGER, NOT_BLANK, is_unicode, is_visible
from api.http.json_schema import (
    PATTERNS_IN_WORDS,
    Schema,
    array_of,
    describe,
    kind_for,
    schema_of,
    without_null,
)
from api.http.problems import MAX_FAULTS, ErrorCode, Fault

Path = tuple[str | int, ...]
SAFE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
DIGITS = re.compile(r"0|[1-9][0-9]*")
MAX_INT32_DIGITS = 10
BLANK = re.compile(r"[\s\u001c-\u001f\u0085\ufeff]*")
TYPES = {"uuid": UUID, "date": date, "date-time": datetime}
LEAP_SECOND = re.compile(r"(?<=T[0-9]{2}:[0-9]{2}:)60", re.IGNORECASE)
NUL = (ErrorCode.BAD_CHARACTERS, "must not contain NUL characters")
REQUIRED = (ErrorCode.REQUIRED, "is required")
Reason = tuple[ErrorCode, str]


def body_faults(schema: type[Struct], body: object) -> list[Fault]:
    """What is wrong with a decoded body, in the order of its schema's fields; unknown fields come last."""
    return [
        Fault(pointer="".join(f"/{part}" for part in path), code=code, detail=detail)
        for path, (code, detail) in islice(find_violations(schema_of(schema), body, ()), MAX_FAULTS)
    ]


def field_fault(name: str, code: ErrorCode, detail: str) -> Fault:
    """A fault in one field of the body, for our own rules."""
    return Fault(pointer=f"/{name}", code=code, detail=detail)


def valid_fields(schema: type[Struct], body: object, faults: list[Fault]) -> dict[str, Any]:
    """The fields of a body that are present and have no fault. `Any`: each is of its type."""
    if not isinstance(body, dict):
        return {}
    at_fault = {field_name(fault) for fault in faults}
    return {
        name: msgspec.convert(value, kind)
        for name, kind in field_types(schema).items()
        if name not in at_fault and (value := body.get(name)) is not None
    }


@cache
def field_types(schema: type[Struct]) -> dict[str, Any]:  # Any: as msgspec gives them
    return {field.encode_name: field.type for field in msgspec.structs.fields(schema)}


def sort_faults(schema: type[Struct], faults: list[Fault]) -> list[Fault]:
    """In the order of the schema's fields; unknown fields come last."""
    names = list(schema_of(schema)["properties"])
    places = {name: number for number, name in enumerate(names)}
    return sorted(faults, key=lambda fault: places.get(field_name(fault), len(names)))


def field_name(fault: Fault) -> str:
    return str(fault.pointer).split("/")[1] if fault.pointer else ""


def find_violations(schema: Schema, value: object, path: Path) -> Iterator[tuple[Path, Reason]]:
    kind = without_null(schema)
    if value is None and kind is not schema:
        return
    kind = kind_for(kind, value)
    if kind.get("type") == "object" and isinstance(value, dict):
        yield from find_object_violations(kind, value, path)
    elif kind.get("type") == "array" and isinstance(value, list) and len(value) <= kind["maxItems"]:
        for number, item in enumerate(value):
            yield from find_violations(kind["items"], item, (*path, number))
    elif reason := value_violation(kind, value, describe(schema)):
        yield path, reason


def find_object_violations(
    schema: Schema, value: dict[str, object], path: Path
) -> Iterator[tuple[Path, Reason]]:
    fields, required = schema["properties"], set(schema.get("required", ()))
    for name, rules in fields.items():
        at = (*path, name)
        needed = name in required
        if is_empty(rules, value[name], needed) if name in value else needed:
            yield at, REQUIRED
        elif name in value:
            yield from find_violations(rules, value[name], at)
    known = ", ".join(fields)
    unknown = [name for name in value if name not in fields]
    for name in filter(is_safe_to_repeat, unknown):
        yield (*path, name), (ErrorCode.UNKNOWN_FIELD, f"is not a known field; known are {known}")
    if not all(map(is_safe_to_repeat, unknown)):  # their names are not repeated
        yield path, (ErrorCode.UNKNOWN_FIELD, f"has an unknown field; known are {known}")


def is_empty(schema: Schema, value: object, is_required: bool) -> bool:
    """Whether a value stands for a required field that was left empty in a form: null, or white space where
    the schema wants more."""
    is_text = schema.get("pattern") in {NOT_BLANK, EMAIL}
    if without_null(schema) is not schema or not (is_required or is_text):
        return False
    if not isinstance(value, str):
        return value is None
    if is_text or {"enum", "anyOf"} & schema.keys() or schema.get("format") in FORMAT_PATTERNS:
        return bool(BLANK.fullmatch(value))
    return not value and schema.get("minLength", 0) > 0


def value_violation(schema: Schema, value: object, rule: str) -> Reason | None:
    """Why `value` does not match `schema`; None if it does. `rule`: all that it must be, in words."""
    if "enum" in schema:
        if value in schema["enum"]:
            return None
        return ErrorCode.NOT_ALLOWED_VALUE if isinstance(value, str) else ErrorCode.INVALID_TYPE, rule
    match schema.get("type"), value:
        case "string", str():
            return (
                format_violation(schema, value, rule)
                if "format" in schema
                else text_violation(schema, value, rule)
            )
        case "integer", int() if not isinstance(value, bool):
            is_within = schema["minimum"] <= value <= schema["maximum"]
            return None if is_within else (ErrorCode.OUT_OF_RANGE, rule)
        case "boolean", bool():
            return None
        case "array", list():
            return ErrorCode.TOO_MANY_ITEMS, rule
    return ErrorCode.INVALID_TYPE, rule


def text_violation(schema: Schema, value: str, rule: str) -> Reason | None:
    pattern = schema.get("pattern", "")
    if "\0" in value:
        return NUL
    if len(value) > schema["maxLength"]:
        return ErrorCode.TOO_LONG, rule
    if len(value) < schema.get("minLength", 0) and pattern != EMAIL:
        return ErrorCode.TOO_SHORT, rule
    if "not" in schema and not is_visible(value):
        return ErrorCode.BAD_CHARACTERS, "must be an e-mail address without invisible characters"
    if re.search(pattern, value):
        return None
    return ErrorCode.BAD_FORMAT, PATTERNS_IN_WORDS.get(pattern, rule).format(rule=rule)


def format_violation(schema: Schema, value: str, rule: str) -> Reason | None:
    """Stricter than msgspec and Litestar, which also accept a UUID without hyphens or seconds since 1970."""
    name = schema["format"]
    if not is_malformed(name, value) and len(value) <= schema.get("maxLength", len(value)):
        return None
    mended, leaps = LEAP_SECOND.subn("59", value)
    if name == "date-time" and leaps and not is_malformed(name, mended):
        return ErrorCode.BAD_FORMAT, "must not be a leap second"
    return ErrorCode.BAD_FORMAT, rule


def is_malformed(name: str, value: str) -> bool:
    """Whether `value` is not in the format `name`."""
    if not FORMAT_PATTERNS[name].fullmatch(value):
        return True
    try:
        msgspec.convert(value, TYPES[name])
    except msgspec.ValidationError:  # such as the 30th of February
        return True
    return False


def check_query(
    known: Schema, given: list[tuple[str, str]], is_closed: bool, has_filters: bool = True
) -> tuple[list[Fault], list[tuple[str, str]]]:
    """(what is wrong, what the handler reads) of a query. `known`: the schemas of its parameters. An empty
    filter counts as absent; that of a write is none (`has_filters`). `is_closed`: an unknown parameter is an
    error; otherwise it is left out."""
    faults, kept = [], []
    for name, value in given:
        schema = known.get(name)
        if schema is None:
            reason = unknown_parameter_violation(known, name) if is_closed else None
        elif not is_unicode(value):
            reason = (ErrorCode.BAD_FORMAT, "must be UTF-8, percent-encoded")
        elif not value and has_filters and schema.get("type") != "integer":
            continue
        else:
            reason = parameter_violation(schema, value)
            if reason is None and schema.get("format") == "date-time":
                reason = utc_violation(value)
        if reason is not None:
            faults.append(parameter_fault(name, reason))
        elif schema is not None:
            kept.append((name, value))
    return faults[:MAX_FAULTS], kept


def parameter_violation(schema: Schema, value: str) -> Reason | None:
    """What is wrong with a parameter, or with the first that is wrong of several values."""
    several = array_of(schema)
    if several is None:
        return value_violation(schema, parse_parameter(schema, value), describe(schema))
    values, most = value.split(","), several["maxItems"]
    if len(values) > most:
        return ErrorCode.TOO_MANY_ITEMS, f"must be at most {most} values, separated by commas"
    return next(filter(None, (parameter_violation(several["items"], one) for one in values)), None)


def utc_violation(instant: str) -> Reason | None:
    """What is wrong with an instant whose date in UTC is outside of the years 1 to 9999."""
    try:
        msgspec.convert(instant, datetime).astimezone(UTC)
    except OverflowError:
        return ErrorCode.OUT_OF_RANGE, "must be from 0001-01-01 to 9999-12-31 in UTC"
    return None


def parameter_fault(name: str, reason: Reason) -> Fault:
    code, detail = reason
    return Fault(parameter=name if is_safe_to_repeat(name) else "", code=code, detail=detail)


def unknown_parameter_violation(known: Schema, name: str) -> Reason:
    what = "is not a known parameter" if is_safe_to_repeat(name) else "has an unknown parameter"
    all_known = f"known are {', '.join(known)}" if known else "this operation takes none"
    return ErrorCode.UNKNOWN_PARAMETER, f"{what}; {all_known}"


def is_safe_to_repeat(name: str) -> bool:
    """Whether an unknown name may be repeated in an answer."""
    return SAFE_NAME.fullmatch(name) is not None


def parse_parameter(schema: Schema, value: str) -> object:
    """The value of a parameter; the text itself if it is not a value of the parameter's type."""
    if schema.get("type") == "integer" and DIGITS.fullmatch(value):
        return int(value) if len(value) <= MAX_INT32_DIGITS else MAX_SAFE_INTEGER
    if schema.get("type") == "boolean":
        return {"true": True, "false": False}.get(value, value)
    return value
