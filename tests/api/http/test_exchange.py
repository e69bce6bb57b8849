"""A request and its answer, with applications that do what ours never, or hardly ever, does."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from litestar.types import ASGIApp, Receive

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
