"""How an operation is written: Litestar's decorators, whose handlers work out once what Litestar's would for
each request."""

from functools import partial
from typing import Any

import msgspec
from litestar import Litestar, Request
from litestar._kwargs import KwargsModel
from litestar._kwargs.cleanup import DependencyCleanupGroup
from litestar._kwargs.dependencies import resolve_dependency
from litestar.connection import ASGIConnection
from litestar.enums import HttpMethod
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, ExceptionHandlersMap, Receive, Scope, Send
from msgspec import Struct

AnyConnection = ASGIConnection[Any, Any, Any, Any]
encode = msgspec.json.Encoder().encode


class Operation(HTTPRouteHandler):
    handlers_of_exceptions: ExceptionHandlersMap

    def on_registration(self, app: Litestar) -> None:
        super().on_registration(app)
        self.handlers_of_exceptions = super().resolve_exception_handlers()

    def resolve_exception_handlers(self) -> ExceptionHandlersMap:
        return self.handlers_of_exceptions

    async def authorize_connection(self, connection: AnyConnection) -> None:
        """Litestar hands each guard a copy of the handler, lest it change it; ours change nothing."""
        for guard in self.resolve_guards():
            await guard(connection, self)  # type: ignore[misc]  # awaitable, as resolved

    def create_kwargs_model(self, path_parameters: Any) -> KwargsModel:
        model = super().create_kwargs_model(path_parameters)
        model.__class__ = Arguments
        return model

    async def to_response(self, app: Litestar, data: Any, request: Request[Any, Any, Any]) -> ASGIApp:
        if isinstance(data, Struct):
            return Answer(self.status_code, encode(data))
        return await super().to_response(app, data, request)


class Arguments(KwargsModel):
    __slots__ = ()

    async def resolve_dependencies(
        self, connection: AnyConnection, kwargs: dict[str, Any]
    ) -> DependencyCleanupGroup:
        """One after the other: ours do not wait, and Litestar's task group costs more than two constants."""
        group = DependencyCleanupGroup()
        for batch in self.dependency_batches:
            for dependency in batch:
                await resolve_dependency(dependency, connection, kwargs, group)
        return group


class Answer:
    """A struct as JSON."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(self.body))]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


get = partial(Operation, http_method=HttpMethod.GET)
post = partial(Operation, http_method=HttpMethod.POST)
put = partial(Operation, http_method=HttpMethod.PUT)
patch = partial(Operation, http_method=HttpMethod.PATCH)
delete = partial(Operation, http_method=HttpMethod.DELETE)
