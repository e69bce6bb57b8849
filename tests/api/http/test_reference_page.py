"""The files of the reference page: which browsers get them by gzip, and what the page may do
(contract, "Browsers"). What it looks like is in tests/external."""

import httpx
import pytest

from api.contract import PAGE_CSP
from tests.support.service import Service

SCRIPT = "/docs/scalar.js"
ACCEPTING = ["gzip", "br, GZIP", "deflate;q=1, gzip ; q=0.001", "gzip;q=1.000", "identity;q=0.5,gzip;q=1."]
REFUSING = [
    "",
    "identity",
    "br",
    "gzip;q=0",
    "gzip;q=0.000",
    "*;q=0",
    "x-gzip",
    "gzipped",
    "gzip;q=2",
    "gzip q=1",
]


def get(service: Service, path: str, coding: str, **headers: str) -> httpx.Response:
    """The answer as it was sent: httpx undoes the coding of `content` only."""
    return httpx.get(service.url + path, headers={"accept-encoding": coding, **headers})


@pytest.mark.slow
@pytest.mark.parametrize("coding", ACCEPTING)
def test_page_file_is_sent_by_gzip_to_those_who_accept_it(service: Service, coding: str) -> None:
    """RFC 9110, 12.5.3."""
    plain, packed = get(service, SCRIPT, "identity"), get(service, SCRIPT, coding)
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.content == plain.content
    assert int(packed.headers["content-length"]) < len(plain.content) / 3


@pytest.mark.parametrize("coding", REFUSING)
def test_page_file_is_sent_as_it_is_to_all_others(service: Service, coding: str) -> None:
    plain = get(service, SCRIPT, coding)
    assert "content-encoding" not in plain.headers
    assert int(plain.headers["content-length"]) == len(plain.content)


def test_each_coding_of_a_page_file_has_an_entity_tag_of_its_own(service: Service) -> None:
    """RFC 9110, 8.8.3.3; caches keep them apart by Vary."""
    answers = {coding: get(service, SCRIPT, coding) for coding in ("identity", "gzip")}
    tags = {coding: answer.headers["etag"] for coding, answer in answers.items()}
    assert tags["identity"] != tags["gzip"]
    for coding, answer in answers.items():
        assert answer.headers["vary"] == "Accept-Encoding, Origin"
        assert answer.headers["cache-control"] == "no-cache"
        held = {"if-none-match": tags[coding]}
        assert get(service, SCRIPT, coding, **held).status_code == 304
        other = "gzip" if coding == "identity" else "identity"
        assert get(service, SCRIPT, other, **held).status_code == 200


def test_page_file_is_the_same_by_gzip_from_every_process(service: Service) -> None:
    """gzip would write the time into its head, and each process have another entity tag."""
    with httpx.stream("GET", service.url + SCRIPT, headers={"accept-encoding": "gzip"}) as answer:
        head = next(answer.iter_raw())
    assert head[:2] == b"\x1f\x8b"
    assert head[4:8] == bytes(4)


def test_only_the_reference_page_may_have_inline_styles(service: Service) -> None:
    for path in ("/docs", "/docs/scalar.js", "/docs/reference.js", "/docs/reference.css"):
        assert get(service, path, "identity").headers["content-security-policy"] == PAGE_CSP
    for path in ("/openapi.yaml", "/openapi.json", "/docs/nothing", "/api/users/me", "/health/live"):
        assert "unsafe" not in get(service, path, "identity").headers["content-security-policy"]


def test_no_script_of_the_reference_page_may_be_inline_or_evaluated() -> None:
    policy = dict(directive.split(" ", 1) for directive in PAGE_CSP.split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["connect-src"] == "'self'"
