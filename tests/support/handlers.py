"""The operations of an application, as Litestar has registered them."""

from litestar import Litestar, Response
from litestar.routes import HTTPRoute

from api.http.conditional import Tagged
from api.http.operation import Operation
from api.http.requests import OperationPolicy
from security.policy import AccessPolicy, Authentication


def handlers(app: Litestar) -> dict[tuple[str, str], Operation]:
    """By method and path; those alone that the contract is to know."""
    return {
        (method, f"{route.path_format}{OperationPolicy.of(handler).suffix}"): handler
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        for method in handler.http_methods
        if method != "OPTIONS" and handler.operation_id is not None and isinstance(handler, Operation)
    }


def is_counted(handler: Operation) -> bool:
    """Whether its requests count against a limit; those of login do, by e-mail, in a counter of their own."""
    is_exempt = AccessPolicy.of(handler).authentication is Authentication.NONE
    return not is_exempt or handler.operation_id == "login"


def counts_anonymous(handler: Operation) -> bool:
    """Whether requests without a living session are counted too, by their address."""
    return AccessPolicy.of(handler).authentication.counts_anonymous


def is_tagged(handler: Operation) -> bool:
    """Whether its answers have the entity tag of one object."""
    return handler.parsed_fn_signature.return_type.is_subclass_of(Tagged)


def builds_its_answer(handler: Operation) -> bool:
    """Whether it returns a response, which has headers of its own, and not a struct or text alone."""
    returned = handler.parsed_fn_signature.return_type
    return any(kind.is_subclass_of(Response) for kind in (returned, *returned.inner_types))
