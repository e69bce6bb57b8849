"""A request: the facts about it, its body and its query. JSON is strict, the content type is enforced, no
parameter is repeated or unknown."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from math import inf
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

import msgspec
from litestar import Request
from litestar.datastructures import State
from litestar.exceptions import InternalServerException
from litestar.handlers import BaseRouteHandler
from litestar.params import QueryParameter
from msgspec import Struct

from api.http import validators, violations
from api.http.caches import cache_by_function
from api.http.errors import ApiError, BadRequest, InvalidInput, path_template
from api.http.json_schema import Schema, schema_of, without_null
from api.http.problems import ErrorCode, Fault
from api.http.services import Service, Services
from api.http.validators import body_decoder
from persistence.audit import Action
from security.admission import Admitted
from security.authentication import address_of
from security.policy import AccessPolicy
from security.roles import Caller

MISSING_PARAMETER = (ErrorCode.REQUIRED, "is required")
REPEATED_PARAMETER = (ErrorCode.REPEATED, "A query parameter may be given only once")
DRAINING = "draining"  # in the state that the server shares with each request, once it stops
STOPPING = "stopping"  # in the same, always: an event that is set then
INCOMPLETE_BODY = "body: is not complete"
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class UnsupportedMediaType(ApiError):
    status_code = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class StrictRequest(Request[Caller, Admitted, State]):
    """The only place where the facts about a request are read from the ASGI scope. `json` is stricter than
    Litestar's, which takes "5" for 5 and any content type."""

    query: list[tuple[str, str]] | None = None  # set by read_query: what the handler reads

    @property
    def caller(self) -> Caller | None:
        """Who is signed in, if anybody. `user` is the same where the operation requires that."""
        caller: Caller | None = self.scope.get("user")
        return caller

    @property
    def request_id(self) -> UUID:
        """The answer has it as X-Request-Id."""
        request_id: UUID = self.scope["state"]["request_id"]
        return request_id

    @property
    def address(self) -> str:
        """Of the client, as trusted proxies name it (api/http/proxies.py)."""
        return address_of(self)

    @property
    def policy(self) -> "OperationPolicy":
        return OperationPolicy.of(self.route_handler)

    @property
    def path_template(self) -> str:
        return path_template(self)

    def service(self, kind: type[Service]) -> Service:
        """The object of this type that api/app.py has put into Services."""
        services: Services = self.app.state.services
        return services[kind]

    def has_service(self, kind: type[object]) -> bool:
        services: Services = self.app.state.services
        return kind in services.by_kind

    def set_caller(self, caller: Caller | None, *, checked_at: float = inf) -> None:
        """From now on the request is `caller`'s. `checked_at`: when their session was looked up, in seconds
        of the monotonic clock; by default it is not looked up again."""
        self.scope["user"] = caller
        self.scope["auth"] = msgspec.structs.replace(self.auth, caller=caller, checked_at=checked_at)

    async def json(self) -> Any:  # Any: as Litestar's; a struct of body_schema
        schema, body = body_schema(self), await self.body()
        decoder = body_decoder(schema)
        try:
            value = decoder.decode(body)
        except UNREADABLE as error:
            raise InvalidInput(find_body_faults(self, body) or [NOT_VALID]) from error
        # msgspec takes more spellings of a format than the contract, takes the last of two fields with one
        # name, and does not know our own rules.
        is_valid = decoder.is_valid(JSON_WITH_UNIQUE_KEYS.decode(body.decode()))
        is_allowed = is_valid and not any(apply_rules(self, decoder.given_fields(value)))
        if not is_allowed and (faults := find_body_faults(self, body)):
            raise InvalidInput(faults)
        return value


# The fields of a body that were sent and are not null, by their names in the contract, each of its type.
Given = Mapping[str, Any]
# A rule that a schema cannot express, for `rules=[…]` of an operation: it yields what is wrong with these
# fields.
Rule = Callable[[Given, StrictRequest], Iterator[Fault]]
# What is wrong with one header field of a request.
HeaderRule = Callable[[StrictRequest], Iterator[Fault]]


