"""What api/http/validators.py accepts, api/http/violations.py has nothing against."""

import json
from contextlib import suppress
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from litestar.routes import HTTPRoute
from msgspec import Meta, Struct

from api import appointments, auth, patients, records, users
from api.http import validators, violations
from api.http.fields import Input
from api.http.requests import query_schemas
from api.http.validators import BodyDecoder
from tests.support.service import Service

pytestmark = pytest.mark.slow

BODIES = [
    kind
    for module in (appointments, auth, patients, records, users)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Input) and kind is not Input
]
NASTY = st.sampled_from(
    [
        None, True, 0, 5.0, 10**30, "", " ", "\n", "a", "Ann", "a\0b", "é", "a\u200bb", "\ufeff", "\u00a0",
        "😀", "ann@example.com", " ann@example.com\n", "ann@exa\u00admple.com", "a@b", "@",
        "ann@ex ample.com",
        "2026-01-31", "2026-02-30", "20260131", "2026-1-3", "0000-01-01", "9999-12-31",
        "2026-01-31T09:30:00Z", "2026-01-31 09:30:00Z", "2026-01-31T09:30:00+0100",
        "2026-01-31T09:30Z", "2026-01-31T09:30:60Z",
        "2026-01-31t09:30:00.123456789z", "2026-01-31T09:30:00-23:59", "0001-01-01T00:00:00+23:59",
        "2026-01-31T09:30:00", "1769850000", "5f0c6d1e-8a53-4b0c-9d3c-0f6a7b1c2d3e",
        "5F0C6D1E8A534B0C9D3C0F6A7B1C2D3E", "{5f0c6d1e-8a53-4b0c-9d3c-0f6a7b1c2d3e}", "female", "doctor",
        "active", "scheduled", "O+", "javascript:alert(1)", "https://example.com/a.pdf", " \tjava\nscript:x",
        "a" * 41, "a" * 300, "é" * 40, [], ["a"], ["javascript:x"], ["a\0"], [5], ["a"] * 21, {}, {"a": 1},
    ]
)  # fmt: skip
TEXTS = st.one_of(NASTY.map(str), st.text(max_size=12))


@pytest.mark.parametrize("kind", BODIES)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_field_that_the_validators_accept_has_no_violation(kind: type[Struct], data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(msgspec.structs.fields(kind)))
    only_this = msgspec.defstruct(
        "Only", [(field.name, field.type)], bases=(Input,), rename={field.name: field.encode_name}
    )
    sent = {field.encode_name: data.draw(NASTY | TEXTS)}
    reader = BodyDecoder(only_this)
    with suppress(msgspec.DecodeError):
        reader.decode(json.dumps(sent).encode())
        assert not reader.is_valid(sent) or violations.body_faults(only_this, sent) == []


@settings(max_examples=1000, deadline=None)
@given(data=st.data())
def test_a_query_parameter_that_the_validators_accept_has_no_violation(
    service: Service, data: st.DataObject
) -> None:
    routes = (route for route in service.app.routes if isinstance(route, HTTPRoute))
    handlers = [handler for route in routes for handler in route.route_handlers if query_schemas(handler)]
    known = query_schemas(data.draw(st.sampled_from(handlers)))
    name = data.draw(st.sampled_from(list(known)))
    value = data.draw(TEXTS)
    if validators.query_check(known[name])(value):
        assert violations.check_query(known, [(name, value)], is_closed=True) == ([], [(name, value)])


class Kinds(Input):
    """Fields of kinds that no body has yet."""

    current: bool
    level: Annotated[int, Meta(ge=1, le=5)]
    code: Annotated[str, Meta(pattern=r"^[A-Z]{3}$", max_length=3)]


@pytest.mark.parametrize(
    ("field", "value", "is_accepted"),
    [
        ("current", True, True),
        ("level", 5, True),
        ("level", 6, False),
        ("code", "ABC", True),
        ("code", "abc", False),
        ("code", "AB\0", False),
    ],
)
def test_fields_of_new_kinds_are_checked_by_their_schema(field: str, value: Any, is_accepted: bool) -> None:
    sent = {"current": False, "level": 1, "code": "XYZ", field: value}
    faults = violations.body_faults(Kinds, sent)
    assert (faults == []) == is_accepted
    reader = BodyDecoder(Kinds)
    try:
        reader.decode(json.dumps(sent).encode())
    except msgspec.ValidationError:
        assert not is_accepted
    else:
        assert reader.is_valid(sent) == is_accepted


@pytest.mark.parametrize(("value", "is_accepted"), [("true", True), ("false", True), ("yes", False)])
def test_a_boolean_parameter_would_be_true_or_false(value: str, is_accepted: bool) -> None:
    faults, kept = violations.check_query({"flag": {"type": "boolean"}}, [("flag", value)], is_closed=True)
    assert (faults == [], kept == [("flag", value)]) == (is_accepted, is_accepted)
