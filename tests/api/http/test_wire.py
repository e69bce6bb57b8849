"""HTTP/1.1 as bytes: trailers, hosts, limits of size, pipelining, garbage, other spellings of a path (RFC
9112; contract, "Browsers", "Errors", "In what order a request is judged")."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from httptools import HttpRequestParser
from hypothesis import given
from hypothesis import strategies as st

from api.http.framing import Framing
from tests.support.factories import World, email
from tests.support.service import Backend, Service
from tests.support.wire import (
    CHUNKED,
    INVALID,
    KIB,
    LIVE,
    LOGIN,
    answers,
    chunks,
    closing,
    connected,
    credentials,
    statuses,
)


@pytest.fixture(scope="module")
def trusting(backend: Backend) -> Iterator[Service]:
    """A service behind a trusted proxy."""
    with Service(backend, backend.settings(trusted_proxies=("127.0.0.1", "::1"))) as running:
        yield running


# Trailers (RFC 9110, 6.5.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "field",
    [
        b"X-Forwarded-For: 198.51.100.7",
        b"X-Forwarded-Proto: https",
        b"Cookie: access_token=%s",
        b"Origin: https://evil.example",
        b"Content-Type: text/plain",
        b"Content-Encoding: gzip",
        b"Host: evil.example",
        b"User-Agent: forged",
        b"Content-Length: 5",
        b"Transfer-Encoding: gzip",
        b"Connection: close",
        b"Connection: Upgrade",
        b"Upgrade: h2c",
        b"Expect: 100-continue",
        b"A: " + b"b" * 20 * KIB,
    ],
)
def test_a_trailer_field_is_ignored(world: World, trusting: Service, backend: Backend, field: bytes) -> None:
    """The request is what its head says, and the next request on the connection is read correctly."""
    if b"%s" in field:
        field %= world.staff.cookies["access_token"].encode()
    with connected(trusting) as connection:
        address = email()
        body = chunks(credentials(address), field, b"Upgrade: x", field)
        connection.send(LOGIN + CHUNKED + b"\r\n" + body + LIVE)
        assert connection.answers(2) == [
            (401, {"detail": "Invalid email or password"}), (200, {"status": "ok"}),
        ]  # fmt: skip
        connection.send(LIVE)
        assert connection.answers(1) == [(200, {"status": "ok"})]
    [row] = backend.sql("SELECT address FROM audit_events ORDER BY at DESC LIMIT 1")
    assert row["address"] in {"127.0.0.1", "::1"}


def test_a_cookie_or_content_type_in_a_trailer_is_ignored(service: Service, world: World) -> None:
    head = b"POST /api/patients HTTP/1.1\r\nHost: localhost\r\n"
    cookie = b"Cookie: access_token=" + world.staff.cookies["access_token"].encode()
    for fields, trailer, status in [
        (b"", cookie, 401),
        (cookie + b"\r\nContent-Type: text/plain\r\n", b"Content-Type: application/json", 415),
        (cookie + b"\r\n", b"Content-Type: application/json", 415),
    ]:
        with connected(service) as connection:
            connection.send(head + fields + CHUNKED + b"\r\n" + chunks(b"{}", trailer))
            assert [answer[0] for answer in connection.answers(1)] == [status]


def test_a_trailer_that_comes_byte_by_byte_is_ignored(service: Service) -> None:
    body = chunks(credentials(email()), b"Content-Length: 5", b"X-Forwarded-For: 198.51.100.7")
    with connected(service) as connection:
        request = LOGIN + CHUNKED + b"\r\n" + body
        connection.send(*[request[i : i + 1] for i in range(len(request))], pause=0)
        assert [status for status, _ in connection.answers(1)] == [401]
        connection.send(LIVE)
        assert connection.answers(1) == [(200, {"status": "ok"})]


@pytest.mark.parametrize(
    "trailer",
    [b"no colon", b"a b: c", b" folded", b"a: b\x00", b"a: b\nc: d", b": x", b"a: " + b"b" * 200 * KIB],
    ids=["no colon", "a blank", "folded", "NUL", "bare LF", "no name", "huge"],
)
def test_a_malformed_trailer_is_400(service: Service, trailer: bytes) -> None:
    """The request is not complete, and nothing after it is read as a request."""
    request = LOGIN + CHUNKED + b"\r\n" + chunks(credentials(email()), trailer)
    assert answers(service, request + LIVE) == [(400, INVALID)]


def test_an_endless_trailer_or_chunk_size_is_400(service: Service) -> None:
    for endless in (b"0\r\n" + b"a: b\r\n" * 100_000, b"1;" + b"a" * 600_000):
        assert answers(service, LOGIN + CHUNKED + b"\r\n" + endless) == [(400, INVALID)]


# Heads


HOSTLESS: dict[str, bytes] = {
    "none": b"",
    "two": b"Host: localhost\r\nHost: localhost\r\n",
    "two, one empty": b"Host: localhost\r\nHost:\r\n",
    "a blank": b"Host: a b\r\n",
    "a list": b"Host: a, b\r\n",
    "a path": b"Host: x/y\r\n",
    "somebody": b"Host: user@x\r\n",
    "Latin-1": b"Host: \xff\r\n",
    "two ports": b"Host: x:1:2\r\n",
    "no number": b"Host: x:y\r\n",
    "no bracket": b"Host: [::1\r\n",
    "no brackets": b"Host: ::1\r\n",
    "a query": b"Host: x?y\r\n",
}  # fmt: skip


@pytest.mark.parametrize("host", HOSTLESS.values(), ids=HOSTLESS)
def test_a_missing_repeated_or_malformed_host_header_is_400(service: Service, host: bytes) -> None:
    """RFC 9112, 3.2."""
    assert answers(service, b"GET /health/live HTTP/1.1\r\n" + host + b"\r\n") == [(400, INVALID)]


@pytest.mark.parametrize(
    "host",
    [b"localhost", b"x:", b"X.example:8000", b"[::1]", b"[::1]:80", b"192.0.2.1", b" a_b-c.d ", b"%41"],
)
def test_every_valid_host_header_is_accepted(service: Service, host: bytes) -> None:
    assert statuses(service, closing(b"GET /health/live HTTP/1.1", b"Host: " + host)) == [200]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /health/live HTTP/1.0\r\n\r\n", 200),
        (b"GET /health/live HTTP/1.0\r\nHost: x\r\n\r\n", 200),
        (b"GET /health/live HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n", 400),
        (b"GET /health/live HTTP/1.0\r\nHost: a b\r\n\r\n", 400),
        (b"GET /health/live HTTP/0.9\r\n\r\n", 400),
        (b"GET /health/live\r\n\r\n", 400),
        (b"GET /health/live HTTP/2.0\r\nHost: x\r\n\r\n", 400),
        (b"POST /api/auth/login HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (LOGIN + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        (LOGIN + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (LOGIN + b"Transfer-Encoding: identity\r\n\r\n", 400),
        (LOGIN + b"Connection: close\r\nContent-Length: " + b"0" * 5000 + b"2\r\n\r\n{}", 400),
        (LOGIN + b"Connection: close\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n{}", 400),
    ],
)
def test_http_versions_and_transfer_codings(service: Service, head: bytes, status: int) -> None:
    assert statuses(service, head) == [status]


def head_of(size: int, *, in_line: bool = False) -> bytes:
    """A request of `size` bytes."""
    line, fields = (
        b"GET /health/live%s HTTP/1.1\r\n",
        b"Host: localhost\r\nConnection: close\r\nA: %s\r\n\r\n",
    )
    filling = size - len(line + fields) + 4
    filled = (b"?" + b"a" * (filling - 1), b"") if in_line else (b"", b"a" * filling)
    made = (line % filled[0]) + (fields % filled[1])
    assert len(made) == size
    return made


def cut(data: bytes, begins: list[int]) -> list[bytes]:
    """`data` in pieces that begin there."""
    return [data[begin:end] for begin, end in zip(begins, [*begins[1:], None], strict=True)]


@pytest.mark.parametrize("in_line", [True, False])
def test_a_head_of_more_than_64_kib_is_400(service: Service, in_line: bool) -> None:
    """Request line and headers together, exact to the byte, in whatever pieces it arrives."""
    fits, too_large = (head_of(size, in_line=in_line) for size in (64 * KIB, 64 * KIB + 1))
    for cuts in ([0], [0, 7, -3]):
        assert statuses(service, *cut(fits, cuts)) == [200]
        assert answers(service, *cut(too_large, cuts)) == [(400, INVALID)]


def test_many_small_headers_of_more_than_64_kib_are_400(service: Service) -> None:
    head = b"GET /health/live HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 11_000 + b"\r\n"
    assert answers(service, head) == [(400, INVALID)]


@pytest.mark.parametrize("size", [100 * KIB, 8 * KIB * KIB])
def test_the_answer_to_a_body_that_is_too_large_can_be_read(service: Service, size: int) -> None:
    """The connection is not reset, although the client sends all of the body before it reads."""
    head = b"GET /health/live HTTP/1.1\r\nHost: x\r\nA: "
    for request in (head + b"a" * size, b"BREW / HTTP/1.1\r\n\r\n" + b"a" * size):
        assert answers(service, request) == [(400, INVALID)]


def test_a_request_pipelined_behind_a_large_body_is_answered(service: Service) -> None:
    """The bytes of a body do not count for the head behind it."""
    body = b'{"email": "' + b"x" * 200 * KIB + b'"}'
    length = b"Content-Length: %d\r\n\r\n" % len(body) + body
    in_chunks = CHUNKED + b"\r\n" + chunks(b"x" * 150 * KIB)
    for request in (LOGIN + length, LOGIN + in_chunks):
        assert statuses(service, request + LIVE + request + head_of(64 * KIB)) == [400, 200, 400, 200]


def test_a_hundred_pipelined_requests_are_answered_in_order(service: Service) -> None:
    known, unknown = LIVE, LIVE.replace(b"/health/live", b"/nowhere")
    with connected(service) as connection:
        connection.send((known + unknown) * 50)
        assert [status for status, _ in connection.answers(100)] == [200, 404] * 50


@pytest.mark.slow
@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"x" * 100 * KIB])
def test_a_request_followed_by_garbage_has_its_own_answer_first(service: Service, garbage: bytes) -> None:
    login = LOGIN + b"Content-Length: %d\r\n\r\n"
    body = credentials(email())  # which takes a while: a hash is computed
    with_body = login % len(body) + body
    for pieces in ([with_body + garbage], [with_body, garbage], [LIVE + with_body + garbage]):
        expected = [200, 401, 400] if len(pieces[0]) > len(with_body + garbage) else [401, 400]
        got = answers(service, *pieces)
        assert [status for status, _ in got] == expected
        assert got[-1] == (400, INVALID)


def test_no_request_behind_garbage_is_answered(service: Service) -> None:
    assert statuses(service, LIVE + b"garbage\r\n\r\n" + LIVE, LIVE) == [200, 400]


class Events:
    """The events of the parser for a stream in these packets."""

    def __init__(self, packets: list[bytes]) -> None:
        self.framing, self.told = Framing(), list[Any]()
        parser = HttpRequestParser(self)
        for packet in packets:
            position = 0
            while position < len(packet):
                piece, position = self.framing.next_piece(packet, position)
                parser.feed_data(piece)

    def on_message_begin(self) -> None:
        self.head, self.body, self.length, self.is_chunked = [b""], b"", 0, False

    def on_url(self, url: bytes) -> None:
        self.head[0] += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.head.append(name + value)
        self.length = int(value) if name == b"Content-Length" else self.length
        self.is_chunked |= name == b"Transfer-Encoding"

    def on_headers_complete(self) -> None:
        self.told.append(self.head)
        self.head = []
        self.framing.expect_body(self.length, self.is_chunked)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.told.append((self.body, self.head))
        self.framing.expect_head()


STREAM = (
    LIVE
    + b"\r\n\r\n"
    + LOGIN + CHUNKED + b"\r\n1\r\na\r\n4;x=y\r\n\r\n\r\n\r\n00\r\nConnection: close\r\nUpgrade: x\r\n\r\n"
    + LOGIN + b"Content-Length: 8\r\n\r\n\r\n\r\n\r\n\r\n"
    + LOGIN + CHUNKED + b"\r\n0\r\n\r\n"
    + LIVE
)  # fmt: skip


@pytest.mark.slow
@given(cuts=st.sets(st.integers(1, len(STREAM) - 1)))
def test_messages_are_the_same_however_the_packets_are_cut(cuts: set[int]) -> None:
    ends = [0, *sorted(cuts), len(STREAM)]
    cut = Events([STREAM[begin:end] for begin, end in pairwise(ends)])
    assert cut.told == Events([STREAM]).told
    assert [told[0] for told in cut.told[1::2]] == [b"", b"a\r\n\r\n", b"\r\n" * 4, b"", b""]
    assert cut.told[3] == (b"a\r\n\r\n", [b"x-Connectionclose", b"x-Upgradex"])


# One resource, one spelling


def target(path: bytes, cookie: str) -> bytes:
    line = b"GET " + path + b" HTTP/1.1"
    return closing(line, b"Host: localhost", b"Cookie: access_token=" + cookie.encode())


SPELLINGS = [
    b"/%61pi/users", b"/api%2Fusers", b"/api/%75sers", b"/api/user%73", b"/api/users%20", b"/api/users%00",
    b"/api/users%3Fx", b"/api/users%23", b"/api%2fusers", b"/%2fapi/users", b"/api/%2e/users", b"/api/users%",
    b"/health%2Flive", b"/health/%6cive", b"/health/read%79", b"/doc%73", b"/docs/%70age.js",
    b"/openapi%2eyaml", b"/openapi%2Ejson", b"/%2ewell-known/security.txt", b"/.well-known%2fsecurity.txt",
    b"/api/users/m%65", b"/api/users/%6d%65/sessions", b"//api/users", b"/api//users", b"/api/users/",
    b"/api/users//", b"/api/./users", b"/./api/users", b"/api/x/../users", b"/../api/users", b"/api/users;x",
    b"/api;x/users", b"/api\\users", b"\\api\\users", b"/API/users", b"/api/Users", b"/api/users#x",
    b"/api/users#", b"/api/users#?x", b"/#/api/users", b"*", b"ftp://localhost/api/users", b"ws://localhost/api/users",
    b"http://localhost/%61pi/users", b"http://localhost//api/users", b"http://localhost/api/users#x",
    b"http://localhost", b"http://localhost?/api/users", b"http:///api/users",
]  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_other_spelling_of_a_path_reaches_an_operation(
    service: Service, world: World, spelling: bytes
) -> None:
    """A proxy in front with rules by path would let it pass. A malformed target is 400."""
    malformed = spelling.startswith(b"\\")
    [(status, said)] = answers(service, target(spelling, world.admin.cookies["access_token"]))
    assert (status, said) == ((400, INVALID) if malformed else (404, {"detail": "Not found"}))


def test_a_target_in_absolute_form_is_the_same_path(service: Service, world: World) -> None:
    """RFC 9112, 3.2.2: it must be accepted, and its authority is the host then."""
    cookie = world.admin.cookies["access_token"]
    for known in (b"http://localhost/api/users", b"HTTP://x:1/api/users?limit=1", b"https://[::1]/api/users"):
        assert statuses(service, target(known, cookie)) == [200]
    for broken in (
        b"http://a@localhost/api/users",
        b"http://a\\b/api/users",
        b"http:x",
    ):
        assert statuses(service, target(broken, cookie)) == [400]
    for host, status in ((b"clinic.example", 401), (b"evil.example", 403)):
        line = b"POST http://clinic.example/api/patients HTTP/1.1"
        origin = b"Origin: https://" + host
        assert statuses(service, closing(line, b"Host: evil.example", origin)) == [status]


def test_a_percent_sign_in_the_query_is_decoded(world: World) -> None:
    assert world.staff.get("/api/patients?search=%70aula").status_code == 200


def test_another_spelling_of_an_id_is_404(service: Service, world: World) -> None:
    chart = world.chart()["id"]
    cookie = world.staff.cookies["access_token"]
    others = (chart.replace("-", ""), f"{{{chart}}}", f"urn:uuid:{chart}", f"{chart};x", f"{chart}.")
    for id, status in [(chart, 200), *((other, 404) for other in others)]:
        assert statuses(service, target(f"/api/patients/{id}".encode(), cookie)) == [status], id