@dataclass(frozen=True, kw_only=True)
class OperationPolicy(AccessPolicy):
    """What our decorators take beyond Litestar's own. `action`: the name of its events in the audit trail.
    `rules`: what is checked of the body beyond its schema; `headers`: of header fields, by their names in the
    contract. `manages_session`: it renews or ends the session itself, so its transaction does not check
    whether the session is still alive. `suffix`: what the contract has behind the last parameter of the path,
    which Litestar takes for a part of that."""

    action: Action | None = None
    rules: tuple[Rule, ...] = ()
    headers: Mapping[str, HeaderRule] = field(default_factory=dict)
    manages_session: bool = False
    suffix: str = ""


NOT_VALID = Fault(pointer="", code=ErrorCode.BAD_REQUEST, detail="is not valid")
NO_BODY = Fault(pointer="", code=ErrorCode.REQUIRED, detail="is required")
NOT_JSON = Fault(pointer="", code=ErrorCode.MALFORMED_JSON, detail="must be JSON text in UTF-8")
REPEATED_FIELD = Fault(pointer="", code=ErrorCode.REPEATED, detail="a field may be given only once")


def body_schema(request: StrictRequest) -> type[Struct]:
    schema: type[Struct] = request.route_handler.parsed_data_field.annotation  # type: ignore[union-attr]  # there is one
    return schema


def find_body_faults(request: StrictRequest, body: bytes) -> list[Fault]:
    """All that is wrong with the body, by its schema and by our own rules, in the order of the fields. Raises
    InvalidInput if it cannot be read or has a field twice."""
    if not body:
        raise InvalidInput([NO_BODY])
    try:
        msgspec.json.decode(body)  # stricter than json.loads, which takes NaN, UTF-16 and lone surrogates
        value = JSON_WITH_UNIQUE_KEYS.decode(body.decode())
    except UNREADABLE as error:
        raise InvalidInput([NOT_JSON]) from error
    schema = body_schema(request)
    faults = violations.body_faults(schema, value)
    faults += apply_rules(request, violations.valid_fields(schema, value, faults))
    return violations.sort_faults(schema, faults)


def apply_rules(request: StrictRequest, given: Given) -> Iterator[Fault]:
    for rule in request.policy.rules:
        yield from rule(given, request)


def parse_integer(digits: str) -> int | float:
    """An int, or a float for more digits than any field of ours holds: Python refuses to convert thousands of
    them."""
    return int(digits) if len(digits) <= 20 else float(digits)


def require_unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    given = dict(pairs)
    if len(pairs) != len(given):
        raise InvalidInput([REPEATED_FIELD])
    return given


JSON_WITH_UNIQUE_KEYS = json.JSONDecoder(object_pairs_hook=require_unique_keys, parse_int=parse_integer)


@cache_by_function
def query_schemas(handler: BaseRouteHandler) -> dict[str, Schema]:
    """The schemas of the handler's query parameters, by their names in the contract. An absent parameter is
    not null, so none of them allows null."""
    fields = handler.parsed_fn_signature.parameters.values()
    return {
        str(getattr(field.kwarg_definition, "name", None) or field.name): without_null(schema_of(field.raw))
        for field in fields
        if isinstance(field.kwarg_definition, QueryParameter)
    }


@cache_by_function
def query_checks(handler: BaseRouteHandler) -> dict[str, validators.Check]:
    return {name: validators.query_check(schema) for name, schema in query_schemas(handler).items()}


@cache_by_function
def required_parameters(handler: BaseRouteHandler) -> frozenset[str]:
    fields = handler.parsed_fn_signature.parameters.values()
    required = {field.name for field in fields if field.is_required}
    return frozenset(required & query_schemas(handler).keys())


