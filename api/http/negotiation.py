"""Content negotiation (RFC 9110, 12.5): which media type `Accept` prefers, and whether `Accept-Encoding`
allows gzip. A malformed header counts as none."""

import re
from collections.abc import Iterator

from litestar.types import Scope

from api.http.headers import header_lines

JSON = "application/json"
PROBLEM = "application/problem+json"
EVENT_STREAM = "text/event-stream"
NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
QUOTED_STRING = r'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
BLANKS = re.compile(r"[ \t]*")
MEDIA_RANGE = re.compile(rf"({NAME})/({NAME})[ \t]*")
PARAMETER = re.compile(rf";[ \t]*(?:({NAME})=({NAME}|{QUOTED_STRING})[ \t]*)?")
GZIP = re.compile(r"gzip(?:[ \t]*;[ \t]*q=(?:1(?:\.0{0,3})?|0\.(?=0*[1-9])[0-9]{1,3}))?", re.IGNORECASE)
WEIGHT = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")


def wants_problem(scope: Scope) -> bool:
    return prefers(scope, PROBLEM)


def wants_events(scope: Scope) -> bool:
    return prefers(scope, EVENT_STREAM)


def prefers(scope: Scope, kind: str) -> bool:
    """Whether Accept names this type, with a weight not below that of plain JSON."""
    try:
        ranges = list(parse_media_ranges(", ".join(header_lines(scope, b"accept"))))
    except ValueError:
        return False
    named = weight(ranges, kind)
    plain = next((w for kind in (JSON, "application/*", "*/*") if (w := weight(ranges, kind)) is not None), 0)
    return named is not None and named > 0 and named >= plain


def accepts_gzip(scope: Scope) -> bool:
    """Whether Accept-Encoding names gzip, with a weight above 0."""
    codings = ",".join(header_lines(scope, b"accept-encoding")).split(",")
    return any(GZIP.fullmatch(coding.strip(" \t")) for coding in codings)


def weight(ranges: list[tuple[str, float]], kind: str) -> float | None:
    """The highest weight of `kind`; None if it is not named."""
    return max((given for name, given in ranges if name == kind), default=None)


def parse_media_ranges(text: str) -> Iterator[tuple[str, float]]:
    """(media range in lower case, weight) of each element of an Accept header. Parameters are skipped,
    because all our JSON is UTF-8. Raises ValueError if the header is malformed."""
    at = require_match_at(BLANKS, text, 0).end()
    while at < len(text):
        if text[at] != ",":  # RFC 9110, 5.6.1.2: empty elements are ignored
            found = require_match_at(MEDIA_RANGE, text, at)
            at, given = parse_parameters(text, found.end())
            yield f"{found[1]}/{found[2]}".lower(), given
            if at < len(text) and text[at] != ",":
                raise ValueError(text)
        at = require_match_at(BLANKS, text, at + 1).end()


def parse_parameters(text: str, at: int) -> tuple[int, float]:
    """(where they end, the weight among them) of the parameters that begin at `at`. Raises ValueError for a
    malformed weight."""
    given = None
    while at < len(text) and text[at] == ";":
        found = require_match_at(PARAMETER, text, at)
        at = found.end()
        if found[1] and found[1].lower() == "q":
            if given is not None or not WEIGHT.fullmatch(found[2]):
                raise ValueError(text)
            given = float(found[2])
    return at, 1.0 if given is None else given


def require_match_at(pattern: re.Pattern[str], text: str, at: int) -> re.Match[str]:
    found = pattern.match(text, min(at, len(text)))
    if found is None:
        raise ValueError(text)
    return found
