"""The nets that keep openapi.yaml and the code from drifting apart. Each takes a document and returns what
is wrong with it, in words that say where it is and how to mend it; an empty list is no drift. Those of
schemas, parameters and headers have modules of their own."""

from collections.abc import Iterator
from typing import Any

import pytest
from litestar import Litestar

from api.http.requests import OperationPolicy
from security.guards import requires
from security.policy import Counter
from tests.support.handlers import handlers, is_counted
from tests.support.headers import header_drift
from tests.support.openapi import UNSAFE, Json, is_secured, operations, parameters, resolve, success
from tests.support.parameters import parameter_drift
from tests.support.shapes import shape_drift


def drift(document: Json, app: Litestar) -> list[str]:
    """What any of the nets finds."""
    return [
        *route_drift(document, app),
        *shape_drift(document),
        *parameter_drift(document, app),
        *header_drift(document, app),
        *closedness_drift(document),
        *role_drift(document, app),
        *audit_drift(document, app),
        *limit_drift(document, app),
    ]


def require_no_drift(found: list[str]) -> None:
    """Fail with all that was found: pytest cuts what it prints of a list."""
    if found:
        pytest.fail("\n".join(found), pytrace=False)


def route_drift(document: Json, app: Litestar) -> list[str]:
    """Net 1: {path, method, operationId, success status}, both ways."""
    drift = []
    code = {
        (method, path): (f"{h.operation_id}Head" if method == "HEAD" else h.operation_id, h.status_code)
        for (method, path), h in handlers(app).items()
    }
    spec = {
        (method, path): (operation["operationId"], int(success(document, operation)[0]))
        for method, path, operation in operations(document)
    }
    for key in sorted(code.keys() | spec.keys()):
        where = f"{key[0]} {key[1]}"
        if key not in spec:
            drift.append(f"{where}: served by {code[key][0]}, but not in openapi.yaml; write it there first")
        elif key not in code:
            drift.append(f"{where}: promised as {spec[key][0]}, but no handler has this path and method")
        elif code[key] != spec[key]:
            drift.append(
                f"{where}: (operationId, success) is {spec[key]} in openapi.yaml, {code[key]} in code"
            )
    return drift


def open_objects(schema: Any, at: str) -> Iterator[str]:
    if isinstance(schema, dict):
        is_object = schema.get("type") == "object" or "properties" in schema
        if is_object and schema.get("additionalProperties") is not False:
            yield f"{at}: additionalProperties must be false, or a misspelt field goes unnoticed"
        for key, value in schema.items():
            yield from open_objects(value, f"{at}.{key}")
    elif isinstance(schema, list):
        for number, item in enumerate(schema):
            yield from open_objects(item, f"{at}[{number}]")


def closedness_drift(document: Json) -> list[str]:
    """Net 3: closed objects, and every status that an operation can answer, no other."""
    drift = list(open_objects(document["components"]["schemas"], "components.schemas"))
    drift += untyped_errors(document)
    for method, path, operation in operations(document):
        needed = needed_statuses(document, method, path, operation)
        declared = set(operation["responses"])
        where = f"{method} {path}"
        drift += [f"{where}: {status} is possible and not declared" for status in sorted(needed - declared)]
        only_where_needed = {"401", "403", "413", "415", "429"}
        only_where_needed -= {"401"} if path == "/api/auth/login" else set()
        drift += [
            f"{where}: {status} is declared and cannot happen"
            for status in sorted(declared & only_where_needed - needed)
        ]
    return drift


def needed_statuses(document: Json, method: str, path: str, operation: Json) -> set[str]:
    """The errors that every operation of this kind can answer. 403 stands where a field or value has a role
    rule, beside x-roles and unsafe methods."""
    needed = {"400", "500"}
    if is_secured(document, operation):
        needed |= {"401", "503"}
    if path.startswith("/api/"):
        needed.add("503")
        if promises_a_count(document, operation):
            needed.add("429")
    of_roles = [operation, *parameters(document, path, operation)]
    if any("x-roles" in one for one in of_roles) or method in UNSAFE:
        needed.add("403")
    if "requestBody" in operation:
        needed |= {"413", "415"}
    if "{id}" in path:
        needed.add("404")
    return needed


def promises_a_count(document: Json, operation: Json) -> bool:
    """Whether a success says where the caller stands; then the next call may be over the limit."""
    return "RateLimit-Limit" in success(document, operation)[1].get("headers", {})


def untyped_errors(document: Json) -> Iterator[str]:
    """Errors are JSON, and RFC 9457 for those who ask for it."""
    both = {"application/json": "ErrorDetail", "application/problem+json": "Problem"}
    for method, path, operation in operations(document):
        for status, response in operation["responses"].items():
            content = resolve(document, response).get("content", {})
            declared = {
                kind: value["schema"].get("$ref", "").rsplit("/", 1)[-1] for kind, value in content.items()
            }
            if status >= "400" and declared != both:
                yield f"{method} {path}: {status} declares {declared}, and an error is {both}"


def limit_drift(document: Json, app: Litestar) -> list[str]:
    """Net 4, for limits: `x-limit` is the handler's `counter`, and what is exempt promises no count."""
    drift = []
    code = handlers(app)
    for method, path, operation in operations(document):
        if (method, path) not in code:
            continue
        counter = OperationPolicy.of(code[method, path]).counter
        where = f"{method} {path}"
        if operation.get("x-limit", Counter.USER) != counter:
            drift.append(
                f"{where}: x-limit {operation.get('x-limit')} in openapi.yaml, counter={counter} in the code"
            )
        promised, counted = promises_a_count(document, operation), is_counted(code[method, path])
        if promised != counted:
            drift.append(f"{where}: counted is {promised} in openapi.yaml, {counted} in the code")
    return drift


def audit_drift(document: Json, app: Litestar) -> list[str]:
    """Net 4, too: `x-audit` is the action of the handler's decorator; every write leaves a row."""
    drift = []
    code = handlers(app)
    for method, path, operation in operations(document):
        handler = code.get((method, path))
        recorded = OperationPolicy.of(handler).action if handler else None
        promised = operation.get("x-audit")
        if recorded != promised:
            drift.append(
                f"{method} {path}: x-audit {promised} in openapi.yaml, action={recorded} in the code"
            )
        if method in UNSAFE and promised is None:
            drift.append(f"{method} {path}: writes, and leaves nothing in the audit trail")
        elif promised is None and {"403", "404"} & operation["responses"].keys():
            drift.append(
                f"{method} {path}: may refuse (403, 404), which the audit trail records: give it x-audit"
            )
    return drift


def role_drift(document: Json, app: Litestar) -> list[str]:
    """Net 4: `x-roles` are the roles given to `requires(…)`, both ways."""
    drift = []
    code = handlers(app)
    for method, path, operation in operations(document):
        handler = code.get((method, path))
        guards = (
            [guard for guard in handler.resolve_guards() if isinstance(guard, requires)] if handler else []
        )
        opening = f"Only for {', '.join(operation.get('x-roles', []))}."
        if "x-roles" in operation and not operation.get("description", "").startswith(opening):
            drift.append(f"{method} {path}: the description does not open with {opening!r}")
        allowed = sorted(role.value for guard in guards for role in guard.roles)
        promised = sorted(operation.get("x-roles", []))
        if allowed != promised:
            drift.append(
                f"{method} {path}: x-roles {promised} in openapi.yaml, requires({allowed}) in the code"
            )
    return drift