async def require_readable_body(request: StrictRequest) -> None:
    """Wait for the whole body. Raises 415 for its type or encoding, then 413 for its size."""
    kind, _ = request.content_type
    if kind != "application/json":
        raise UnsupportedMediaType("Content-Type must be application/json")
    if has_content_encoding(request):
        raise UnsupportedMediaType("Content-Encoding must be identity: send the body as it is")
    try:
        await request.body()  # raises 413
    except InternalServerException as error:
        # The client disconnected before the end of its body; this is not a server error.
        raise BadRequest(INCOMPLETE_BODY, ErrorCode.INCOMPLETE_BODY) from error


async def read_query(request: StrictRequest) -> None:
    """Check the query, and keep in `request.query` what the handler reads. Raises BadRequest for what is
    wrong with it."""
    given = parse_query(request.scope["query_string"].decode("latin-1"))
    handler = request.route_handler
    is_complete = required_parameters(handler) <= {name for name, _ in given}
    if not is_complete or not is_valid_query(given, query_checks(handler)):
        given = await clean_query(request, given)
    request.query = given


def parse_query(query: str) -> list[tuple[str, str]]:
    if "%" in query or "+" in query:
        return parse_qsl(query, keep_blank_values=True, errors="surrogateescape")
    pieces = (piece.partition("=") for piece in query.split("&") if piece)
    return [(name, value) for name, _, value in pieces]


def is_valid_query(given: list[tuple[str, str]], checks: dict[str, validators.Check]) -> bool:
    """Whether each parameter is known, not repeated, and a value of its schema."""
    if len(given) != len(dict(given)):
        return False
    for name, value in given:
        check = checks.get(name)
        if check is None or not check(value):
            return False
    return True


async def clean_query(request: StrictRequest, given: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The parameters without empty filters, which count as absent. Raises BadRequest with everything that is
    wrong, in the body as well."""
    times = Counter(name for name, _ in given)
    repeated = [violations.parameter_fault(name, REPEATED_PARAMETER) for name in times if times[name] > 1]
    once = [(name, value) for name, value in given if times[name] == 1]
    is_closed = request.path_template.startswith("/api/")
    schemas, has_filters = query_schemas(request.route_handler), request.method in ("GET", "HEAD")
    faults, kept = violations.check_query(schemas, once, is_closed, has_filters)
    lacking = required_parameters(request.route_handler) - {name for name, value in given if value}
    faults += [violations.parameter_fault(name, MISSING_PARAMETER) for name in sorted(lacking)]
    if repeated or faults:
        faults = [*repeated, *faults, *find_header_faults(request), *await body_faults_if_any(request)]
        raise (
            BadRequest(REPEATED_PARAMETER[1], REPEATED_PARAMETER[0], faults)
            if repeated
            else InvalidInput(faults)
        )
    return kept


async def require_sound_headers(request: StrictRequest) -> None:
    """Raise InvalidInput with everything that is wrong with the header fields, and with the body as well."""
    faults = list(find_header_faults(request))
    if faults:
        raise InvalidInput([*faults, *await body_faults_if_any(request)])


def find_header_faults(request: StrictRequest) -> Iterator[Fault]:
    for rule in request.policy.headers.values():
        yield from rule(request)


async def require_body(request: StrictRequest) -> None:
    if not await request.body():
        raise InvalidInput([NO_BODY])


async def body_faults_if_any(request: StrictRequest) -> Sequence[Fault]:
    """The faults of the body, if the operation takes one, also if it cannot be read."""
    if request.route_handler.parsed_data_field is None:
        return []
    try:
        return find_body_faults(request, await request.body())
    except InvalidInput as unreadable:
        return unreadable.faults


def has_content_encoding(request: StrictRequest) -> bool:
    codings = ",".join(request.headers.getall("content-encoding", []))
    return any(coding.strip().lower() not in {"", "identity"} for coding in codings.split(","))
