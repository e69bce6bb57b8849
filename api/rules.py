"""What to say when a value breaks the contract: where it stands and the rule, never the value."""

import re
from functools import cache
from typing import Any

import msgspec
from litestar import Request

from api.schemas import EMAIL, NOT_BLANK, REFERENCE, TEXT, WRITTEN
from persistence.models import AccountStatus, AppointmentStatus, Gender
from security.roles import Role

PATTERNS = {
    NOT_BLANK: "not blank, without NUL characters",
    TEXT: "without NUL characters",
    EMAIL: "an e-mail address",
    REFERENCE: "without a URI scheme other than https and without NUL characters",
}
FORMATS = {
    "date-time": "must be an RFC 3339 date and time with an offset and no leap second, such as "
    "2026-01-31T09:30:00Z",
    "date": "must be a date, YYYY-MM-DD",
    "uuid": "must be a UUID",
}
TYPES = {"boolean": "must be true or false", "object": "must be a JSON object", "null": "must be null"}
MUST_BE = "must be "
NULL_OR = "must be null or "
# msgspec sorts the values of an enum; people read them in our order.
IN_ORDER = {
    frozenset(member.value for member in members): [member.value for member in members]
    for members in (Role, AccountStatus, Gender, AppointmentStatus)
}
PATH = re.compile(r" - at `\$(?P<path>[^`]*)`$")
MISSING = re.compile(r"^Object missing required field `(?P<name>[^`]*)`")


def broken_rule(schema: Any, error: msgspec.ValidationError) -> str:
    """`name: must be text of 1 to 200 characters …`, for the first thing wrong with a body of `schema`."""
    message = str(error)
    at = PATH.search(message)
    path = at["path"].lstrip(".") if at else ""
    if missing := MISSING.match(message):
        return f"{'.'.join(filter(None, (path, missing['name'])))}: is required"
    names = list(properties(schema))
    if message.startswith("Object contains unknown field"):
        return f"{path or 'body'}: has an unknown field; known are {', '.join(names)}"
    if not path:
        return "body: must be a JSON object"
    name = re.split(r"[.\[]", path)[0]
    rules = properties(schema).get(name)
    if rules is None:
        return "body: is not valid"
    return f"{path}: {described(item_of(rules) if '[' in path else rules)}"


def misspelt_field(schema: Any, body: Any) -> str | None:
    """The rule of the first field of a body of `schema` that is not written as its format is."""
    for name, rules in properties(schema).items():
        if is_misspelt(rules, body.get(name)):
            return f"{name}: {described(rules)}"
    return None


def parameter_rule(request: Request[Any, Any, Any], name: str) -> str:
    """The rule of the query parameter `name` of the operation that was asked for."""
    field = next(
        (f for f in request.route_handler.parsed_fn_signature.parameters.values() if f.name == name), None
    )
    return rule_of(field) if field else "The request is not valid"


def rule_of(field: Any) -> str:
    """The rule of a handler's query parameter; what is not given is not null."""
    return f"{wire_name(field)}: {described(schema_of(field.raw)).replace(NULL_OR, MUST_BE)}"


def wire_name(field: Any) -> str:
    """The name of a query parameter in the contract, which Python may not have for its own."""
    return str(getattr(field.kwarg_definition, "name", None) or field.name)


def is_misspelt(schema: dict[str, Any], value: object) -> bool:
    """Whether `value`, which could be read, is not written as the format in its schema is."""
    if not isinstance(value, str):
        return False
    kinds = [kind for kind in schema.get("anyOf", [schema]) if kind.get("format") in WRITTEN]
    return any(
        len(value) > kind.get("maxLength", len(value)) or not WRITTEN[kind["format"]].fullmatch(value)
        for kind in kinds
    )


def described(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        kinds = [kind for kind in schema["anyOf"] if kind.get("type") != "null"]
        rule = described(kinds[0])
        return rule if len(kinds) == len(schema["anyOf"]) else rule.replace(MUST_BE, NULL_OR, 1)
    if "enum" in schema:
        values = IN_ORDER.get(frozenset(schema["enum"]), schema["enum"])
        return f"must be one of {', '.join(values)}"
    if schema.get("format") in FORMATS:
        return FORMATS[schema["format"]]
    match schema.get("type"):
        case "string":
            return described_text(schema)
        case "integer":
            return f"must be an integer from {schema['minimum']} to {schema['maximum']}"
        case "array":
            return f"must be a list of at most {schema['maxItems']} items"
    return TYPES.get(str(schema.get("type")), "is not valid")


def described_text(schema: dict[str, Any]) -> str:
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    length = f"{least} to {most}" if least else f"at most {most}"
    pattern = PATTERNS.get(schema.get("pattern", ""), "")
    return f"must be text of {length} characters" + (f", {pattern}" if pattern else "")


def item_of(schema: dict[str, Any]) -> dict[str, Any]:
    """What an item of a list must be; the list itself may be nullable."""
    lists = [kind for kind in schema.get("anyOf", [schema]) if "items" in kind]
    return dict(lists[0]["items"])


@cache
def properties(schema: Any) -> dict[str, dict[str, Any]]:
    return dict(schema_of(schema).get("properties", {}))


@cache
def schema_of(annotation: Any) -> dict[str, Any]:
    """The JSON schema of a type, references replaced by what they refer to."""
    (root,), components = msgspec.json.schema_components([annotation])
    return dict(resolved(root, components))


def resolved(schema: Any, components: dict[str, Any]) -> Any:
    if isinstance(schema, list):
        return [resolved(item, components) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return resolved(components[schema["$ref"].rsplit("/", 1)[1]], components)
    return {key: resolved(value, components) for key, value in schema.items()}
