"""The JSON schemas of our types, and what they require in words. api/http/violations.py says which
requirement a value does not meet."""

import re
from functools import cache
from typing import Any

import msgspec
from msgspec import Struct

from api.http.fields import CLOCK, CURSOR, EMAIL, EMPTY_OR_NOT_BLANK, NOT_BLANK, REFERENCE
from persistence.models import AccountStatus, AppointmentStatus, Gender
from persistence.postgres.sorting import AppointmentSort, DoctorSort, PatientSort, RecordSort
from security.roles import Role

# What is said of a text that does not match its pattern.
PATTERNS_IN_WORDS = {
    EMAIL: "must be an e-mail address",
    CLOCK: "must be a time of a day from 00:00 to 24:00, such as 08:30",
    NOT_BLANK: "must not be blank",
    EMPTY_OR_NOT_BLANK: "must not be blank",
    CURSOR: "must be a cursor of this service",
    REFERENCE: "{rule}, without a URI scheme other than https",
}
FORMATS_IN_WORDS = {
    "date-time": "must be an RFC 3339 date and time with an offset, such as 2026-01-31T09:30:00Z",
    "date": "must be a date, YYYY-MM-DD",
    "uuid": "must be a UUID",
}
TYPES_IN_WORDS = {"boolean": "must be true or false", "object": "must be a JSON object"}
MUST_BE = "must be "
NULL_OR = "must be null or "
# msgspec sorts the values of an enum; in messages they stand in the order of their definition.
SORTS = (PatientSort, DoctorSort, AppointmentSort, RecordSort)
ENUM_ORDER = {
    frozenset(member.value for member in members): [member.value for member in members]
    for members in (Role, AccountStatus, Gender, AppointmentStatus, *SORTS)
}
NULL = {"type": "null"}

Schema = dict[str, Any]  # of JSON Schema: each keyword has values of a type of its own
PATH_IN_MESSAGE = re.compile(r" - at `\$\.(?P<path>[^`]*)`$")


def describe_first_violation(schema: type[Struct], error: msgspec.ValidationError) -> str:
    """`RATE_LIMIT_PER_MINUTE: must be an integer from 1 to …`: the first thing that msgspec found wrong."""
    at = PATH_IN_MESSAGE.search(str(error))
    if at is None:
        return "is not valid"
    name, _, item = at["path"].partition("[")
    rules = without_null(schema_of(schema)["properties"][name])
    return f"{at['path']}: {describe(rules['items'] if item else rules)}"


def describe(schema: Schema) -> str:
    """What a value of this schema must be, as a sentence without its subject."""
    kind = without_null(schema)
    if kind is not schema:
        return describe(kind).replace(MUST_BE, NULL_OR, 1)
    if "anyOf" in schema:
        return MUST_BE + " or ".join(map(describe_kind, schema["anyOf"]))
    if "enum" in schema:
        values: list[str] = schema["enum"]
        one_of = "one of " if len(values) > 1 else ""
        return f"must be {one_of}{', '.join(ENUM_ORDER.get(frozenset(values), values))}"
    if schema.get("format") in FORMATS_IN_WORDS:
        return FORMATS_IN_WORDS[schema["format"]]
    match schema.get("type"):
        case "string":
            least, most = schema.get("minLength", 0), schema.get("maxLength")
            return f"must be text of {f'{least} to' if least else 'at most'} {most} characters"
        case "integer":
            return f"must be an integer from {schema['minimum']} to {schema['maximum']}"
        case "array":
            return f"must be a list of at most {schema['maxItems']} items"
    return TYPES_IN_WORDS[schema["type"]]


def describe_kind(schema: Schema) -> str:
    """What a value is that is one of several kinds."""
    if schema.get("type") == "object":
        return f"an object with {', '.join(schema['required'])}"
    return describe(schema).removeprefix(MUST_BE)


def without_null(schema: Schema) -> Schema:
    """The schema of the values that are not null: `schema` itself if it does not allow null."""
    kinds = schema.get("anyOf", ())
    others = [kind for kind in kinds if kind != NULL]
    if len(others) == len(kinds):
        return schema
    return others[0] if len(others) == 1 else {**schema, "anyOf": others}


def kind_for(schema: Schema, value: object) -> Schema:
    """Which of its kinds a value is meant to be, where a schema allows an object and something else."""
    is_object = isinstance(value, dict)
    fits = (kind for kind in schema.get("anyOf", ()) if (kind.get("type") == "object") == is_object)
    return next(fits, schema)


def array_of(schema: Schema) -> Schema | None:
    """Of a query parameter that takes several values, separated by commas, the schema of all of them."""
    return next((kind for kind in schema.get("anyOf", [schema]) if kind.get("type") == "array"), None)


@cache
def schema_of(annotation: Any) -> Schema:  # Any: whatever may stand in an annotation
    """The JSON schema of a type, with references replaced by what they refer to."""
    (root,), components = msgspec.json.schema_components([annotation])
    return dict(resolve_references(root, components))


def resolve_references(schema: Any, components: Schema) -> Any:  # Any: a schema, or any part of one
    if isinstance(schema, list):
        return [resolve_references(item, components) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return resolve_references(components[schema["$ref"].rsplit("/", 1)[1]], components)
    return {key: resolve_references(value, components) for key, value in schema.items()}
