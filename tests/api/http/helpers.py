"""What the tests of HTTP itself share."""

import json
from typing import Any

import httpx

from api.contract import contract
from tests.support.client import Browser
from tests.support.factories import World, chart
from tests.support.openapi import with_values
from tests.support.service import Service

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}
JSON = {"content-type": "application/json"}
TEXT = {"content-type": "text/plain"}
LISTED = "http://localhost:5173"
FOREIGN = "https://evil.example"
NOBODY = "00000000-0000-4000-8000-000000000000"
UNKNOWN = f"/api/patients/{NOBODY}"
PROBLEM = "application/problem+json"
ASKED = {"accept": PROBLEM}
LARGE = json.dumps(chart(address="x" * 300_000)).encode()


def raw(service: Service, *lines: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
    """(status, headers, body) for a request sent as it is written here."""
    answer = service.raw("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body)
    head, _, rest = answer.partition(b"\r\n\r\n")
    status, *headers = head.decode("latin-1").split("\r\n")
    names = [header.partition(": ")[0].lower() for header in headers]
    assert len(set(names)) == len(names)
    values = [header.partition(": ")[2] for header in headers]
    return int(status.split()[1]), dict(zip(names, values, strict=True)), rest


def contract_paths() -> dict[str, set[str]]:
    """The contract's paths, with an unknown id in place of each parameter, and the methods of each."""
    return {
        with_values(path, NOBODY): {method.upper() for method in operations} & METHODS
        for path, operations in contract()["paths"].items()
    }


def split_list(value: str) -> set[str]:
    return {method.strip() for method in value.split(",")}


def preflight(browser: Browser, path: str, origin: str, method: str, **headers: str) -> Any:
    asked = {"origin": origin, "access-control-request-method": method, **headers}
    return browser.request("OPTIONS", path, headers=asked)


def assert_secured(headers: Any) -> None:
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("default-src 'none'; ")
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers
    assert "x-powered-by" not in headers


Places = list[tuple[str, str]]


def places(answer: httpx.Response) -> Places:
    """(pointer or parameter, code) of each fault."""
    assert answer.headers["content-type"] == PROBLEM
    return [
        (fault.get("pointer", fault.get("parameter")), fault["code"]) for fault in answer.json()["errors"]
    ]


def calls_of_every_kind(
    world: World, anonymous: Browser
) -> list[tuple[Browser, str, str, dict[str, Any], int]]:
    """(caller, method, path, options, status) of one request for each kind of answer."""
    return [
        (world.staff, "GET", "/api/patients", {}, 200),
        (world.staff, "POST", "/api/patients", {"json": chart()}, 201),
        (world.staff, "OPTIONS", "/api/patients", {}, 204),
        (world.staff, "GET", "/api/patients?page=0", {}, 400),
        (world.staff, "POST", "/api/patients", {"json": {}}, 400),
        (anonymous, "GET", "/api/patients", {}, 401),
        (anonymous, "POST", "/api/auth/login", {"json": {"email": "no@one", "password": "x"}}, 401),
        (anonymous, "POST", "/api/auth/refresh", {}, 401),
        (world.patient, "POST", "/api/patients", {"json": chart()}, 403),
        (world.staff, "GET", UNKNOWN, {}, 404),
        (anonymous, "GET", "/api/nothing", {}, 404),
        (anonymous, "GET", "/nothing", {}, 404),
        (anonymous, "DELETE", "/api/patients", {}, 405),
        (world.staff, "POST", "/api/patients", {"content": LARGE, "headers": JSON}, 413),
        (world.staff, "POST", "/api/patients", {"content": b"{}", "headers": TEXT}, 415),
        (anonymous, "POST", "/api/auth/logout", {}, 200),
        (anonymous, "GET", "/health/live", {}, 200),
        (anonymous, "GET", "/health/ready", {}, 200),
        (anonymous, "GET", "/openapi.yaml", {}, 200),
        (anonymous, "GET", "/openapi.json", {}, 200),
        (anonymous, "GET", "/docs", {}, 200),
    ]
