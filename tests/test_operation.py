"""How an operation runs, underneath."""

from litestar import Litestar
from litestar.routes import HTTPRoute

from api.operation import Operation
from tests.service import Service


def handlers(app: Litestar) -> list[object]:
    routes = (route for route in app.routes if isinstance(route, HTTPRoute))
    return [handler for route in routes for handler in route.route_handlers if handler.operation_id]


def test_every_operation_is_written_with_our_decorators(service: Service) -> None:
    """`from api.operation import get`, not `from litestar import get`, whose handlers are slow."""
    others = [handler for handler in handlers(service.app) if not isinstance(handler, Operation)]
    assert not others
