"""Random cookies, bodies and queries: never a 500, never a way in. tests/support/client.py
checks every answer against the contract; hypothesis bounds the run and prints what it found, for a replay."""

import json
import os
import urllib.parse
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from api.contract import contract
from tests.support.client import Browser
from tests.support.factories import World

pytestmark = pytest.mark.slow

BOUNDED = settings(
    max_examples=120,
    deadline=None,
    database=None,
    derandomize="CI" in os.environ,  # there a change is judged, not the luck of the day
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
PRINTABLE = st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters=";,\x7f")
NUMBERS = st.integers() | st.floats(allow_nan=False) | st.just(10**400) | st.just(-(2**63))
TEXTS = st.text(max_size=60) | st.sampled_from(
    [
        *("", " ", "\0", "\ud800", "a" * 300, "2026-01-01", "admin", "true", "null", "../", "%00", "\uffff"),
        *(
            "9999-12-31T23:59:59-23:59",
            "0001-01-01T00:00:00+23:59",
            "' OR 1=1 --",
            "<script>",
            "javascript:x",
        ),
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)
WITH_BODY = [
    (method.upper(), path, body["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1])
    for path, methods in contract()["paths"].items()
    for method, operation in methods.items()
    if isinstance(operation, dict) and (body := operation.get("requestBody"))
]
LISTS = ["/api/patients", "/api/doctors", "/api/appointments", "/api/records", "/api/users", "/api/audit"]
NAMES = [
    "page",
    "limit",
    "search",
    "date",
    "status",
    "role",
    "linked",
    "patientId",
    "userId",
    "action",
    "from",
    "to",
]


def encoded(value: Any) -> bytes:
    """JSON as a hostile client would write it: lone surrogates and huge numbers included."""
    return json.dumps(value).encode()


@BOUNDED
@given(value=st.text(PRINTABLE, max_size=200))
def test_random_cookies_are_401(value: str, anonymous: Browser) -> None:
    anonymous.cookies.clear()
    headers = {b"cookie": b"access_token=" + value.encode("latin-1")}
    assert anonymous.get("/api/users/me", headers=headers).status_code == 401


@BOUNDED
@given(data=st.data())
def test_damaged_tokens_are_401(data: st.DataObject, world: World, anonymous: Browser) -> None:
    """One that was cut, doubled or changed at any place."""
    token = world.staff.cookies["access_token"]
    place = data.draw(st.integers(0, len(token) - 1))
    kind = data.draw(st.sampled_from(["cut", "drop", "change", "double", "swap"]))
    parts = token.split(".")
    damaged = {
        "cut": token[:place],
        "drop": token[:place] + token[place + 1 :],
        "change": token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :],
        "double": token + "." + parts[2],
        "swap": ".".join(data.draw(st.permutations(parts))),
    }[kind]
    if damaged == token or (kind == "change" and place == len(token) - 1):
        return  # the last character's spare bits may mean the same signature
    anonymous.cookies.clear()
    headers = {"cookie": f"access_token={damaged}"}
    assert anonymous.get("/api/users/me", headers=headers).status_code == 401


@pytest.mark.parametrize(("method", "path", "schema"), WITH_BODY)
@settings(BOUNDED, max_examples=40)
@given(data=st.data())
def test_random_bodies_never_cause_a_500(
    method: str, path: str, schema: str, data: st.DataObject, world: World
) -> None:
    """Values of any kind in the fields of the schema, and now and then any JSON at all. What the contract
    allows may succeed; everything else is refused with a clear error."""
    fields = contract()["components"]["schemas"][schema]["properties"]
    body = data.draw(
        st.fixed_dictionaries({}, optional=dict.fromkeys(fields, JSON)) | JSON, label=f"{method} {path}"
    )
    person = {"/api/records": world.doctor, "/api/appointments": world.staff}.get(path, world.admin)
    target = path.replace("{id}", "1a2b3c4d-5e6f-4a1b-8c2d-5d9e4f304a05")
    if path == "/api/users/me/password" or path == "/api/users/me":
        person = world.other_patient
    answer = person.request(
        method, target, content=encoded(body), headers={"content-type": "application/json"}
    )
    assert answer.status_code < 500


@BOUNDED
@given(content=st.binary(max_size=300))
def test_random_bytes_as_a_body_are_400(content: bytes, world: World) -> None:
    headers = {"content-type": "application/json"}
    assert world.staff.request("POST", "/api/patients", content=content, headers=headers).status_code == 400


@pytest.mark.parametrize("path", LISTS)
@settings(BOUNDED, max_examples=40)
@given(query=st.dictionaries(st.sampled_from(NAMES), TEXTS | NUMBERS.map(str), max_size=3))
def test_random_queries_are_200_or_400(path: str, query: dict[str, str], world: World) -> None:
    params = {name: value.encode("utf-8", "surrogatepass") for name, value in query.items()}
    assert world.admin.get(path, params=params).status_code in {200, 400}


@BOUNDED
@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=50))
def test_random_ids_in_a_path_are_400_or_404(text: str, world: World) -> None:
    assume(text not in {".", ".."})  # a client resolves these before it asks (RFC 3986, 5.2.4)
    segment = urllib.parse.quote(text, safe="")
    answer = world.admin.get(f"/api/patients/{segment}")
    assert answer.status_code in {400, 404}
