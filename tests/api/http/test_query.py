"""How queries are read, whatever the resource (contract, "Values", "Paging and search"): no unknown and no
repeated parameter, strict formats, and an empty filter filters nothing."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from api.contract import contract
from api.http.json_schema import array_of
from security.roles import Role
from tests.support.client import Browser
from tests.support.factories import World, chart
from tests.support.openapi import operations, resolve, with_values

NOBODY = "00000000-0000-4000-8000-000000000000"
OPEN = (
    "/health/live",
    "/health/ready",
    "/docs",
    "/openapi.json",
    "/openapi.yaml",
    "/.well-known/security.txt",
)


def calls() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every operation under /api that has a body to say what is wrong: (method, path of an unknown object,
    operation)."""
    for method, path, operation in operations(contract()):
        if path.startswith("/api/") and method != "HEAD":
            yield method, with_values(path, NOBODY), operation


def caller(world: World, operation: dict[str, Any]) -> Browser:
    """A user who may call the operation."""
    if operation["operationId"] == "refresh":
        return world.admin
    return world.people[Role(operation.get("x-roles", ["admin"])[0])]


def queries(operation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The query parameters and their schemas; of several values, that of each."""
    found = [resolve(contract(), parameter) for parameter in operation.get("parameters", [])]
    schemas = {p["name"]: resolve(contract(), p["schema"]) for p in found if p["in"] == "query"}
    several = {name: array_of(schema) for name, schema in schemas.items()}
    return {name: resolve(contract(), (several[name] or {}).get("items", schemas[name])) for name in schemas}


def options(operation: dict[str, Any]) -> dict[str, Any]:
    return {"json": {}} if "requestBody" in operation else {}


def knows(refused: httpx.Response, opening: str) -> set[str]:
    """The parameters that the answer lists as known, after its sentence about the unknown one."""
    detail: str = refused.json()["detail"]
    assert detail.startswith(opening)
    said = detail.removeprefix(opening)
    return set() if said == "this operation takes none" else set(said.removeprefix("known are ").split(", "))


CALLS = [pytest.param(*call, id=call[2]["operationId"]) for call in calls()]
LISTS = [call for call in calls() if queries(call[2])]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path", "operation"), CALLS)
def test_an_unknown_query_parameter_is_400(
    world: World, method: str, path: str, operation: dict[str, Any]
) -> None:
    """On every operation under /api, also those without parameters. The detail lists the known ones."""
    browser, known = caller(world, operation), set(queries(operation))
    for name in ("foo", "Page", "x.y", "sinceWhen", "data", "request", "n" * 64, "id"):
        refused = browser.request(method, f"{path}?{name}=1", **options(operation))
        assert refused.status_code == 400
        assert knows(refused, f"{name}: is not a known parameter; ") == known, name
    for name in ("n" * 65, "", "%3Cb%3E", "%FF", "a%20b", "search[]", "%00", "%zz", "?", "é"):
        refused = browser.request(method, f"{path}?{name}=1", **options(operation))
        assert refused.status_code == 400
        assert knows(refused, "query: has an unknown parameter; ") == known, name


@pytest.mark.parametrize(("method", "path", "operation"), CALLS)
def test_401_and_403_come_before_an_unknown_query_parameter(
    world: World, method: str, path: str, operation: dict[str, Any]
) -> None:
    """Those who may not call the operation are not told about its parameters."""
    secured = operation.get("security", contract()["security"]) and {} not in operation.get("security", [])
    if secured:
        answer = world.service.browser().request(method, f"{path}?foo=1", **options(operation))
        assert answer.status_code == 401


def test_a_write_with_an_unknown_query_parameter_writes_nothing(world: World) -> None:
    before = world.staff.get("/api/patients").json()["total"]
    assert world.staff.post("/api/patients?notify=true", chart()).status_code == 400
    assert world.staff.get("/api/patients").json()["total"] == before


@pytest.mark.parametrize("path", OPEN)
def test_outside_the_api_only_repeated_query_parameters_are_refused(anonymous: Browser, path: str) -> None:
    """A parameter that a cache or a monitor adds is ignored there."""
    for query in ("cache-buster=1&x", "%FF=1", "x=%FF", "%00=%zz"):
        assert anonymous.get(f"{path}?{query}").status_code == 200, query
    refused = anonymous.get(f"{path}?x=1&x=2")
    assert (refused.status_code, refused.json()) == (
        400,
        {"detail": "A query parameter may be given only once"},
    )


@pytest.mark.parametrize(("method", "path", "operation"), CALLS)
def test_a_repeated_query_parameter_is_400(
    world: World, method: str, path: str, operation: dict[str, Any]
) -> None:
    for query in ("x=1&x=1", "x&x", *(f"{name}=&{name}=" for name in queries(operation))):
        refused = caller(world, operation).request(method, f"{path}?{query}", **options(operation))
        assert (refused.status_code, refused.json()) == (
            400,
            {"detail": "A query parameter may be given only once"},
        )


@pytest.mark.parametrize("query", ["", "&", "&&", "&page=1&&limit=10&"])
def test_a_query_without_a_parameter_is_ignored(world: World, query: str) -> None:
    """A bare question mark, or empty pairs."""
    assert world.staff.get(f"/api/patients?{query}").json() == world.staff.get("/api/patients").json()
    if not query.strip("&"):
        assert world.staff.get(f"/api/users/me?{query}").status_code == 200


@pytest.mark.parametrize("query", ["page=1;limit=5", "page=1%26limit=5", "page=1,2", "page", "page="])
def test_only_an_ampersand_separates_query_parameters(world: World, query: str) -> None:
    refused = world.staff.get(f"/api/patients?{query}")
    assert refused.json() == {"detail": "page: must be an integer from 1 to 2147483647"}


def test_an_empty_filter_filters_nothing(world: World) -> None:
    """A form sends every field. For each list: each filter alone, all of them, and without `=`."""
    for method, path, operation in LISTS:
        if method != "GET" or NOBODY in path or path.endswith(("/duplicates", "/changes")):  # no whole lists
            continue
        if "application/pdf" in str(operation["responses"]["200"]):  # no list, and another each minute
            continue
        browser = caller(world, operation)
        filters = [name for name, kind in queries(operation).items() if kind["type"] != "integer"]
        total = browser.get(path).json().get("total")
        for query in [
            *(f"{name}=" for name in filters),
            "&".join(filters),
            "&".join(f"{n}=" for n in filters),
        ]:
            answer = browser.get(f"{path}?{query}")
            assert answer.status_code == 200, query
            # The trail grows with each look at it.
            assert answer.json().get("total") == total or path == "/api/audit", query


def test_an_empty_filter_leaves_the_other_filters_on(world: World) -> None:
    doctors = world.admin.get("/api/users?role=doctor").json()
    assert world.admin.get("/api/users?role=doctor&status=&linked=&search=").json() == doctors
    assert {user["role"] for user in doctors["users"]} == {"doctor"}


WRONG = {
    "integer": [
        *("", " ", "1e2", "1.0", "1.", "+1", "%2B1", "-1", "-0", "%201", "1%20", "0x1", "1_0", "%D9%A1", "१"),
        *(
            "0",
            "00",
            "1,0",
            "true",
            "null",
            "NaN",
            "Infinity",
            "9" * 20,
            "9" * 5000,
            "1%00",
            "1%0A",
            "01",
            "00001",
        ),
    ],
    "boolean": ["1", "0", "True", "TRUE", "yes", "on", "t", "null", "%20true", "true%20", "%20"],
    "enum": ["null", "%20", "nobody", "%00", "a,b"],
    "uuid": [
        "null",
        "1",
        "%20",
        NOBODY.replace("-", ""),
        f"{{{NOBODY}}}",
        f"urn:uuid:{NOBODY}",
        f"{NOBODY}%0A",
        f"{NOBODY},",
        f"{NOBODY},,{NOBODY}",
        f"{NOBODY},%20{NOBODY}",
        ",",
        ",".join([NOBODY] * 101),
    ],
    "date": ["null", "20420514", "2042-5-14", "2042-02-30", "2042-05-14T00:00:00Z", "today", "0", "%20"],
    "date-time": [
        "null",
        "2042-05-14",
        "2042-05-14T09:30:00",
        "2042-05-14T09:30:00+02:00",
        "0",
        "now",
        "%20",
    ],
    "string": ["%00", "x" * 300, "%FF", "%C3"],
}


def kind(rules: dict[str, Any]) -> str:
    return (
        "enum"
        if "enum" in rules
        else str(rules.get("format" if rules["type"] == "string" else "", rules["type"]))
    )


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path", "operation"), [pytest.param(*c, id=c[1]) for c in LISTS])
def test_every_malformed_query_parameter_is_400(
    world: World, method: str, path: str, operation: dict[str, Any]
) -> None:
    browser = caller(world, operation)
    options = {"json": {"from": NOBODY, "reason": "x"}} if "requestBody" in operation else {}
    for name, rules in queries(operation).items():
        for value in WRONG[kind(rules)]:
            if value == "0" and rules.get("minimum") == 0:
                continue  # which is right there
            refused = browser.request(method, f"{path}?{name}={value}", **options)
            assert refused.status_code == 400, (name, value)
            assert refused.json()["detail"].startswith(f"{name}: must "), (name, value)
        for value in rules.get("enum", ()):
            for other in (value.upper(), value.title(), f"{value}%20"):
                refused = browser.request(method, f"{path}?{name}={other}", **options)
                assert refused.status_code == 400, other


def test_all_invalid_query_parameters_are_told_at_once(world: World) -> None:
    """In one problem, followed by the faults of the body. The default error has the first of them."""
    query = "/api/users?role=nurse&linked=1&foo=2&limit=0&%3Cb%3E=1&status=active"
    refused = world.admin.get(query, headers={"accept": "application/problem+json"}).json()
    assert [(fault["parameter"], fault["code"]) for fault in refused["errors"]] == [
        ("role", "not_allowed_value"),
        ("linked", "not_allowed_value"),
        ("foo", "unknown_parameter"),
        ("limit", "out_of_range"),
        ("", "unknown_parameter"),
    ]
    assert world.admin.get(query).json() == {"detail": "role: must be one of admin, doctor, staff, patient"}
    both = world.staff.post(
        "/api/patients?foo=1", chart(name=""), headers={"accept": "application/problem+json"}
    ).json()
    assert [next(iter(fault.items())) for fault in both["errors"]] == [
        ("parameter", "foo"),
        ("pointer", "/name"),
    ]


def test_a_repeated_query_parameter_is_told_with_all_other_faults(world: World) -> None:
    """Also with a missing or unreadable body."""
    asked = {"accept": "application/problem+json", "content-type": "application/json"}
    refused = world.staff.get("/api/patients?page=0&foo=1&page=1&limit=0", headers=asked).json()
    assert [(fault["parameter"], fault["code"]) for fault in refused["errors"]] == [
        ("page", "repeated"),
        ("foo", "unknown_parameter"),
        ("limit", "out_of_range"),
    ]
    assert refused["detail"] == "A query parameter may be given only once"
    for query, first in (("foo=1&foo=2", "repeated"), ("foo=1", "unknown_parameter")):
        for content, second in ((b"", "required"), (b"{", "malformed_json"), (b"[]", "invalid_type")):
            refused = world.staff.request(
                "POST", f"/api/patients?{query}", content=content, headers=asked
            ).json()
            assert refused["code"] == first
            assert [(fault.get("pointer"), fault["code"]) for fault in refused["errors"]] == [
                (None, first),
                ("", second),
            ]


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/api/patients", "page=1&page=1"),
        ("/api/patients", "page=1&page=2"),
        ("/api/patients", "search=a&search=b"),
        ("/api/patients", "search=&search="),
        ("/api/patients", "page=1&p%61ge=1"),
        ("/api/patients", "page=1&limit=5&page=2"),
        ("/api/doctors", "limit=1&limit=2"),
        ("/api/appointments", "status=scheduled&status=cancelled"),
        ("/api/appointments", "unknown=1&unknown=2"),
        ("/api/users/me", "x&x"),
        ("/api/dashboard/stats", "x=1&x=1"),
    ],
)
def test_a_query_parameter_given_twice_is_400(world: World, path: str, query: str) -> None:
    refused = world.staff.get(f"{path}?{query}")
    assert refused.status_code == 400
    assert refused.json() == {"detail": "A query parameter may be given only once"}
