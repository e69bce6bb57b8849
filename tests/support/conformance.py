"""Every answer that any test receives must be one that openapi.yaml promises: its status, its headers and its
body; and every error, of whatever path, is what the requirement says under "HTTP Status Codes" and "Error
Response Format (All Endpoints)"."""

import logging
import re
import time
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
# Requirement, "HTTP Status Codes"; and their only company (contract, "Errors").
STATUSES = {200, 201, 400, 401, 403, 404, 429, 500}
COMPANY = {204, 206, 304, 405, 412, 413, 415, 416, 503}
UNPARSED = {"detail": "Invalid HTTP request"}  # what the HTTP parser says, which knows of no request
RATE_LIMIT = {"ratelimit-policy", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"}
DEPENDENT = {"access-control-allow-origin"} | RATE_LIMIT
WATCHED = {"etag", "x-request-id", "retry-after", "www-authenticate", "set-cookie"} | RATE_LIMIT
answered: Counter[tuple[str, int]] = Counter()


class Outages(logging.Handler):
    """When an instance of this process last said that Redis is away. It does not ask again for a second."""

    latest = float("-inf")

    def emit(self, record: logging.LogRecord) -> None:
        self.latest = time.monotonic()

    def cover(self, response: httpx.Response) -> bool:
        asked = time.monotonic() - response.elapsed.total_seconds()
        return asked - self.latest < 2


outages = Outages()
logging.getLogger("medisecure.admission").addHandler(outages)


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
    """The path's template and the operation, if the contract has it. The path is the one that was sent."""
    if "%" in path:
        return None
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


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    """The node, or the component that it refers to."""
    if "$ref" not in node:
        return node
    kind, name = node["$ref"].split("/")[-2:]
    return dict(contract()["components"][kind][name])


def check(response: httpx.Response) -> None:
    request = response.request
    where = f"{request.method} {request.url.path} -> {response.status_code}"
    assert response.status_code in STATUSES | COMPANY, where
    if request.method == "HEAD" or response.status_code == 304:
        assert response.content == b"", where
    elif response.status_code >= 400:
        check_error(response, where)
    assert "x-request-id" in response.headers or is_unparsed(response), f"{where}: no X-Request-Id"
    found = operation(request.method, request.url.raw_path.decode().partition("?")[0])
    if found is None or response.status_code == 405:
        assert response.status_code in {204, 400, 403, 404, 405, 413}, (
            f"{where}: no such operation in openapi.yaml"
        )
        return
    template, declared = found
    answered[declared["operationId"], response.status_code] += 1
    status = str(response.status_code)
    assert status in declared["responses"], f"{where}: openapi.yaml declares {sorted(declared['responses'])}"
    at = pointer("paths", template, request.method.lower(), "responses", status)
    promised = declared["responses"][status]
    if "$ref" in promised:
        at = promised["$ref"].removeprefix("#")
    check_headers(response, resolved(promised), where)
    if request.method == "HEAD":
        return
    if response.status_code == 401 and is_secured(declared):
        assert not RATE_LIMIT & set(response.headers), f"{where}: a 401 is not counted, and must not say so"
    elif is_counted(response, declared):
        missing = RATE_LIMIT - set(response.headers)
        assert not missing, f"{where}: does not say where the caller stands, {missing}"
    if response.status_code == 304:
        return
    media_type = response.headers["content-type"].split(";")[0]
    content = resolved(promised)["content"]
    assert media_type in content, f"{where}: {media_type} is not among {list(content)}"
    if media_type.endswith("json"):
        errors = list(validator(at + pointer("content", media_type, "schema")).iter_errors(response.json()))
        assert not errors, f"{where}: {errors[0].json_path}: {errors[0].message}"


def check_error(response: httpx.Response, where: str) -> None:
    body = response.json()
    if response.headers["content-type"] == "application/problem+json":
        check_problem(response.status_code, body, where)
    else:
        assert response.headers["content-type"] == "application/json", where
        assert set(body) == {"detail"}, f"{where}: {body}"
    assert is_unparsed(response) or "accept" in response.headers["vary"].lower(), where
    for detail in (body["detail"], *(fault["detail"] for fault in body.get("errors", ()))):
        assert isinstance(detail, str), where
        assert 0 < len(detail) <= 1000, where
        for leak in ("Traceback", "SELECT ", "sqlalchemy", "asyncpg", "msgspec", "litestar", "Expected `"):
            assert leak not in detail, f"{where} leaks: {body}"


def check_problem(status: int, body: Any, where: str) -> None:
    """As the contract has it, also on paths that it does not have; each fault in one place of its own."""
    errors = list(validator(pointer("components", "schemas", "Problem")).iter_errors(body))
    assert not errors, f"{where}: {errors[0].json_path}: {errors[0].message}"
    assert body["status"] == status, f"{where}: {body}"
    places = [(fault.get("pointer"), fault.get("parameter")) for fault in body["errors"]]
    assert all((pointer is None) != (parameter is None) for pointer, parameter in places), f"{where}: {body}"
    assert len(set(places)) == len(places), f"{where}: {body}"


def check_headers(response: httpx.Response, promised: dict[str, Any], where: str) -> None:
    """What is declared comes, whether or not the contract says `required`, but for what depends on the page
    or on the count, and for what the parser cannot know."""
    headers = {name.lower(): resolved(header) for name, header in promised.get("headers", {}).items()}
    for name in WATCHED & set(response.headers):
        assert name in headers, f"{where}: header {name} is not declared"
    for name, header in headers.items():
        if name not in response.headers:
            depends = name in DEPENDENT and not header.get("required")
            assert depends or is_unparsed(response), f"{where}: header {name} is missing"
            continue
        value: Any = response.headers[name]
        if header["schema"].get("type") == "integer":
            value = int(value)
        Draft202012Validator(header["schema"], format_checker=FormatChecker()).validate(value)


def is_unparsed(response: httpx.Response) -> bool:
    return response.status_code == 400 and bool(response.content) and response.json() == UNPARSED


def is_counted(response: httpx.Response, declared: dict[str, Any]) -> bool:
    """Whether the request was counted, as those are that succeed, so that the answer must say so. A foreign
    page is refused before, nobody counts while Redis is away or too busy, and login counts once it has an
    e-mail."""
    [success] = [answer for status, answer in declared["responses"].items() if status.startswith("2")]
    counted = "RateLimit-Limit" in resolved(success)["headers"]
    foreign = (
        response.status_code == 403
        and "origin" in response.request.headers
        and "access-control-allow-origin" not in response.headers
    )
    without_email = declared["operationId"] == "login" and response.status_code not in {200, 401, 403, 429}
    busy = response.status_code == 503
    return counted and not foreign and not without_email and not busy and not outages.cover(response)


def is_secured(declared: dict[str, Any]) -> bool:
    """Whether nothing but an access cookie opens the operation."""
    return declared.get("security", contract()["security"]) == [{"accessCookie": []}]
