"""Net 2, schemas: those of openapi.yaml, and those of the structs and field types in the code."""

import json
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Annotated, Any, get_origin

import msgspec
from msgspec import Struct

import api
from api.http import fields, problems
from api.schedule import weekly
from tests.support.openapi import Json, non_null_schema

RESOURCES = [import_module(f"api.{module.name}") for module in iter_modules(api.__path__) if not module.ispkg]
MODULES: list[ModuleType] = [fields, problems, weekly, *RESOURCES]
PROSE = {"title", "description", "default", "examples", "example", "x-order", "x-growing"}
ABSENT = "(absent)"


@cache
def structs() -> dict[str, type[Struct]]:
    """The structs that go over the wire, by name."""
    bases = (fields.Output, fields.Input)
    return {
        name: value
        for module in MODULES
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, bases) and value not in bases
    }


@cache
def field_types() -> dict[str, Json]:
    """The schemas of the named types of fields, such as `Name = Annotated[str, Meta(…)]`."""
    return {
        name: msgspec.json.schema(value)
        for module in MODULES
        for name, value in vars(module).items()
        if get_origin(value) is Annotated
    }


@cache
def code_schemas() -> dict[str, Json]:
    """The schemas of the structs, and of the closed sets that they use."""
    _, components = msgspec.json.schema_components(
        list(structs().values()), ref_template="#/components/schemas/{name}"
    )
    outputs = {name for name, struct in structs().items() if issubclass(struct, fields.Output)}
    return {
        name: {**schema, "additionalProperties": False} if name in outputs else schema
        for name, schema in components.items()
    }


def is_field_type(schema: Json) -> bool:
    """Whether it is a value alone, which msgspec writes out at each place: no object, no closed set."""
    return "properties" not in schema and "enum" not in schema


def inline_field_types(schema: Any, schemas: dict[str, Json]) -> Any:
    """The schema with each named type of a field written out, as msgspec does."""
    if isinstance(schema, list):
        return [inline_field_types(item, schemas) for item in schema]
    if not isinstance(schema, dict):
        return schema
    name = schema.get("$ref", "").rsplit("/", 1)[-1]
    if name in schemas and is_field_type(schemas[name]):
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return {**schemas[name], **beside}
    return {key: inline_field_types(value, schemas) for key, value in schema.items()}


def normalize(schema: Any) -> Any:
    """What matters of a schema, written one way: no prose, `null` as a type, sets sorted."""
    if isinstance(schema, list):
        return [normalize(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: normalize(value) for key, value in schema.items() if key not in PROSE}
    value = non_null_schema(kept)
    if value is not None and "$ref" not in value:
        kept = {**value, "type": [value["type"], "null"]}
    if isinstance(kept.get("type"), list):
        kept["type"] = sorted(kept["type"])
    if "enum" in kept:
        kept = {"type": "string", **kept, "enum": sorted(one for one in kept["enum"] if one is not None)}
    if "required" in kept:
        kept["required"] = sorted(kept["required"])
        if not kept["required"]:
            del kept["required"]
    return kept


def differences(code: Any, spec: Any, at: str) -> Iterator[str]:
    if isinstance(code, dict) and isinstance(spec, dict):
        for key in sorted(code.keys() | spec.keys()):
            yield from differences(code.get(key, ABSENT), spec.get(key, ABSENT), f"{at}.{key}")
    elif code != spec:
        yield (
            f"{at}: {json.dumps(spec)} in openapi.yaml, {json.dumps(code)} in the code; make them equal "
            "(in the code by Meta; what it cannot say, by its extra_json_schema)"
        )


def shape_drift(document: Json) -> list[str]:
    """Each schema is the struct of the same name, both ways; a named type of a field is that of the code."""
    spec: dict[str, Json] = document["components"]["schemas"]
    code = code_schemas()
    named = {name for name in spec if is_field_type(spec[name])}
    objects = spec.keys() - named
    drift = [f"schema {name}: no struct in api/ has this name" for name in sorted(objects - code.keys())]
    drift += [
        f"struct {name}: components.schemas of openapi.yaml lacks it"
        for name in sorted(code.keys() - spec.keys())
    ]
    drift += [
        f"schema {name}: no type of a field in api/ has this name"
        for name in sorted(named - field_types().keys())
    ]
    for name in sorted(named & field_types().keys()):
        drift += differences(normalize(field_types()[name]), normalize(spec[name]), f"schema {name}")
    for name in sorted(code.keys() & objects):
        drift += differences(
            normalize(code[name]), normalize(inline_field_types(spec[name], spec)), f"schema {name}"
        )
        if list(code[name].get("properties", {})) != list(spec[name].get("properties", {})):
            drift.append(f"schema {name}: the order of the properties is not the struct's")
    return drift
