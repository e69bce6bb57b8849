"""Every answer that any test receives must be one that openapi.yaml promises: its status, its headers and its
body; and every error, of whatever path, is what the requirement says under "HTTP Status Codes" and "Error
Response Format (All Endpoints)"."""

import logging
import re
import time
from collections import Counter
from typing import Any

import httpx
from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from api.contract import contract
from tests.support import headers
from tests.support.openapi import Json, operations, resolve, security_of, success

ROOT = "urn:contract"
# Requirement, "HTTP Status Codes"; and what HTTP itself needs beside them (contract, "Errors").
STATUSES = {200, 201, 400, 401, 403, 404, 429, 500}
STATUSES_OF_HTTP = {204, 206, 304, 405, 412, 413, 415, 416, 503}
UNPARSED = {"detail": "Invalid HTTP request"}  # what the HTTP parser says, which knows of no request
RATE_LIMIT = {name.lower() for name in headers.RATE_LIMIT}
LEAKS = ("Traceback", "SELECT ", "sqlalchemy", "asyncpg", "msgspec", "litestar", "Expected `")


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


class Conformance:
    """Holds answers to a document. `answered`: how often each operation has answered with each status."""

    def __init__(self, document: Json) -> None:
        self.document = document
        # Of two paths that fit, the one with fewer parameters: /api/users/me is not /api/users/{id}.
        paths = sorted(document["paths"], key=lambda path: path.count("{"))
        self.templates = [(pattern_of(path), path) for path in paths]
        self.registry: Registry[Any] = Registry().with_resource(ROOT, DRAFT202012.create_resource(document))
        self.validators: dict[str, Draft202012Validator] = {}
        self.answered: Counter[tuple[str, int]] = Counter()

    def validator(self, pointer: str) -> Draft202012Validator:
        if pointer not in self.validators:
            self.validators[pointer] = Draft202012Validator(
                {"$ref": f"{ROOT}#{pointer}"}, registry=self.registry, format_checker=FormatChecker()
            )
        return self.validators[pointer]

    def operation(self, method: str, path: str) -> tuple[str, Json] | None:
        """(template of the path, operation), if the document has it. The path is the one that was sent."""
        if "%" in path:
            return None
        for pattern, template in self.templates:
            if pattern.fullmatch(path):
                found = self.document["paths"][template].get(method.lower())
                return (template, found) if found else None
        return None

    def operation_ids(self) -> set[str]:
        return {operation["operationId"] for _, _, operation in operations(self.document)}

    def check(self, response: httpx.Response) -> None:
        request = response.request
        where = f"{request.method} {request.url.path} -> {response.status_code}"
        assert response.status_code in STATUSES | STATUSES_OF_HTTP, where
        if request.method == "HEAD" or response.status_code == 304:
            assert response.content == b"", where
        elif response.status_code >= 400:
            self.check_error(response, where)
        assert "x-request-id" in response.headers or is_unparsed(response), f"{where}: no X-Request-Id"
        found = self.operation(request.method, request.url.raw_path.decode().partition("?")[0])
        if found is None or response.status_code == 405:
            assert response.status_code in {204, 400, 403, 404, 405, 413}, (
                f"{where}: no such operation in openapi.yaml"
            )
            assert response.status_code != 405 or "allow" in response.headers, f"{where}: no Allow"
            return
        template, declared = found
        self.answered[declared["operationId"], response.status_code] += 1
        status = str(response.status_code)
        assert status in declared["responses"], (
            f"{where}: openapi.yaml declares {sorted(declared['responses'])}"
        )
        promised = declared["responses"][status]
        at = pointer("paths", template, request.method.lower(), "responses", status)
        at = promised.get("$ref", at).removeprefix("#")
        promised = resolve(self.document, promised)
        self.check_headers(response, promised, where)
        self.check_count(response, declared, where)
        self.check_places(response, template, declared, where)
        if request.method != "HEAD" and response.status_code != 304:
            self.check_content(response, promised, at, where)

    def check_error(self, response: httpx.Response, where: str) -> None:
        body = response.json()
        if response.headers["content-type"] == "application/problem+json":
            self.check_problem(response.status_code, body, where)
        else:
            assert response.headers["content-type"] == "application/json", where
            assert set(body) == {"detail"}, f"{where}: {body}"
        assert is_unparsed(response) or "accept" in response.headers["vary"].lower(), where
        for detail in (body["detail"], *(fault["detail"] for fault in body.get("errors", ()))):
            assert isinstance(detail, str), where
            assert 0 < len(detail) <= 1000, where
            for leak in LEAKS:
                assert leak not in detail, f"{where} leaks: {body}"

    def check_problem(self, status: int, body: Json, where: str) -> None:
        """As the contract has it, also on paths that it does not have; each fault in one place of its own."""
        self.check_value(body, pointer("components", "schemas", "Problem"), where)
        assert body["status"] == status, f"{where}: {body}"
        places = [(fault.get("pointer"), fault.get("parameter")) for fault in body["errors"]]
        assert all((field is None) != (parameter is None) for field, parameter in places), f"{where}: {body}"
        assert len(set(places)) == len(places), f"{where}: {body}"

    def check_places(self, response: httpx.Response, template: str, declared: Json, where: str) -> None:
        """Each fault is where a form can find it: in the body that the operation has, or in a parameter."""
        if response.headers.get("content-type") != "application/problem+json" or not response.content:
            return
        path = self.document["paths"][template]
        parameters = [*path.get("parameters", ()), *declared.get("parameters", ())]
        names = {resolve(self.document, parameter)["name"] for parameter in parameters}
        for fault in response.json()["errors"]:
            assert "pointer" not in fault or "requestBody" in declared, f"{where}: it has no body: {fault}"
            strange = fault["code"] in {"unknown_parameter", "repeated"}
            assert fault.get("parameter", "") in {*names, ""} or strange, f"{where}: no parameter: {fault}"

    def check_headers(self, response: httpx.Response, promised: Json, where: str) -> None:
        """All that is declared as required is there, nothing that is not declared, and each is of its type.
        The HTTP parser's own answer has none of ours."""
        if is_unparsed(response):
            return
        declared = {
            name.lower(): resolve(self.document, header)
            for name, header in promised.get("headers", {}).items()
        }
        sent = set(response.headers)
        wrong = [f"{name} is not declared" for name in sent - declared.keys() - headers.UNDECLARED]
        wrong += [
            f"{name} is missing" for name in declared if declared[name].get("required") and name not in sent
        ]
        for name in declared.keys() & sent:
            schema = resolve(self.document, declared[name]["schema"])
            is_integer = schema.get("type") == "integer"
            sent_values = response.headers.get_list(name)
            values = [int(value) if is_integer else value for value in sent_values]
            checker = Draft202012Validator(schema, format_checker=FormatChecker())
            wrong += [f"{name}: {e.message}" for value in values for e in checker.iter_errors(value)]
        assert not wrong, f"{where}: headers: " + "; ".join(sorted(wrong))

    def check_count(self, response: httpx.Response, declared: Json, where: str) -> None:
        """Rate-limit headers, which are optional, are there wherever the request was counted."""
        if response.status_code == 401 and self.is_secured(declared):
            assert not RATE_LIMIT & set(response.headers), f"{where}: a 401 is not counted, yet says so"
        elif self.is_counted(response, declared):
            missing = RATE_LIMIT - set(response.headers)
            assert not missing, f"{where}: does not say where the caller stands, {missing}"

    def check_content(self, response: httpx.Response, promised: Json, at: str, where: str) -> None:
        media_type = response.headers["content-type"].split(";")[0]
        content = promised["content"]
        assert media_type in content, f"{where}: {media_type} is not among {list(content)}"
        if media_type.endswith("json"):
            self.check_value(response.json(), at + pointer("content", media_type, "schema"), where)

    def check_value(self, value: Any, at: str, where: str) -> None:
        wrong = [f"{error.json_path}: {error.message}" for error in self.validator(at).iter_errors(value)]
        assert not wrong, "\n".join(f"{where}: {error}" for error in wrong)

    def is_counted(self, response: httpx.Response, declared: Json) -> bool:
        """Whether the request was counted, as those are that succeed, so that the answer must say so. A
        foreign page is refused before that, no request is counted while Redis is away or too busy, and login
        counts once it has an e-mail."""
        counted = "RateLimit-Limit" in success(self.document, declared)[1].get("headers", {})
        foreign = (
            response.status_code == 403
            and "origin" in response.request.headers
            and "access-control-allow-origin" not in response.headers
        )
        status = str(response.status_code)
        without_email = declared["operationId"] == "login" and status not in headers.COUNTED_LOGIN_STATUSES
        busy = response.status_code == 503
        return counted and not foreign and not without_email and not busy and not outages.cover(response)

    def is_secured(self, declared: Json) -> bool:
        """Whether nothing but an access cookie opens the operation."""
        return security_of(self.document, declared) == [{"accessCookie": []}]


def pattern_of(path: str) -> re.Pattern[str]:
    """What the path of a request looks like, whatever stands in place of its parameters."""
    return re.compile(re.sub(r"\\{[^}]+\\}", "[^/]+", re.escape(path)))


def pointer(*parts: str) -> str:
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)


def is_unparsed(response: httpx.Response) -> bool:
    return response.status_code == 400 and bool(response.content) and response.json() == UNPARSED


CONTRACT = Conformance(contract())
