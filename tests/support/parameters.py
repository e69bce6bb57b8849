"""Net 2, parameters: what openapi.yaml says of a query or a path, and what the handlers take."""

from collections.abc import Iterator

import msgspec
from litestar import Litestar
from litestar.params import PathParameter, QueryParameter
from litestar.typing import FieldDefinition

from api.http.json_schema import array_of, resolve_references, schema_of, without_null
from api.http.operation import Operation
from api.http.requests import OperationPolicy, query_schemas
from tests.support.handlers import handlers
from tests.support.openapi import Json, operations, parameters, resolve
from tests.support.shapes import differences, normalize

PARAMETER_KINDS = {"query": QueryParameter, "path": PathParameter}
NO_VALUE = (None, "")  # the default of a filter that is not given


def parameter_drift(document: Json, app: Litestar) -> list[str]:
    """Names, types, bounds, patterns, formats, defaults, closed sets and what is required, both ways; and a
    filter may be empty, a number may not."""
    drift = []
    code = handlers(app)
    for method, path, operation in operations(document):
        known = parameters(document, path, operation)
        drift += [f"{method} {path}: {e}" for one in known for e in emptiness_drift(document, method, one)]
        drift += [f"{method} {path}: {e}" for one in known for e in list_drift(one)]
        if (method, path) not in code:
            continue
        handler = code[method, path]
        for kind in PARAMETER_KINDS:
            where = f"{method} {path}: {kind} parameter"
            spec = {p["name"]: declared_parameter(document, p) for p in known if p["in"] == kind}
            drift += differences(accepted_parameters(handler, kind), spec, where)
            drift += [f"{where} {error}" for error in litestar_drift(handler, kind, spec)]
        drift += [f"{method} {path}: {error}" for error in header_parameter_drift(handler, known)]
    return drift


def header_parameter_drift(handler: Operation, known: list[Json]) -> Iterator[str]:
    """Fields of a request that an operation holds to a rule of its own: `headers` of its decorator. A
    malformed If-None-Match is ignored."""
    promised = {parameter["name"] for parameter in known if parameter["in"] == "header"} - {"If-None-Match"}
    checked = set(OperationPolicy.of(handler).headers)
    for name in sorted(promised ^ checked):
        yield f"header {name} is {'not checked' if name in promised else 'checked, and not in openapi.yaml'}"


def emptiness_drift(document: Json, method: str, parameter: Json) -> Iterator[str]:
    is_number = resolve(document, parameter["schema"]).get("type") == "integer"
    is_optional = not parameter.get("required", False)
    is_filter = method == "GET" and parameter["in"] == "query" and is_optional and not is_number
    if parameter.get("allowEmptyValue", False) != is_filter:
        yield f"parameter {parameter['name']}: allowEmptyValue must be {is_filter}"


def list_drift(parameter: Json) -> Iterator[str]:
    """Several values are separated by commas: a parameter that is given twice is refused."""
    written = (parameter.get("style"), parameter.get("explode"))
    if array_of(parameter["schema"]) and written != ("form", False):
        yield f"parameter {parameter['name']}: a list wants style: form and explode: false"


def declared_parameter(document: Json, parameter: Json) -> Json:
    schema = resolve(document, parameter["schema"])
    rules = normalize(resolve_references(schema, document["components"]["schemas"]))
    if parameter["in"] == "query" and rules == {"type": "boolean"}:  # which is written as one of two words
        rules = normalize({"enum": ["true", "false"]})
    return {
        "required": parameter.get("required", False),
        "default": schema.get("default"),
        "schema": rules,
    }


def accepted_parameters(handler: Operation, kind: str) -> dict[str, Json]:
    """The parameters of a handler, by their names in the contract: `schema` is what api/http/requests.py
    holds those of the query to, and what the annotation of a path's says."""
    return {
        name: {
            "required": field.is_required,
            "default": None if field.is_required or field.default in NO_VALUE else field.default,
            "schema": normalize(query_schemas(handler)[name] if kind == "query" else schema_of(field.raw)),
        }
        for name, field in arguments_of(handler, kind).items()
    }


def arguments_of(handler: Operation, kind: str) -> dict[str, FieldDefinition]:
    return {
        field.kwarg_definition.name or field.name: field
        for field in handler.parsed_fn_signature.parameters.values()
        if isinstance(field.kwarg_definition, PARAMETER_KINDS[kind])
    }


def litestar_drift(handler: Operation, kind: str, spec: dict[str, Json]) -> Iterator[str]:
    """Litestar has bounds of its own, of `QueryParameter(…)`: none may say otherwise. Those of one of several
    types it leaves out."""
    types = {field.name: field.type for field in msgspec.structs.fields(handler.signature_model)}
    for name, field in arguments_of(handler, kind).items():
        promised = spec.get(name, {}).get("schema", {})
        rules: Json = normalize(without_null(schema_of(types[field.name])))
        for rule, value in rules.items():
            if rule != "anyOf" and promised and value != promised.get(rule):
                yield f"{name}.{rule}: {promised.get(rule)} in openapi.yaml, {value} in what Litestar reads"
