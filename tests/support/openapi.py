"""How openapi.yaml is read: its operations, and what stands behind a reference."""

import json
from collections.abc import Iterator
from typing import Any

from api.contract import contract_json

# A document, or a part of it: JSON whose shape is the business of OpenAPI's own validator, not of types.
Json = dict[str, Any]
METHODS = ("get", "head", "put", "post", "delete", "patch")
UNSAFE = {"POST", "PUT", "PATCH", "DELETE"}


def document() -> Json:
    """openapi.yaml, for a test that changes it. What the anchors of YAML share is a copy at each place."""
    return dict(json.loads(contract_json()))


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    """(method, path, operation) of each."""
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield method.upper(), path, item[method]


def resolve(document: Json, node: Json) -> Json:
    """The node, or the component that it refers to; what stands beside the reference comes on top."""
    while "$ref" in node:
        _, section, name = node["$ref"].removeprefix("#/").split("/")
        node = {**document["components"][section][name], **{k: v for k, v in node.items() if k != "$ref"}}
    return node


def with_values(path: str, id: str) -> str:
    """The path with this id, and a secret that nobody has."""
    return path.replace("{id}", id).replace("{secret}", "x" * 43)


def parameters(document: Json, path: str, operation: Json) -> list[Json]:
    """Those of the operation, after those that it shares with others of its path."""
    shared = document["paths"][path].get("parameters", [])
    return [resolve(document, parameter) for parameter in [*shared, *operation.get("parameters", [])]]


def success(document: Json, operation: Json) -> tuple[str, Json]:
    """(status, response) of the answer that is no error, 304 apart."""
    [found] = [(s, r) for s, r in operation["responses"].items() if s.startswith("2")]
    return found[0], resolve(document, found[1])


def security_of(document: Json, operation: Json) -> list[Json]:
    """The sets of cookies that open the operation; `{}` is none."""
    default: list[Json] = document["security"]
    return list(operation.get("security", default))


def is_secured(document: Json, operation: Json) -> bool:
    """Whether nobody may call it without a cookie."""
    options = security_of(document, operation)
    return bool(options) and {} not in options


def non_null_schema(schema: Json) -> Json | None:
    """What the value is where it is not null, of a schema that says so by `anyOf`; None of any other."""
    kinds = schema.get("anyOf", [])
    others = [kind for kind in kinds if kind != {"type": "null"}]
    return others[0] if len(kinds) == 2 and len(others) == 1 else None
