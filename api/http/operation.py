"""The decorators of our operations: Litestar's, but their handlers prepare once what Litestar's do in each
request."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from time import monotonic
from types import MappingProxyType
from typing import Any, cast

import msgspec
from litestar import Litestar
from litestar._kwargs import KwargsModel
from litestar._kwargs.cleanup import DependencyCleanupGroup
from litestar._kwargs.dependencies import resolve_dependency
from litestar._kwargs.parameter_definition import ParameterDefinition
from litestar._signature import SignatureModel
from litestar.connection import ASGIConnection
from litestar.enums import HttpMethod, MediaType
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, ExceptionHandlersMap, Guard, Receive, Scope, Send
from msgspec import Struct, defstruct

from api.http.conditional import Tagged, encode, is_cached, require_match
from api.http.errors import AnyRequest
from api.http.headers import Header
from api.http.idempotency import headers_of_repeat
from api.http.json_schema import array_of, schema_of
from api.http.reauthorization import is_stale, reauthorize
from api.http.requests import (
    HeaderRule,
    OperationPolicy,
    Rule,
    StrictRequest,
    read_query,
    require_body,
    require_readable_body,
    require_sound_headers,
    required_parameters,
)
from persistence.audit import Action
from persistence.postgres.deadline import stop_clock
from security.policy import POLICY, Authentication, Counter

AnyConnection = ASGIConnection[Any, Any, Any, Any]  # as Litestar has it in what is overridden here
Arguments = dict[str, Any]  # of a handler, each of its type


class Operation(HTTPRouteHandler):
    handlers_of_exceptions: ExceptionHandlersMap

    def __init__(
        self,
        path: str | None = None,
        *,
        http_method: HttpMethod | Sequence[HttpMethod],
        operation_id: str | None = None,
        status_code: int | None = None,
        media_type: MediaType | str | None = None,
        include_in_schema: bool = True,
        guards: Sequence[Guard] = (),
        authentication: Authentication = Authentication.REQUIRED,
        counter: Counter = Counter.USER,
        changes_access: bool = False,
        action: Action | None = None,
        rules: Sequence[Rule] = (),
        headers: Mapping[str, HeaderRule] = MappingProxyType({}),
        manages_session: bool = False,
        suffix: str = "",
    ) -> None:
        """Litestar's arguments, as far as we use them, and those of OperationPolicy."""
        policy = OperationPolicy(
            authentication=authentication,
            counter=counter,
            changes_access=changes_access,
            action=action,
            rules=tuple(rules),
            headers=dict(headers),
            manages_session=manages_session,
            suffix=suffix,
        )
        super().__init__(
            path,
            http_method=http_method,
            operation_id=operation_id,
            status_code=status_code,
            media_type=media_type,
            include_in_schema=include_in_schema,
            guards=guards,
            opt={POLICY: policy},
        )

    def on_registration(self, app: Litestar) -> None:
        super().on_registration(app)
        self.handlers_of_exceptions = super().resolve_exception_handlers()

    def resolve_exception_handlers(self) -> ExceptionHandlersMap:
        return self.handlers_of_exceptions

    async def authorize_connection(self, connection: AnyConnection) -> None:
        """Litestar gives each guard a copy of the handler, because a guard might change it; ours do not."""
        for guard in self.resolve_guards():
            await guard(connection, self)  # type: ignore[misc]  # awaitable, as resolved

    def create_kwargs_model(self, path_parameters: Any) -> KwargsModel:  # Any: Litestar's own
        model = super().create_kwargs_model(path_parameters)
        if not FastKwargsModel.can_replace(model):
            return model
        self._signature_model = without_parsing(self.signature_model)
        return FastKwargsModel(model, self.signature_model)  # type: ignore[return-value]  # what HTTPRoute uses of one

    async def to_response(self, app: Litestar, data: Any, request: AnyRequest) -> ASGIApp:
        if isinstance(data, Tagged):
            return tagged_response(request, self.status_code, data)
        if isinstance(data, Struct):
            return StructResponse(self.status_code, encode(data), more=headers_of_repeat(request))
        if isinstance(data, OwnAnswer):
            return data
        return await super().to_response(app, data, request)


async def check_request(request: StrictRequest) -> None:
    """Litestar's before_request hook: check body, caller and query before the handler runs."""
    takes_body = request.route_handler.parsed_data_field is not None
    if takes_body:
        began = monotonic()
        await require_readable_body(request)
        stop_clock(monotonic() - began)
    if is_stale(request.auth):
        await reauthorize(request)
    if request.scope["query_string"] or required_parameters(request.route_handler):
        await read_query(request)
    if request.policy.headers:
        await require_sound_headers(request)
    if takes_body:
        await require_body(request)


