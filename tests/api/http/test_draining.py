"""SIGTERM behind a proxy: ready no more, then no listener, then no idle connection; and no request lost."""

import asyncio
import signal
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from api.http.draining import IDLE_SECONDS, accept_waiting
from api.http.requests import DRAINING
from tests.support.running import wait_until
from tests.support.service import Backend, Service
from tests.support.wire import LIVE, LOGIN, Connection, connected, credentials

pytestmark = pytest.mark.slow

DRAIN_SECONDS = 2
CLOSE = b"\r\nconnection: close\r\n"
READY = LIVE.replace(b"live", b"ready")
BODY = credentials("nobody@clinic.example")
POST = LOGIN + b"Content-Length: %d\r\n\r\n" % len(BODY)


@pytest.fixture
def draining(backend: Backend) -> Iterator[Service]:
    """A service; `terminate` makes it drain."""
    with Service(backend, backend.settings(drain_seconds=DRAIN_SECONDS)) as service:
        yield service


def terminate(service: Service) -> None:
    """As SIGTERM does. It is drained at once, so that whatever comes from now on is answered so."""
    service.server.handle_exit(signal.SIGTERM, None)
    wait_until(lambda: DRAINING in service.server.lifespan.state, "draining")


def is_listening(service: Service) -> bool:
    host, port = service.url.removeprefix("http://").split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def wait_until_closed(service: Service) -> None:
    wait_until(lambda: not is_listening(service), "the end of listening")


def ask(connection: Connection, request: bytes) -> tuple[int, bool, object]:
    """Status, whether the answer is the last on this connection, and what it says."""
    connection.send(request)
    is_last = CLOSE in connection.head()
    [(status, body)] = connection.answers(1)
    return status, is_last, body


def test_a_service_that_drains_is_not_ready_and_answers_everything_else(draining: Service) -> None:
    """contract: "with the detail `draining`, while the service drains"."""
    with connected(draining) as early, connected(draining) as idle:
        assert ask(early, READY)[:2] == (200, False)
        assert ask(idle, LIVE)[:2] == (200, False)
        terminate(draining)
        assert ask(early, READY) == (503, True, {"detail": "draining"})
        assert early.is_closed(1)
        with connected(draining) as late:
            assert ask(late, READY) == (503, True, {"detail": "draining"})
        retry_after = httpx.get(f"{draining.url}/health/ready").headers["retry-after"]
        assert 1 <= int(retry_after) <= DRAIN_SECONDS
        assert httpx.head(f"{draining.url}/health/ready").status_code == 503
        with connected(draining) as late:
            assert ask(late, LIVE)[:2] == (200, True)
            assert late.is_closed(1)
        wait_until_closed(draining)
        assert ask(idle, POST + BODY)[:2] == (401, True)  # it was idle until after the listener closed
        assert idle.is_closed(1)


def test_a_service_drains_for_its_time_however_often_it_is_told(draining: Service) -> None:
    began = time.monotonic()
    terminate(draining)
    draining.server.handle_exit(signal.SIGTERM, None)
    assert is_listening(draining)
    wait_until_closed(draining)
    assert time.monotonic() - began > DRAIN_SECONDS - 0.2
    draining.thread.join()


def test_ctrl_c_does_not_drain(backend: Backend) -> None:
    with Service(backend, backend.settings(drain_seconds=3600)) as service:
        service.server.handle_exit(signal.SIGINT, None)
        wait_until_closed(service)
        service.thread.join()


def test_what_is_under_way_is_answered_while_draining(draining: Service) -> None:
    with connected(draining) as in_head, connected(draining) as in_body, connected(draining) as silent:
        assert ask(silent, LIVE)[0] == 200
        in_head.send(POST[:20])
        in_body.send(POST)
        time.sleep(0.1)
        terminate(draining)
        wait_until_closed(draining)
        assert silent.is_closed(IDLE_SECONDS + 5)
        for connection, rest in (in_head, POST[20:] + BODY), (in_body, BODY):
            assert ask(connection, rest)[:2] == (401, True)
            assert connection.is_closed(1)
    draining.thread.join()


def test_a_second_request_on_a_connection_that_was_told_to_close_is_not_done(draining: Service) -> None:
    """Its client, who may have sent it early, sees the first answer, and that there will be no second."""
    with connected(draining) as connection:
        terminate(draining)
        connection.send(POST + BODY + POST + BODY)
        assert [status for status, _ in connection.answers()] == [401]


def test_a_second_request_that_came_early_is_answered_before_the_end(draining: Service) -> None:
    with connected(draining) as connection:
        connection.send(POST + BODY + POST + BODY[:-1])
        time.sleep(0.2)
        terminate(draining)
        connection.send(BODY[-1:])
        assert [status for status, _ in connection.answers()] == [401, 401]


def test_whoever_waits_at_the_door_when_it_closes_is_served(draining: Service) -> None:
    """The system accepts connections before the service does; closing the listener would reset them."""
    with socket.create_server(("127.0.0.1", 0)) as listener, connected_at(listener) as waiting:
        waiting.sendall(POST + BODY)
        serving = draining.server.serve_waiting(listener)
        asyncio.run_coroutine_threadsafe(serving, draining.server.loop).result()
        assert Connection(waiting).answers(1)[0][0] == 401


def test_all_who_wait_at_the_door_are_let_in() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        waiting = [connected_at(listener) for _ in range(3)]
        accepted = list(accept_waiting(listener))
        assert len(accepted) == 3
        for each in (*waiting, *accepted):
            each.close()


def connected_at(listener: socket.socket) -> socket.socket:
    return socket.create_connection(listener.getsockname(), timeout=20)
