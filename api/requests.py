"""How a request is read: strict JSON, the content type enforced, no parameter twice."""

import json
from collections.abc import Callable
from functools import cache
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from litestar import Request
from litestar.datastructures import State
from litestar.exceptions import InternalServerException
from litestar.params import QueryParameter

from api.errors import BadRequest, Refused
from api.rules import broken_rule, is_misspelt, misspelt_field, rule_of, schema_of, wire_name
from api.schemas import is_unicode
from security.admission import Admitted
from security.roles import Caller

MAX_BODY = 256 * 1024


class UnsupportedMediaType(Refused):
    status_code = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class StrictRequest(Request[Caller, Admitted, State]):
    """Litestar converts bodies laxly ("5" passes for 5) and takes any content type; this does neither."""

    async def json(self) -> Any:
        schema = self.route_handler.parsed_data_field.annotation  # type: ignore[union-attr]  # it has one
        body = await self.body()
        try:
            value = decoder(schema)(body)
            # The decoder would take the last of two keys, and more than the formats.
            misspelt = misspelt_field(schema, json.loads(body, object_pairs_hook=no_key_twice))
        except msgspec.ValidationError as error:
            raise BadRequest(broken_rule(schema, error)) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadRequest("body: must be JSON text in UTF-8") from error
        if misspelt:
            raise BadRequest(misspelt)
        return value


def no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    given = dict(pairs)
    if len(pairs) != len(given):
        raise BadRequest("body: a field may be given only once")
    return given


@cache
def query_parameters(handler: Any) -> dict[str, Any]:
    """The handler's query parameters by their names in the contract; its other arguments are none."""
    fields = handler.parsed_fn_signature.parameters.values()
    return {wire_name(f): f for f in fields if isinstance(f.kwarg_definition, QueryParameter)}


@cache
def decoder(schema: Any) -> Callable[[bytes], Any]:
    return msgspec.json.Decoder(schema).decode


async def judge_body(request: Request[Any, Any, Any]) -> None:
    """Whether there is a body as there must be: 415, then 413. Returns when all of it is here."""
    if request.route_handler.parsed_data_field is not None:
        kind, _ = request.content_type
        if kind != "application/json":
            raise UnsupportedMediaType("Content-Type must be application/json")
        if is_encoded(request):
            raise UnsupportedMediaType("Content-Encoding must be identity: send the body as it is")
        try:
            body = await request.body()  # raises 413
        except InternalServerException as error:  # whoever sent it has hung up: nobody's failure but his
            raise BadRequest("body: is not complete") from error
        if not body:
            raise BadRequest("body: is required")


def judge_query(request: Request[Any, Any, Any]) -> None:
    """How the query is written."""
    query = request.scope["query_string"]
    if query:
        given = parse_qsl(query.decode("latin-1"), keep_blank_values=True, errors="surrogateescape")
        if len(given) != len(dict(given)):
            raise BadRequest("A query parameter may be given only once")
        judge_parameters(request, given)


def is_encoded(request: Request[Any, Any, Any]) -> bool:
    codings = ",".join(request.headers.getall("content-encoding", []))
    return any(coding.strip().lower() not in {"", "identity"} for coding in codings.split(","))


def judge_parameters(request: Request[Any, Any, Any], given: list[tuple[str, str]]) -> None:
    known = query_parameters(request.route_handler)
    for name, value in given:
        field = known.get(name)
        if field is None:
            continue
        if not is_unicode(value):
            raise BadRequest(f"{name}: must be UTF-8, percent-encoded")
        # Litestar takes null for None, and the filter would be off without a word.
        is_none = value.lower() == "null" and field.is_optional
        if is_none or is_misspelt(schema_of(field.raw), value):
            raise BadRequest(rule_of(field))
