"""What of a new contract would break a client that was written for an old one.

Requests may be widened and answers narrowed, never the reverse: what a client sends must still be accepted,
and what it gets must be something it knows. More keys in an answer, operations, optional fields and
parameters break no client.
"""

from collections.abc import Callable, Iterator
from operator import gt, lt
from typing import Any

from tests.support.openapi import Json, non_null_schema, operations, parameters, resolve, security_of

EVERYONE = {"admin", "doctor", "staff", "patient"}
LEAST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
MOST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
EXACT = ("pattern", "format", "multipleOf", "uniqueItems")  # of two values neither is narrower


def breaking_changes(old: Json, new: Json) -> list[str]:
    """Each in a sentence that begins with where it is; an empty list breaks no client."""
    kept = {(method, path): operation for method, path, operation in operations(new)}
    found: list[str] = []
    for method, path, operation in operations(old):
        where = f"{method} {path}"
        if (method, path) not in kept:
            found.append(f"{where}: is gone")
        else:
            found += Comparison(old, new).compare_operation(where, path, operation, kept[method, path])
    return found


def is_major(old: Json, new: Json) -> bool:
    """Whether the major version has changed, which tells clients to look."""
    return major(old) != major(new)


def major(document: Json) -> str:
    return str(document["info"]["version"]).split(".")[0]


class Comparison:
    def __init__(self, old: Json, new: Json) -> None:
        self.old = old
        self.new = new

    def compare_operation(self, where: str, path: str, old: Json, new: Json) -> Iterator[str]:
        if old["operationId"] != new["operationId"]:
            yield f"{where}: operationId is another; generated clients name their functions by it"
        yield from self.compare_access(where, old, new)
        yield from self.compare_parameters(where, path, old, new)
        yield from self.compare_body(where, old.get("requestBody"), new.get("requestBody"))
        for status, response in old["responses"].items():
            if status in new["responses"]:
                answers = resolve(self.old, response), resolve(self.new, new["responses"][status])
                yield from self.compare_response(f"{where} {status}", *answers)
            elif status.startswith("2"):
                yield f"{where}: {status} is gone"

    def compare_access(self, where: str, old: Json, new: Json) -> Iterator[str]:
        shut_out = set(old.get("x-roles", EVERYONE)) - set(new.get("x-roles", EVERYONE))
        if shut_out:
            yield f"{where}: x-roles shuts out {', '.join(sorted(shut_out))}"
        enough = [set(choice) for choice in security_of(self.new, new)]
        for choice in security_of(self.old, old) or [{}]:
            if enough and not any(needed <= set(choice) for needed in enough):
                yield f"{where}: {' and '.join(choice) or 'no cookie'} no longer suffices"

    def compare_parameters(self, where: str, path: str, old: Json, new: Json) -> Iterator[str]:
        before, now = parameters_by_name(self.old, path, old), parameters_by_name(self.new, path, new)
        for key, parameter in now.items():
            if parameter.get("required") and not before.get(key, {}).get("required"):
                yield f"{where}: parameter {key[1]} is required now"
        for key, parameter in before.items():
            if key not in now:
                yield f"{where}: parameter {key[1]} is gone"
            else:
                at = f"{where}: parameter {key[1]}"
                yield from self.compare_request_schemas(at, parameter["schema"], now[key]["schema"])

    def compare_body(self, where: str, old: Json | None, new: Json | None) -> Iterator[str]:
        if old is None:
            if new is not None and new.get("required"):
                yield f"{where}: a body is required now"
            return
        if new is None:
            yield f"{where}: the body is gone"
            return
        if new.get("required") and not old.get("required"):
            yield f"{where}: a body is required now"
        for kind, content in old["content"].items():
            if kind not in new["content"]:
                yield f"{where}: a body of {kind} is no longer taken"
            else:
                yield from self.compare_request_schemas(
                    f"{where}: body", content["schema"], new["content"][kind]["schema"]
                )

    def compare_response(self, where: str, old: Json, new: Json) -> Iterator[str]:
        for name in old.get("headers", {}).keys() - new.get("headers", {}).keys():
            # One that is not required may always have been absent.
            if resolve(self.old, old["headers"][name]).get("required"):
                yield f"{where}: header {name} is gone"
        for kind, content in old.get("content", {}).items():
            if kind not in new.get("content", {}):
                yield f"{where}: {kind} is gone"
            else:
                yield from self.compare_answer_schemas(
                    f"{where}: answer", content["schema"], new["content"][kind]["schema"]
                )

    def compare_request_schemas(self, at: str, old: Json, new: Json) -> Iterator[str]:
        """What was accepted and is refused now, or means something else."""
        old, new = written_out(self.old, old), written_out(self.new, new)
        if alternatives(old) or alternatives(new):
            yield from find_mismatches(
                alternatives(old) or [old], alternatives(new) or [new], at, self.compare_request_schemas
            )
            return
        for rule, was, is_now in find_narrowings(wide=old, tight=new):
            yield f"{at}: {rule} was {was}, is {is_now}"
        if "default" in old and old["default"] != new.get("default"):
            yield f"{at}: default was {old['default']}, is {new.get('default')}"
        taken = new.get("properties", {})
        for name in sorted(set(new.get("required", [])) - set(old.get("required", []))):
            yield f"{at}.{name}: is required now"
        for name, schema in old.get("properties", {}).items():
            if name in taken:
                yield from self.compare_request_schemas(f"{at}.{name}", schema, taken[name])
            elif new.get("additionalProperties") is False:
                yield f"{at}.{name}: is refused now"
        if "items" in old and "items" in new:
            yield from self.compare_request_schemas(f"{at}[]", old["items"], new["items"])

    def compare_answer_schemas(self, at: str, old: Json, new: Json) -> Iterator[str]:
        """What was never answered before, and what was and no longer is."""
        old, new = written_out(self.old, old), written_out(self.new, new)
        if alternatives(old) or alternatives(new):
            before, now = alternatives(old) or [old], alternatives(new) or [new]
            yield from find_mismatches(
                now, before, at, lambda at, wide, tight: self.compare_answer_schemas(at, tight, wide)
            )
            return
        for rule, is_now, was in find_narrowings(wide=new, tight=old):
            if rule != "enum" or not new.get("x-growing"):  # clients are told to expect more values
                yield f"{at}: {rule} was {was}, is {is_now}"
        given = new.get("properties", {})
        for name, schema in old.get("properties", {}).items():
            if name not in given:
                yield f"{at}.{name}: is gone"
                continue
            if name in old.get("required", []) and name not in new.get("required", []):
                yield f"{at}.{name}: may be left out now"
            yield from self.compare_answer_schemas(f"{at}.{name}", schema, given[name])
        if "items" in old and "items" in new:
            yield from self.compare_answer_schemas(f"{at}[]", old["items"], new["items"])


