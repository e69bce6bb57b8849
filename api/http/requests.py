"""How a request is read: strict JSON, the content type enforced, no parameter twice and none unknown."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from math import inf
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

import msgspec
from litestar import Request
from litestar.datastructures import State
from litestar.exceptions import InternalServerException
from litestar.params import QueryParameter

from api.http import validators, violations
from api.http.errors import ApiError, BadRequest, InvalidInput
from api.http.json_schema import schema_of, without_null
from api.http.problems import ErrorCode, Fault
from api.http.services import Service, Services
from api.http.validators import body_decoder
from persistence.audit import Action
from security.admission import Admitted
from security.authentication import address_of
from security.policy import AccessPolicy
from security.roles import Caller

REPEATED_PARAMETER = (ErrorCode.REPEATED, "A query parameter may be given only once")
INCOMPLETE_BODY = "body: is not complete"
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class UnsupportedMediaType(ApiError):
    status_code = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class StrictRequest(Request[Caller, Admitted, State]):
    """What is known of a request; no other module reads it from the ASGI scope. And its body: Litestar
    converts it laxly ("5" passes for 5) and takes any content type; this does neither."""

    query: list[tuple[str, str]] | None = None  # what the handler is to read of it, once it is judged

    @property
    def caller(self) -> Caller | None:
        """None: nobody is signed in. Where the operation is for callers who are, `user` is the same."""
        caller: Caller | None = self.scope.get("user")
        return caller

    @property
    def request_id(self) -> UUID:
        """As in the answer's X-Request-Id."""
        request_id: UUID = self.scope["state"]["request_id"]
        return request_id

    @property
    def address(self) -> str:
        """Of the client, or of whom trusted proxies name."""
        return address_of(self)

    @property
    def policy(self) -> "OperationPolicy":
        return OperationPolicy.of(self.route_handler)

    @property
    def path_template(self) -> str:
        """The path as the contract writes it, with no id in it; empty where there is no such path."""
        return str(self.scope.get("path_template") or "")

    def service(self, kind: type[Service]) -> Service:
        """The one of its kind that api/app.py has put together."""
        services: Services = self.app.state.services
        return services[kind]

    def set_caller(self, caller: Caller | None, *, checked_at: float = inf) -> None:
        """Go on as `caller`. `checked_at`: when their session was looked up, in seconds of the monotonic
        clock; by default it is not looked up again."""
        self.scope["user"] = caller
        self.scope["auth"] = msgspec.structs.replace(self.auth, caller=caller, checked_at=checked_at)

    async def json(self) -> Any:
        schema, body = body_schema(self), await self.body()
        reader = body_decoder(schema)
        try:
            value = reader.decode(body)
        except UNREADABLE as error:
            raise InvalidInput(find_body_faults(self, body) or [NOT_VALID]) from error
        # The decoder takes more than the formats, the last of two fields, and knows nothing of our own rules.
        is_sound = reader.is_sound(JSON_WITH_UNIQUE_KEYS.decode(body.decode()))
        is_allowed = is_sound and not any(apply_rules(self, reader.given(value)))
        if not is_allowed and (faults := find_body_faults(self, body)):
            raise InvalidInput(faults)
        return value


# A rule that the schema cannot say, in a handler's `rules=[…]`: what is wrong with the fields that are given,
# by their names in the contract, each of its type.
Given = Mapping[str, Any]
Rule = Callable[[Given, StrictRequest], Iterator[Fault]]


@dataclass(frozen=True, kw_only=True)
class OperationPolicy(AccessPolicy):
    """What an operation's decorator says beyond Litestar's own. `action`: what its row of the audit trail is
    called. `manages_session`: its transaction looks after the session itself, which it renews or ends."""

    action: Action | None = None
    rules: tuple[Rule, ...] = ()
    manages_session: bool = False


NOT_VALID = Fault(pointer="", code=ErrorCode.BAD_REQUEST, detail="is not valid")
NO_BODY = Fault(pointer="", code=ErrorCode.REQUIRED, detail="is required")
NOT_JSON = Fault(pointer="", code=ErrorCode.MALFORMED_JSON, detail="must be JSON text in UTF-8")
REPEATED_FIELD = Fault(pointer="", code=ErrorCode.REPEATED, detail="a field may be given only once")


