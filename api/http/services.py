"""What api/app.py puts together once, for those who are given no dependency by Litestar: rules, hooks,
middlewares."""

from typing import Any, TypeVar

Service = TypeVar("Service")


class Services:
    """One of each kind; StrictRequest.service finds it."""

    def __init__(self, *services: object) -> None:
        # Any: each value is of its key's type.
        self.by_kind: dict[type, Any] = {type(service): service for service in services}

    def __getitem__(self, kind: type[Service]) -> Service:
        service: Service = self.by_kind[kind]
        return service
