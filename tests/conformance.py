"""Every answer that any test receives must be one that openapi.yaml promises."""

import re
from collections import Counter
from functools import cache
from typing import Any

import httpx
from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from api.contract import contract

ROOT = "urn:contract"
REGISTRY: Registry[Any] = Registry().with_resource(ROOT, DRAFT202012.create_resource(contract()))
answered: Counter[tuple[str, int]] = Counter()


@cache
def validator(pointer: str) -> Draft202012Validator:
    return Draft202012Validator(
        {"$ref": f"{ROOT}#{pointer}"}, registry=REGISTRY, format_checker=FormatChecker()
    )


@cache
def templates() -> list[tuple[re.Pattern[str], str]]:
    """Templates without parameters first: /api/users/me is not /api/users/{id}."""
    paths = sorted(contract()["paths"], key=lambda path: path.count("{"))
    return [
        (
            re.compile(
                re.sub(r"\{[^}]+\}", "[^/]+", re.escape(path).replace(r"\{", "{").replace(r"\}", "}"))
            ),
            path,
        )
        for path in paths
    ]


def operation(method: str, path: str) -> tuple[str, dict[str, Any]] | None:
    """The path's template and the operation, if the contract has it."""
    for pattern, template in templates():
        if pattern.fullmatch(path):
            found = contract()["paths"][template].get(method.lower())
            return (template, found) if found else None
    return None


def operation_ids() -> set[str]:
    return {
        operation["operationId"]
        for item in contract()["paths"].values()
        for operation in item.values()
        if isinstance(operation, dict) and "operationId" in operation
    }


def pointer(*parts: str) -> str:
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)


def check(response: httpx.Response) -> None:
    request = response.request
    where = f"{request.method} {request.url.path} -> {response.status_code}"
    if response.status_code >= 400:
        check_error(response, where)
    found = operation(request.method, request.url.path)
    if found is None or response.status_code == 405:
        assert response.status_code in {204, 400, 403, 404, 405, 413}, (
            f"{where}: no such operation in openapi.yaml"
        )
        return
    template, declared = found
    answered[declared["operationId"], response.status_code] += 1
    status = str(response.status_code)
    if response.status_code == 304:
        return
    assert status in declared["responses"], f"{where}: openapi.yaml declares {sorted(declared['responses'])}"
    at = pointer("paths", template, request.method.lower(), "responses", status)
    promised = declared["responses"][status]
    if "$ref" in promised:
        at = promised["$ref"].removeprefix("#")
        promised = contract()["components"]["responses"][at.rsplit("/", 1)[1]]
    check_headers(response, promised, where)
    media_type = response.headers["content-type"].split(";")[0]
    assert media_type in promised["content"], (
        f"{where}: {media_type} is not among {list(promised['content'])}"
    )
    if media_type == "application/json":
        errors = list(validator(at + pointer("content", media_type, "schema")).iter_errors(response.json()))
        assert not errors, f"{where}: {errors[0].json_path}: {errors[0].message}"


def check_error(response: httpx.Response, where: str) -> None:
    assert response.headers["content-type"] == "application/json", where
    body = response.json()
    assert set(body) == {"detail"}, f"{where}: {body}"
    assert 0 < len(body["detail"]) <= 1000, where
    for leak in ("Traceback", "SELECT ", "sqlalchemy", "asyncpg", "msgspec", "litestar", "Expected `"):
        assert leak not in body["detail"], f"{where} leaks: {body}"


def check_headers(response: httpx.Response, promised: dict[str, Any], where: str) -> None:
    headers = {name.lower(): header for name, header in promised.get("headers", {}).items()}
    for name in ("retry-after", "www-authenticate", "set-cookie", "ratelimit-limit", "ratelimit-remaining"):
        assert name not in response.headers or name in headers, f"{where}: header {name} is not declared"
    for name, header in headers.items():
        if name not in response.headers:
            continue
        if "$ref" in header:
            header = contract()["components"]["headers"][header["$ref"].rsplit("/", 1)[1]]
        value: Any = response.headers[name]
        if header["schema"].get("type") == "integer":
            value = int(value)
        Draft202012Validator(header["schema"]).validate(value)