def body_schema(request: StrictRequest) -> Any:
    return request.route_handler.parsed_data_field.annotation  # type: ignore[union-attr]  # there is one


def find_body_faults(request: StrictRequest, body: bytes) -> list[Fault]:
    """All that is wrong with the body, by the schema and by our own rules, in the order of its fields;
    Invalid where it cannot be read, or has a field twice, of which any decoder would take one."""
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
    """Python takes no integer of thousands of digits, and no field of ours holds one."""
    return int(digits) if len(digits) <= 20 else float(digits)


def require_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    given = dict(pairs)
    if len(pairs) != len(given):
        raise InvalidInput([REPEATED_FIELD])
    return given


JSON_WITH_UNIQUE_KEYS = json.JSONDecoder(object_pairs_hook=require_unique_keys, parse_int=parse_integer)


@cache
def query_schemas(handler: Any) -> dict[str, dict[str, Any]]:
    """The schemas of the handler's query parameters by their names in the contract; its other arguments are
    none. What is not given is not null."""
    fields = handler.parsed_fn_signature.parameters.values()
    return {
        str(getattr(field.kwarg_definition, "name", None) or field.name): without_null(schema_of(field.raw))
        for field in fields
        if isinstance(field.kwarg_definition, QueryParameter)
    }


@cache
def query_checks(handler: Any) -> dict[str, validators.Check]:
    return {name: validators.query_check(schema) for name, schema in query_schemas(handler).items()}


async def require_readable_body(request: StrictRequest) -> None:
    """Whether a body can be read at all: 415, then 413. Returns when all of it is here."""
    kind, _ = request.content_type
    if kind != "application/json":
        raise UnsupportedMediaType("Content-Type must be application/json")
    if has_content_encoding(request):
        raise UnsupportedMediaType("Content-Encoding must be identity: send the body as it is")
    try:
        await request.body()  # raises 413
    except InternalServerException as error:  # whoever sent it has hung up: no failure of ours
        raise BadRequest(INCOMPLETE_BODY, ErrorCode.INCOMPLETE_BODY) from error


async def read_query(request: StrictRequest) -> None:
    """How the query is written; leaves in the request what the handler is to read of it."""
    given = parse_query(request.scope["query_string"].decode("latin-1"))
    if not is_valid_query(given, query_checks(request.route_handler)):
        given = await clean_query(request, given)
    request.query = given


def parse_query(query: str) -> list[tuple[str, str]]:
    if "%" in query or "+" in query:
        return parse_qsl(query, keep_blank_values=True, errors="surrogateescape")
    pieces = (piece.partition("=") for piece in query.split("&") if piece)
    return [(name, value) for name, _, value in pieces]


def is_valid_query(given: list[tuple[str, str]], checks: dict[str, validators.Check]) -> bool:
    """Whether each is known, given once, and a value of its schema."""
    if len(given) != len(dict(given)):
        return False
    for name, value in given:
        check = checks.get(name)
        if check is None or not check(value):
            return False
    return True


async def clean_query(request: StrictRequest, given: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """What of it counts; BadRequest where it has a fault."""
    times = Counter(name for name, _ in given)
    repeated = [violations.parameter_fault(name, REPEATED_PARAMETER) for name in times if times[name] > 1]
    once = [(name, value) for name, value in given if times[name] == 1]
    is_closed = request.path_template.startswith("/api/")
    faults, kept = violations.check_query(query_schemas(request.route_handler), once, is_closed)
    if repeated or faults:
        faults = [*repeated, *faults, *await body_faults_if_any(request)]
        raise (
            BadRequest(REPEATED_PARAMETER[1], REPEATED_PARAMETER[0], faults)
            if repeated
            else InvalidInput(faults)
        )
    return kept


async def require_body(request: StrictRequest) -> None:
    if not await request.body():
        raise InvalidInput([NO_BODY])


async def body_faults_if_any(request: StrictRequest) -> Sequence[Fault]:
    """Those of a body that may be none, or none that can be read."""
    if request.route_handler.parsed_data_field is None:
        return []
    try:
        return find_body_faults(request, await request.body())
    except InvalidInput as unreadable:
        return unreadable.faults


def has_content_encoding(request: StrictRequest) -> bool:
    codings = ",".join(request.headers.getall("content-encoding", []))
    return any(coding.strip().lower() not in {"", "identity"} for coding in codings.split(","))
