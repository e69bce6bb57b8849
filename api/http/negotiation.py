"""How an error is to be written, by the request's `Accept` (RFC 9110, 12.5.1). One that is not well formed
asks for nothing."""

import re
from collections.abc import Iterator
from typing import Any

from litestar.types import Scope

from api.http.headers import lines_of

JSON = "application/json"
PROBLEM = "application/problem+json"
NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
QUOTED = r'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
BLANKS = re.compile(r"[ \t]*")
RANGE = re.compile(rf"({NAME})/({NAME})[ \t]*")
PARAMETER = re.compile(rf";[ \t]*(?:({NAME})=({NAME}|{QUOTED})[ \t]*)?")
WEIGHT = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")


def wants_problem(scope: Scope) -> bool:
    """Whether Accept names application/problem+json, and likes plain JSON no better."""
    try:
        ranges = list(media_ranges(", ".join(lines_of(scope, b"accept"))))
    except ValueError:
        return False
    named = weight(ranges, PROBLEM)
    plain = next((w for kind in (JSON, "application/*", "*/*") if (w := weight(ranges, kind)) is not None), 0)
    return named is not None and named > 0 and named >= plain


def weight(ranges: list[tuple[str, float]], kind: str) -> float | None:
    """The highest that `kind` is given; None where it is not named."""
    return max((given for name, given in ranges if name == kind), default=None)


def media_ranges(text: str) -> Iterator[tuple[str, float]]:
    """(range in lower case, its q) in an Accept; parameters do not matter, all our JSON is UTF-8. ValueError
    where it is none."""
    at = taken(BLANKS, text, 0).end()
    while at < len(text):
        if text[at] != ",":  # RFC 9110, 5.6.1.2: empty elements do not count
            found = taken(RANGE, text, at)
            at, given = parameters(text, found.end())
            yield f"{found[1]}/{found[2]}".lower(), given
            if at < len(text) and text[at] != ",":
                raise ValueError(text)
        at = taken(BLANKS, text, at + 1).end()


def parameters(text: str, at: int) -> tuple[int, float]:
    """(where they end, the weight among them) of the parameters that begin at `at`."""
    given = None
    while at < len(text) and text[at] == ";":
        found = taken(PARAMETER, text, at)
        at = found.end()
        if found[1] and found[1].lower() == "q":
            if given is not None or not WEIGHT.fullmatch(found[2]):
                raise ValueError(text)
            given = float(found[2])
    return at, 1.0 if given is None else given


def taken(pattern: re.Pattern[str], text: str, at: int) -> Any:
    found = pattern.match(text, min(at, len(text)))
    if found is None:
        raise ValueError(text)
    return found
