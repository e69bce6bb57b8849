"""How long a request may take to arrive, and what happens to the connection then (BODY_TIMEOUT_SECONDS,
KEEP_ALIVE_SECONDS)."""

import time
from collections.abc import Iterator

import pytest

from tests.support.factories import World, email
from tests.support.service import Backend, Service
from tests.support.wire import CHUNKED, INVALID, KIB, LATE, LIVE, LOGIN, answers, connected, credentials

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def hasty(backend: Backend) -> Iterator[Service]:
    """A service with a body timeout of one second and a keep-alive timeout of two."""
    with Service(backend, backend.settings(body_timeout_seconds=1, keep_alive_seconds=2)) as running:
        yield running


def bodies() -> list[tuple[str, bytes]]:
    return [("length", b"Content-Length: 100000\r\n\r\n"), ("chunks", CHUNKED + b"\r\n")]


def drop(kind: str) -> bytes:
    return b" " if kind == "length" else b"1\r\n \r\n"


@pytest.mark.parametrize(("kind", "fields"), bodies())
def test_a_body_that_trickles_in_is_ended_at_the_body_timeout(
    hasty: Service, kind: str, fields: bytes
) -> None:
    """Contract: it must be whole within BODY_TIMEOUT_SECONDS from the end of the head, even if bytes keep
    arriving."""
    with connected(hasty) as connection:
        began = time.monotonic()
        connection.send(LOGIN + fields)
        connection.drip(drop(kind), 2)
        assert connection.answers() == [(400, LATE)]
        assert time.monotonic() - began > 1
        assert connection.is_closed(1)
    assert hasty.browser().get("/health/live").status_code == 200


@pytest.mark.parametrize(("kind", "fields"), bodies())
def test_a_body_that_stops_is_ended_at_the_body_timeout(hasty: Service, kind: str, fields: bytes) -> None:
    with connected(hasty) as connection:
        connection.send(LOGIN + fields + drop(kind))
        assert connection.answers() == [(400, LATE)]


@pytest.mark.parametrize(("kind", "fields"), bodies())
@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /health/live HTTP/1.1\r\nHost: x\r\n", 200),
        (b"POST /api/auth/logout HTTP/1.1\r\nHost: x\r\n", 200),
        (b"DELETE /api/users/me/sessions/1 HTTP/1.1\r\nHost: x\r\n", 401),
        (b"POST /api/patients HTTP/1.1\r\nHost: x\r\n", 401),
        (b"PATCH /nowhere HTTP/1.1\r\nHost: x\r\n", 404),
        (b"OPTIONS /api/users HTTP/1.1\r\nHost: x\r\n", 204),
    ],
)
def test_a_body_that_no_handler_reads_is_ended_at_the_body_timeout(
    hasty: Service, head: bytes, status: int, kind: str, fields: bytes
) -> None:
    """The request is answered already, so there is no second answer, and the connection is closed."""
    with connected(hasty) as connection:
        connection.send(head + fields)
        assert [answer[0] for answer in connection.answers(1)] == [status]
        connection.drip(drop(kind), 2)
        assert connection.answers() == []


def test_every_operation_ends_a_slow_body_at_the_body_timeout(hasty: Service, world: World) -> None:
    """For every caller, whether or not the operation takes a body."""
    cookie = b"Cookie: access_token=" + world.staff.cookies["access_token"].encode()
    for line in (
        b"POST /api/patients",
        b"PATCH /api/users/me",
        b"GET /api/patients",
        b"POST /api/auth/refresh",
    ):
        fields = (
            b"Host: localhost",
            cookie,
            b"Content-Type: application/json",
            b"Content-Length: 50",
            b"",
            b"{",
        )
        with connected(hasty) as connection:
            connection.send(b"\r\n".join([line + b" HTTP/1.1", *fields]))
            [(status, said)] = connection.answers()
            assert (status, said) == (400, LATE) or status in {200, 401}


def test_listed_origins_may_read_the_answer_to_a_late_body(hasty: Service) -> None:
    with connected(hasty) as connection:
        connection.send(LOGIN + b"Origin: http://localhost:5173\r\nContent-Length: 50\r\n\r\n")
        head = connection.socket.recv(65536).lower()
    assert head.startswith(b"http/1.1 400 ")
    assert b"access-control-allow-origin: http://localhost:5173\r\n" in head
    assert b"x-request-id: " in head
    assert b"connection: close\r\n" in head


