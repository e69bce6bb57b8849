"""A text that does not match its pattern (contract, "Errors"): what the 400 says of it speaks of nothing
else."""

from collections.abc import Iterator
from typing import Any

import pytest

from api.http.fields import CLOCK, CURSOR, EMAIL, EMPTY_OR_NOT_BLANK, INVISIBLE, NOT_BLANK, REFERENCE, TEXT
from api.http.json_schema import describe, resolve_references
from api.http.problems import ErrorCode
from api.http.violations import text_violation
from tests.support.openapi import Json, document, operations, parameters

# Of each pattern of what is sent: a text that has a good length, and does not match.
UNMATCHED = {
    TEXT: "\0",
    NOT_BLANK: " \t",
    EMPTY_OR_NOT_BLANK: " \t",
    EMAIL: "nobody",
    CLOCK: "8:30",
    REFERENCE: "ftp://x",
    CURSOR: "ABC",
}


def sent_schemas() -> Iterator[Any]:
    """Of the queries and the bodies of all operations."""
    contract = document()
    for _, path, operation in operations(contract):
        known = [one["schema"] for one in parameters(contract, path, operation) if one["in"] == "query"]
        content = operation.get("requestBody", {}).get("content", {})
        for schema in (*known, *(kind["schema"] for kind in content.values())):
            yield resolve_references(schema, contract["components"]["schemas"])


def patterns_in(schema: Any) -> Iterator[str]:
    parts: list[Any] = list(schema.values()) if isinstance(schema, dict) else schema
    if isinstance(schema, dict) and isinstance(schema.get("pattern"), str):
        yield schema["pattern"]
    for part in parts:
        if isinstance(part, dict | list):
            yield from patterns_in(part)


def test_each_pattern_of_what_is_sent_is_known_here() -> None:
    found = {pattern for schema in sent_schemas() for pattern in patterns_in(schema)}
    assert found - {INVISIBLE} == UNMATCHED.keys()


@pytest.mark.parametrize(("pattern", "text"), UNMATCHED.items())
def test_a_text_that_does_not_match_is_not_told_of_its_length_alone(pattern: str, text: str) -> None:
    schema: Json = {"type": "string", "maxLength": 4096, "pattern": pattern}
    rule = describe(schema)
    reason = text_violation(schema, text, rule)
    assert reason is not None
    code, detail = reason
    assert code in (ErrorCode.BAD_FORMAT, ErrorCode.BAD_CHARACTERS)
    assert detail != rule
    assert detail.startswith("must ")
