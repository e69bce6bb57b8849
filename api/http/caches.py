"""What is worked out once of the function that a handler runs."""

from collections.abc import Callable
from typing import TypeVar

from litestar.handlers import BaseRouteHandler

T = TypeVar("T")


def cache_by_function(work_out: Callable[[BaseRouteHandler], T]) -> Callable[[BaseRouteHandler], T]:
    """Of a handler, whose application functools.cache would keep until the process ends."""
    known: dict[object, T] = {}

    def look_up(handler: BaseRouteHandler) -> T:
        function = getattr(handler.fn, "__func__", handler.fn)
        if function not in known:
            known[function] = work_out(handler)
        return known[function]

    return look_up
