"""The nets that keep openapi.yaml and the code from drifting apart. Each takes a document and returns what
is wrong with it, in words that say where it is and how to mend it; an empty list is no drift."""

import json
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import msgspec
from litestar import Litestar
from litestar.routes import HTTPRoute
from msgspec import Struct

import api
from api.http import fields, problems
from api.http.requests import OperationPolicy
from security.guards import requires
from security.policy import Authentication, Counter

METHODS = ("get", "head", "put", "post", "delete", "patch")
RESOURCES = [import_module(f"api.{module.name}") for module in iter_modules(api.__path__) if not module.ispkg]
MODULES = [fields, problems, *RESOURCES]
Document = dict[str, Any]


def operations(document: Document) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield method.upper(), path, item[method]


def handlers(app: Litestar) -> dict[tuple[str, str], Any]:
    return {
        (method, route.path_format): handler
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        for method in handler.http_methods
        if method != "OPTIONS" and handler.operation_id is not None
    }


def route_drift(document: Document, app: Litestar) -> list[str]:
    """Net 1: {path, method, operationId, success status}, both ways."""
    drift = []
    code = {
        (method, path): (f"{h.operation_id}Head" if method == "HEAD" else h.operation_id, h.status_code)
        for (method, path), h in handlers(app).items()
    }
    spec = {
        (method, path): (
            operation["operationId"],
            next((int(status) for status in operation["responses"] if status.startswith("2")), None),
        )
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


@cache
def structs() -> dict[str, type[Struct]]:
    """Every schema of the code by name: the structs, and the closed sets that they use."""
    found = {}
    for module in MODULES:
        for name, value in vars(module).items():
            if (
                isinstance(value, type)
                and issubclass(value, fields.Output | fields.Input)
                and value not in (fields.Output, fields.Input)
            ):
                found[name] = value
    return found


def code_schemas() -> dict[str, Any]:
    _, components = msgspec.json.schema_components(
        list(structs().values()), ref_template="#/components/schemas/{name}"
    )
    outputs = {name for name, struct in structs().items() if issubclass(struct, fields.Output)}
    return {
        name: {**schema, "additionalProperties": False} if name in outputs else schema
        for name, schema in components.items()
    }


def normal(schema: Any) -> Any:
    """What matters of a schema, written one way: no prose, `null` as a type, sets sorted."""
    if isinstance(schema, list):
        return [normal(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {
        key: normal(value)
        for key, value in schema.items()
        if key not in {"title", "description", "default", "examples", "example", "x-order"}
    }
    kinds = kept.get("anyOf", [])
    nullable = [kind for kind in kinds if kind != {"type": "null"}]
    if len(kinds) == 2 and len(nullable) == 1 and "$ref" not in nullable[0]:
        kept = {**nullable[0], "type": sorted([nullable[0]["type"], "null"])}
    if isinstance(kept.get("type"), list):
        kept["type"] = sorted(kept["type"])
    if "enum" in kept:
        kept = {"type": "string", **kept, "enum": sorted(kept["enum"])}
    if "required" in kept:
        kept["required"] = sorted(kept["required"])
        if not kept["required"]:
            del kept["required"]
    return kept


def differences(code: Any, spec: Any, at: str) -> Iterator[str]:
    if isinstance(code, dict) and isinstance(spec, dict):
        for key in sorted(code.keys() | spec.keys()):
            yield from differences(code.get(key, "(absent)"), spec.get(key, "(absent)"), f"{at}.{key}")
    elif code != spec:
        yield f"{at}: {json.dumps(spec)} in openapi.yaml, {json.dumps(code)} in the code; make them equal"


def shape_drift(document: Document) -> list[str]:
    """Net 2: each schema is the struct of the same name, both ways."""
    code, spec = code_schemas(), document["components"]["schemas"]
    drift = [f"schema {name}: no struct in api/ has this name" for name in sorted(spec.keys() - code.keys())]
    drift += [
        f"struct {name}: components.schemas of openapi.yaml lacks it"
        for name in sorted(code.keys() - spec.keys())
    ]
    for name in sorted(code.keys() & spec.keys()):
        drift += differences(normal(code[name]), normal(spec[name]), f"schema {name}")
        if list(code[name].get("properties", {})) != list(spec[name].get("properties", {})):
            drift.append(f"schema {name}: the order of the properties is not the struct's")
    return drift


def parameter_drift(document: Document, app: Litestar) -> list[str]:
    """Net 2, for query parameters: their names are the handler's, and the reverse; a filter may be empty, a
    number may not."""
    drift = []
    code = handlers(app)
    for method, path, operation in operations(document):
        for parameter in parameters(document, operation):
            is_filter = parameter["in"] == "query" and parameter["schema"].get("type") != "integer"
            if parameter.get("allowEmptyValue", False) != is_filter:
                where = f"{method} {path}: parameter {parameter['name']}"
                drift.append(f"{where}: allowEmptyValue must be {is_filter}")
        handler = code.get((method, path))
        if handler is None:
            continue
        spec = {
            parameter["name"] for parameter in parameters(document, operation) if parameter["in"] == "query"
        }
        known = {
            getattr(field.kwarg_definition, "query", None)
            or getattr(field.kwarg_definition, "name", None)
            or name
            for name, field in handler.parsed_fn_signature.parameters.items()
            if name not in {"data", "request", "state", "id", "file", *handler.resolve_dependencies()}
        }
        if spec != known:
            drift.append(
                f"{method} {path}: query parameters are {sorted(spec)} in openapi.yaml, "
                f"{sorted(known)} in the code"
            )
    return drift


def parameters(document: Document, operation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for parameter in operation.get("parameters", []):
        if "$ref" in parameter:
            yield document["components"]["parameters"][parameter["$ref"].rsplit("/", 1)[1]]
        else:
            yield parameter


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


# 403 stands where a field or value has a role rule, beside x-roles and unsafe methods.
UNSAFE = {"POST", "PUT", "PATCH", "DELETE"}


def closedness_drift(document: Document) -> list[str]:
    """Net 3: closed objects, and every status that an operation can answer, no other."""
    drift = list(open_objects(document["components"]["schemas"], "components.schemas"))
    drift += untyped_errors(document)
    for method, path, operation in operations(document):
        security = operation.get("security", document["security"])
        secured = bool(security) and {} not in security
        is_api = path.startswith("/api/")
        needed = {"400", "500"}
        if secured:
            needed |= {"401", "503"}
        if is_api:
            needed.add("503")
        if is_api and is_limited(document, operation):
            needed.add("429")
        if operation.get("x-roles") or method in UNSAFE:
            needed.add("403")
        if "requestBody" in operation:
            needed |= {"413", "415"}
        if "{id}" in path:
            needed.add("404")
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


def is_limited(document: Document, operation: dict[str, Any]) -> bool:
    """Whether a success says where the caller stands; then the next call may be over the limit."""
    for status, answer in operation["responses"].items():
        if "$ref" in answer:
            answer = document["components"]["responses"][answer["$ref"].rsplit("/", 1)[1]]
        if status.startswith("2") and "RateLimit-Limit" in answer.get("headers", {}):
            return True
    return False


def limit_drift(document: Document, app: Litestar) -> list[str]:
    """Net 4, for limits: `x-limit` is the handler's `counter`, and what is exempt promises no count. Login
    has one of its own."""
    drift = []
    code = handlers(app)
    for method, path, operation in operations(document):
        if (method, path) not in code:
            continue  # net 1 says so
        policy = OperationPolicy.of(code[method, path])
        where = f"{method} {path}"
        if operation.get("x-limit", Counter.USER) != policy.counter:
            drift.append(
                f"{where}: x-limit {operation.get('x-limit')} in openapi.yaml, "
                f"counter={policy.counter} in the code"
            )
        is_anonymous = policy.authentication is Authentication.NONE
        counted = not is_anonymous or operation["operationId"] == "login"
        promised = is_limited(document, operation)
        if path.startswith("/api/") and promised != counted:
            drift.append(f"{where}: counted is {promised} in openapi.yaml, {counted} in the code")
    return drift


def untyped_errors(document: Document) -> Iterator[str]:
    """Errors are JSON, and RFC 9457 for whoever asks for it."""
    both = {"application/json": "ErrorDetail", "application/problem+json": "Problem"}
    for method, path, operation in operations(document):
        for status, response in operation["responses"].items():
            while "$ref" in response:
                response = document["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
            content = response.get("content", {})
            declared = {
                kind: value["schema"].get("$ref", "").rsplit("/", 1)[-1] for kind, value in content.items()
            }
            if status >= "400" and declared != both:
                yield f"{method} {path}: {status} declares {declared}, and an error is {both}"


def audit_drift(document: Document, app: Litestar) -> list[str]:
    """Net 4, too: `x-audit` is the action of the handler's decorator; whoever may write leaves a row."""
    drift = []
    code = handlers(app)
    for method, path, operation in operations(document):
        handler = code.get((method, path))
        noted = OperationPolicy.of(handler).action if handler else None
        promised = operation.get("x-audit")
        if noted != promised:
            drift.append(f"{method} {path}: x-audit {promised} in openapi.yaml, action={noted} in the code")
        if method in UNSAFE and promised is None:
            drift.append(f"{method} {path}: writes, and leaves nothing in the audit trail")
    return drift


def role_drift(document: Document, app: Litestar) -> list[str]:
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
