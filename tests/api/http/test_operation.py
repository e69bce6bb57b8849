"""The handlers of operations, and the garbage collector."""

import asyncio
import gc
from typing import Any

import httpx
import pytest
from litestar import Litestar
from litestar.params import FromHeader
from litestar.routes import HTTPRoute

from api.app import from_environment
from api.http.auditing import action_of
from api.http.fields import Message
from api.http.operation import Operation, get
from api.http.requests import StrictRequest
from tests.support.service import KEY, Backend, Service


def handlers(app: Litestar) -> list[object]:
    routes = (route for route in app.routes if isinstance(route, HTTPRoute))
    return [handler for route in routes for handler in route.route_handlers if handler.operation_id]


def test_every_operation_is_written_with_our_decorators(service: Service) -> None:
    """`from api.http.operation import get`, not `from litestar import get`, whose handlers are slow."""
    others = [handler for handler in handlers(service.app) if not isinstance(handler, Operation)]
    assert not others


def test_an_audit_event_of_an_operation_without_an_action_is_an_error() -> None:
    scope: Any = {"type": "http", "method": "GET", "headers": [], "route_handler": get("/", operation_id="x")}
    with pytest.raises(LookupError):
        action_of(StrictRequest(scope))


def test_the_garbage_collector_does_not_scan_the_application(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full collection would delay all requests by a tenth of a second."""
    for name, value in {"DATABASE_URL": backend.database_url, "REDIS_URL": backend.redis_url}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SECRET_KEY", KEY)
    from_environment()
    try:
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


def test_a_worker_whose_settings_have_gone_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a secret comes from a file, it may be there when the parent starts, and not later."""
    monkeypatch.setenv("SECRET_KEY_FILE", "/nowhere")
    with pytest.raises(SystemExit):
        from_environment()
    assert caplog.messages == ["SECRET_KEY_FILE cannot be read: No such file or directory"]


@get("/greeting", operation_id="greet")
async def greet(name: FromHeader[str]) -> Message:
    return Message(f"Hello, {name}")


def test_a_handler_may_take_what_the_fast_way_cannot_give() -> None:
    """Such as a header: then Litestar's own way is taken."""

    async def ask() -> str:
        app: Any = Litestar([greet], openapi_config=None)  # its type and httpx's differ
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return (await client.get("/greeting", headers={"name": "Ada"})).text

    assert asyncio.run(ask()) == '{"message":"Hello, Ada"}'
