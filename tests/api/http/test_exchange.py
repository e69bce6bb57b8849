"""A request and its answer, with applications that do what ours never, or hardly ever, does."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from litestar.types import ASGIApp, Receive

from api.http import exchange
from api.http.cors import Origins
from api.http.outermost import OutermostMiddleware
from api.http.proxies import TrustedProxies
from api.http.server import listen_on_loopback, server_for
from tests.support.service import Backend
from tests.support.wire import connected_to

OK = {"type": "http.response.body", "body": b"ok"}
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def start(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": 200, "headers": list(headers)}


@contextmanager
def served(app: Any, **changes: Any) -> Iterator[str]:
    """The URL of this application on our server."""
    settings = Backend("postgresql://unused/x", "redis://unused").settings(**changes)
    sockets = listen_on_loopback(0)
    server = server_for(app, settings.timeouts)
    thread = threading.Thread(target=server.run, args=(list(sockets),))
    thread.start()
    yield f"http://localhost:{sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def answering(*headers: tuple[bytes, bytes]) -> ASGIApp:
    """With ok, under these headers."""

    async def app(scope: Any, receive: Receive, send: Any) -> None:
        assert scope["type"] == "http"
        await send(start(*headers))
        await send(OK)

    return app


@pytest.mark.parametrize(
    ("name", "value"), [("transfer-encoding", "chunked"), ("connection", "close"), ("x-no", "length")]
)
def test_uvicorn_frames_an_answer_that_does_not_say_its_length(name: str, value: str) -> None:
    with served(answering((name.encode(), value.encode()))) as url:
        answer = httpx.get(url)
    assert (answer.status_code, answer.text, answer.headers[name]) == (200, "ok", value)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_an_answer_without_an_end_comes_in_chunks_only_to_who_knows_them(version: bytes) -> None:
    """As a stream of events; RFC 9112, 6.1."""

    async def app(scope: Any, receive: Receive, send: Any) -> None:
        await send(start((b"content-type", b"text/event-stream")))
        for part in (b"one", b"", b"two"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    with served(app) as url, socket.create_connection(("localhost", int(url.split(":")[2]))) as client:
        client.sendall(b"GET / HTTP/%b\r\nHost: localhost\r\nConnection: close\r\n\r\n" % version)
        head, _, body = b"".join(iter(lambda: client.recv(65536), b"")).partition(b"\r\n\r\n")
    assert (b"transfer-encoding: chunked" in head) == (version == b"1.1")
    assert body == (b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n" if version == b"1.1" else b"onetwo")
    assert b"connection: close" in head


@pytest.mark.parametrize(
    "header", [(b"x", b"a\r\nset-cookie: b"), (b"x", b"a\0"), (b"x y", b"a"), (b"x:", b"a")]
)
def test_no_header_of_an_answer_can_smuggle_another_one(header: tuple[bytes, bytes]) -> None:
    with served(answering(header, (b"content-length", b"2"))) as url:
        answer = httpx.get(url)
    assert answer.status_code == 500
    assert not {"x", "set-cookie"} & set(answer.headers)


def test_every_request_of_a_client_that_is_gone_learns_of_it_and_nothing_is_sent() -> None:
    """uvicorn tells only the newest one, which here has not begun."""
    begun, over = threading.Event(), threading.Event()

    async def app(scope: Any, receive: Receive, send: Any) -> None:
        assert scope["type"] == "http"
        await receive()
        begun.set()
        assert (await receive())["type"] == "http.disconnect"
        await send(start((b"content-length", b"2")))
        await send(OK)
        over.set()

    with served(app) as url:
        with connected_to(url) as connection:
            connection.send(GET + GET)
            assert begun.wait(30)
            connection.abort()
        assert over.wait(30)


@pytest.mark.slow
def test_whoever_takes_nothing_of_an_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has stopped reading would keep a stream for ever, also one that has ended for them."""
    monkeypatch.setattr(exchange, "STALLED_SECONDS", 0.5)
    gone = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(start((b"content-type", b"text/event-stream")))
        leaving = asyncio.create_task(receive())
        while not leaving.done():
            await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})
            await asyncio.sleep(0)
        gone.set()

    with served(app) as url, socket.create_connection(("localhost", int(url.split(":")[2]))) as client:
        client.sendall(GET)
        assert client.recv(1)
        assert gone.wait(20)


def test_a_body_that_nobody_reads_yet_is_not_late() -> None:
    """The service has stopped reading, so the client cannot send more."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await asyncio.sleep(2)
        while (await receive()).get("more_body"):
            pass
        await send(start((b"content-length", b"2")))
        await send(OK)

    with served(app, body_timeout_seconds=1) as url:
        answer = httpx.post(url, content=b" " * 5_000_000, timeout=30)
    assert (answer.status_code, answer.text) == (200, "ok")


def test_an_answer_that_has_begun_gets_no_second_head_at_the_end_of_the_service() -> None:
    sent: list[Any] = []

    async def cut_off(scope: Any, receive: Receive, send: Any) -> None:
        await send(start())
        raise asyncio.CancelledError

    async def keep(message: Any) -> None:
        sent.append(message["type"])

    async def run() -> None:
        scope = {"type": "http", "method": "GET", "path": "/", "scheme": "http", "headers": []}
        outermost = OutermostMiddleware(cut_off, Origins([]), TrustedProxies([]))
        with pytest.raises(asyncio.CancelledError):
            await outermost(scope, no_message, keep)

    asyncio.run(run())
    assert sent == ["http.response.start"]


async def no_message() -> Any:
    raise AssertionError("nobody asks for one")


def test_a_second_signal_does_not_cut_the_end_short() -> None:
    settings = Backend("postgresql://unused/x", "redis://unused").settings()
    server: uvicorn.Server = server_for(answering(), settings.timeouts)
    for _ in range(2):
        server.handle_exit(2, None)
    assert (server.should_exit, server.force_exit) == (True, False)