def find_mismatches(
    wide: list[Json], tight: list[Json], at: str, compare: Callable[[str, Json, Json], Iterator[str]]
) -> Iterator[str]:
    """For each alternative of `wide` that none of `tight` covers: how it differs from the nearest."""
    for choice in wide:
        yield from min((list(compare(at, choice, other)) for other in tight), key=len)


def find_narrowings(wide: Json, tight: Json) -> Iterator[tuple[str, Any, Any]]:
    """(rule, the wide one's, the tight one's) where what the wide schema allows may break the tight one."""
    for rule, values in (("type", type_names), ("enum", allowed_values)):
        allowed, limited = values(wide), values(tight)
        if limited and not (allowed and allowed <= limited):
            yield rule, join_values(allowed), join_values(limited)
    for rules, is_over in ((LEAST, lt), (MOST, gt)):
        for rule in rules:
            if rule in tight and (rule not in wide or is_over(wide[rule], tight[rule])):
                yield rule, wide.get(rule, "none"), tight[rule]
    for rule in EXACT:
        if rule in tight and wide.get(rule) != tight[rule]:
            yield rule, wide.get(rule, "none"), tight[rule]


def written_out(document: Json, schema: Json) -> Json:
    """The schema that a reference means; one that may be null besides says so by its type."""
    schema = resolve(document, schema)
    value = non_null_schema(schema)
    value = resolve(document, value) if value else None
    if value is None or "type" not in value or "enum" in value:
        return schema
    return {**schema, **value, "type": [value["type"], "null"], "anyOf": []}


def parameters_by_name(document: Json, path: str, operation: Json) -> dict[tuple[str, str], Json]:
    return {(p["in"], p["name"]): p for p in parameters(document, path, operation)}


def type_names(schema: Json) -> set[str]:
    """The JSON types that a schema names; none named is any."""
    kinds = schema.get("type", [])
    return {kinds} if isinstance(kinds, str) else set(kinds)


def allowed_values(schema: Json) -> set[Any]:
    return {schema["const"]} if "const" in schema else set(schema.get("enum", []))


def join_values(values: set[Any]) -> str:
    return ", ".join(sorted(map(str, values))) or "any"


def alternatives(schema: Json) -> list[Json]:
    return list(schema.get("oneOf") or schema.get("anyOf") or [])