class FastKwargsModel:
    """A faster KwargsModel for handlers that take nothing but the request, its body, path and query
    parameters and dependencies. The body and the query have been checked before."""

    has_kwargs = True

    def __init__(self, model: KwargsModel, signature: type[SignatureModel]) -> None:
        self.reserved = model.expected_reserved_kwargs
        self.in_path = [(one.field_name, one.field_alias) for one in model.expected_path_params]
        self.query = query_struct(model.expected_query_params, signature)
        self.lists = list_parameters(self.query)
        self.constants = {
            one.key: one.provide
            for batch in model.dependency_batches
            for one in batch
            if one.provide.use_cache and not one.dependencies
        }
        rest = ([one for one in batch if one.key not in self.constants] for batch in model.dependency_batches)
        self.dependency_batches = [batch for batch in rest if batch]
        self.defaults = msgspec.structs.asdict(self.query())
        self.takes_request = any(field.name == "request" for field in msgspec.structs.fields(signature))

    @staticmethod
    def can_replace(model: KwargsModel) -> bool:
        others = (
            model.expected_cookie_params,
            model.expected_header_params,
            model.expected_form_data,
            model.expected_msgpack_data,
            model.expected_data_dto,
        )
        return not any(others) and model.expected_reserved_kwargs <= {"request", "data"}

    async def to_kwargs(self, connection: StrictRequest) -> Arguments:
        kwargs = self.query_arguments(connection.query)
        for key, provide in self.constants.items():
            kwargs[key] = await provide()
        if "request" in self.reserved:
            kwargs["request"] = connection
        for name, alias in self.in_path:
            kwargs[name] = connection.scope["path_params"][alias]
        if "data" in self.reserved:
            kwargs["data"] = await connection.json()
        return kwargs

    def query_arguments(self, given: list[tuple[str, str]] | None) -> Arguments:
        if not given:
            return self.defaults.copy()
        values: Arguments = dict(given)
        for name in self.lists & values.keys():
            values[name] = values[name].split(",")
        return msgspec.structs.asdict(msgspec.convert(values, self.query, strict=False))

    async def resolve_dependencies(
        self, connection: AnyConnection, kwargs: Arguments
    ) -> DependencyCleanupGroup:
        """One after the other: ours do not wait for anything, and Litestar's task group costs more."""
        group = DependencyCleanupGroup()
        for batch in self.dependency_batches:
            for dependency in batch:
                await resolve_dependency(dependency, connection, kwargs, group)
        if not self.takes_request:  # only a dependency does
            kwargs.pop("request", None)
        return group


def query_struct(parameters: Iterable[ParameterDefinition], signature: type[SignatureModel]) -> type[Struct]:
    """A struct with a field for each parameter, named as in a query; each has a default."""
    kinds = {field.name: field.type for field in msgspec.structs.fields(signature)}
    fields = [(one.field_name, kinds[one.field_name], one.default) for one in parameters]
    return defstruct("Query", fields, rename={one.field_name: one.field_alias for one in parameters})


def list_parameters(query: type[Struct]) -> frozenset[str]:
    """The names of those that take several values, separated by commas."""
    fields = msgspec.structs.fields(query)
    return frozenset(field.encode_name for field in fields if array_of(schema_of(field.type)))


def without_parsing(signature: type[SignatureModel]) -> type[SignatureModel]:
    """The signature without its conversion of arguments, which have the right types already."""

    def parse(connection: AnyConnection, kwargs: Arguments) -> Arguments:
        return kwargs

    members = {"parse_values_from_connection_kwargs": staticmethod(parse)}
    return cast("type[SignatureModel]", type(signature.__name__, (signature,), members))


class OwnAnswer(ABC):
    """What a handler returns that sends its answer itself, in as many pieces as it likes."""

    @abstractmethod
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class StructResponse:
    """An answer with a struct as JSON, which is encoded already; without content if it is empty. `tag`: its
    entity tag, if it has one. `more`: further headers."""

    def __init__(self, status: int, body: bytes, tag: str | None = None, more: Sequence[Header] = ()) -> None:
        self.status = status
        self.body = body
        self.tag = tag
        self.more = more

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"etag", self.tag.encode()), *self.more] if self.tag else [*self.more]
        if self.body:
            headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(self.body))]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


def tagged_response(request: AnyRequest, status: int, data: Tagged[Struct]) -> StructResponse:
    """The object with its tag. A GET is 412 or 304 where its own conditions say so; those of a write were the
    handler's."""
    body, tag = data.encoded()
    if request.method == HttpMethod.GET:
        require_match(request, tag)
        if is_cached(request, tag):
            return StructResponse(HTTPStatus.NOT_MODIFIED, b"", tag)
    return StructResponse(status, body, tag, headers_of_repeat(request))


get = partial(Operation, http_method=HttpMethod.GET)
# What needs no cookie: probes, documents, the reference page. HEAD is answered as GET is, less the content,
# which the server leaves out (RFC 9110, 9.3.2).
get_public = partial(
    Operation, http_method=[HttpMethod.GET, HttpMethod.HEAD], authentication=Authentication.NONE
)
# What needs no cookie because a secret is in its path; counted by address.
get_with_secret = partial(
    Operation,
    http_method=[HttpMethod.GET, HttpMethod.HEAD],
    authentication=Authentication.SECRET,
    counter=Counter.FEED,
)
post = partial(Operation, http_method=HttpMethod.POST)
put = partial(Operation, http_method=HttpMethod.PUT)
patch = partial(Operation, http_method=HttpMethod.PATCH)
delete = partial(Operation, http_method=HttpMethod.DELETE)