def test_a_head_that_trickles_in_is_ended_at_the_body_timeout(hasty: Service) -> None:
    for begun, drop in ((b"GET /health/live HTTP/1.1\r\nHost: x\r\n", b"a: b\r\n"), (b"GET /", b"a")):
        with connected(hasty) as connection:
            connection.send(begun)
            connection.drip(drop, 2)
            assert connection.answers() == [(400, INVALID)]


def test_each_request_of_a_connection_has_its_own_body_timeout(hasty: Service) -> None:
    """The connection may be older than that."""
    body = credentials(email())
    with connected(hasty) as connection:
        for _ in range(3):
            connection.send(LOGIN + b"Content-Length: %d\r\n\r\n" % len(body), body[:9], body[9:], pause=0.25)
            assert [status for status, _ in connection.answers(1)] == [401]


def test_requests_pipelined_behind_a_late_body_are_not_answered(hasty: Service) -> None:
    """What is behind a body in time is answered; a late one behind another has its 400 in its turn; what is
    behind a late one is no request."""
    body = credentials(email())
    whole = LOGIN + b"Content-Length: %d\r\n\r\n" % len(body) + body
    late = LOGIN + b"Content-Length: 50\r\n\r\n{"
    assert [status for status, _ in answers(hasty, whole + LIVE + late)] == [401, 200, 400]
    assert answers(hasty, late + b" " * 20 + b"}")[-1] == (400, LATE)


def test_an_idle_connection_is_closed_at_the_keep_alive_timeout(hasty: Service) -> None:
    """It stays open longer than the body timeout and is closed without an answer, also if it never sent
    anything."""
    with connected(hasty) as idle, connected(hasty) as silent:
        idle.send(LIVE + b"\r\n")
        assert idle.answers(1) == [(200, {"status": "ok"})]
        assert not idle.is_closed(1.4)
        assert idle.is_closed(2)
        assert silent.is_closed(2)


def test_a_connection_is_usable_after_an_answer_before_the_end_of_the_body(hasty: Service) -> None:
    """The rest of the body is read, and the next request is answered."""
    with connected(hasty) as connection:
        connection.send(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b" " * 1000)
        assert [status for status, _ in connection.answers(1)] == [404]
        connection.send(b" " * 99_000 + LIVE)
        assert connection.answers(1) == [(200, {"status": "ok"})]
        assert not connection.is_closed(1.4)
        assert connection.is_closed(2)


@pytest.mark.parametrize("connection_field", [b"", b"Connection: close\r\n"])
def test_an_answer_before_the_end_of_the_body_is_not_lost_by_a_reset(
    service: Service, connection_field: bytes
) -> None:
    """The client sends all of its body before it reads."""
    size = 8 * KIB * KIB
    head = b"POST /nowhere HTTP/1.1\r\nHost: x\r\n" + connection_field + b"Content-Length: %d\r\n\r\n" % size
    with connected(service) as connection:
        connection.send(head + b" " * size)
        assert [status for status, _ in connection.answers(1)] == [404]


# Clients that say that they have no more to send, and read on


def whole_login() -> bytes:
    """A sign-in, which takes a while because it computes a hash."""
    body = credentials(email())
    return LOGIN + b"Content-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ([b""], []),
        ([LIVE], [200]),
        ([whole_login()], [401]),
        ([whole_login() + LIVE], [401, 200]),
        ([LIVE + whole_login() + whole_login()], [200, 401, 401]),
        ([whole_login(), LIVE + b"garbage\r\n\r\n"], [401, 200, 400]),
        ([whole_login()[:-1]], [400]),
        ([LOGIN + CHUNKED + b"\r\n5\r\n12345\r\n0\r\n"], [400]),
        ([whole_login() + whole_login()[:-1]], [401, 400]),
        ([whole_login() + LOGIN], [401, 400]),
        ([LOGIN], [400]),
        ([LIVE + b"\r\n"], [200]),
        ([LIVE.replace(b"GET", b"POST") + LIVE], [405, 200]),
        ([LIVE.replace(b"\r\n\r\n", b"\r\nContent-Length: 9\r\n\r\n")], [200]),
    ],
)
def test_a_half_closed_connection_is_answered(service: Service, sent: list[bytes], status: list[int]) -> None:
    """RFC 9112, 9.6: a client that closes its sending side may still read."""
    with connected(service) as connection:
        connection.send(*sent)
        connection.half_close()
        assert [got for got, _ in connection.answers()] == status


def test_a_half_closed_connection_with_an_incomplete_body_is_400(service: Service) -> None:
    with connected(service) as connection:
        connection.send(whole_login()[:-1])
        connection.half_close()
        assert connection.answers() == [(400, {"detail": "body: is not complete"})]


def left_over(hasty: Service) -> tuple[int, int]:
    """(connections, tasks) of the service, after some time for them to end."""
    state = hasty.server.server_state
    deadline = time.monotonic() + 15
    while (state.connections or state.tasks) and time.monotonic() < deadline:
        time.sleep(0.05)
    return len(state.connections), len(state.tasks)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", [400]),
        (LOGIN + CHUNKED + b"\r\nx\r\n", [400]),
        (whole_login() + LOGIN + CHUNKED + b"\r\nx\r\n", [401, 400]),
        (whole_login() + LIVE + LOGIN + CHUNKED + b"\r\nx\r\n", [401, 200, 400]),
        (whole_login() + b"garbage\r\n\r\n", [401, 400]),
        (LIVE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\nContent-Length: 9\r\n\r\n"), [200]),
    ],
)
@pytest.mark.parametrize("is_answered", [True, False], ids=["after the answer", "before"])
def test_a_half_close_after_a_refusal_adds_no_answer(
    hasty: Service, sent: bytes, status: list[int], is_answered: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with connected(hasty) as connection:
        connection.send(sent)
        if is_answered:
            assert [got for got, _ in connection.answers(len(status))] == status
            connection.half_close()
            assert connection.answers() == []
        else:
            connection.half_close()
            assert [got for got, _ in connection.answers()] == status
    assert left_over(hasty) == (0, 0)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_slow_clients_leave_no_connections_or_tasks_behind(hasty: Service) -> None:
    """Neither connections nor tasks."""
    opened = []
    for request in (
        LOGIN + b"Content-Length: 50\r\n\r\n{",
        LOGIN + CHUNKED + b"\r\n",
        b"GET /",
        b"",
        LIVE + b"?",
    ):
        opened.append(context := connected(hasty))
        context.__enter__().send(request)
    for request in (LIVE, whole_login(), whole_login()[:-1], LOGIN, whole_login() + LIVE):
        with connected(hasty) as connection:
            connection.send(request)  # and go, without waiting for an answer
    assert left_over(hasty) == (0, 0)
    for context in opened:
        context.__exit__(None, None, None)


@pytest.mark.parametrize("size", [0, 1])
def test_clients_that_crash_leave_no_connections_or_tasks_and_no_errors(
    hasty: Service, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    """With a body of which a part has arrived, and with a whole request that is being answered."""
    request = whole_login()
    with connected(hasty) as connection:
        connection.send(request[: len(request) - size])
        while not hasty.server.server_state.tasks:
            time.sleep(0.01)
        time.sleep(0.1)  # now it waits: for the rest, or for the hash
        connection.abort()
    assert left_over(hasty) == (0, 0)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_client_that_keeps_sending_after_a_refusal_is_cut_off(
    hasty: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time in which the answer may be read is not one in which to send without an end."""
    monkeypatch.setattr("api.http.protocol.LINGER_SECONDS", 600)
    monkeypatch.setattr("api.http.protocol.MAX_LINGER_BYTES", 64 * KIB)
    with connected(hasty) as connection:
        connection.send(LOGIN + CHUNKED + b"\r\nx\r\n")
        assert [status for status, _ in connection.answers(1)] == [400]
        connection.drip(b" " * 16 * KIB, 20, pause=0)
        assert connection.is_closed(20)
    assert left_over(hasty) == (0, 0)


def test_a_client_that_waits_for_100_continue_is_told_to_go_on(hasty: Service) -> None:
    """RFC 9110, 10.1.1."""
    body = credentials(email())
    with connected(hasty) as connection:
        connection.send(LOGIN + b"Expect: 100-Continue\r\nContent-Length: %d\r\n\r\n" % len(body))
        assert connection.socket.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.send(body)
        assert [status for status, _ in connection.answers(1)] == [401]
