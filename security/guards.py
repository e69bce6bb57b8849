"""Who may call an operation. Guards are coroutines: Litestar runs plain functions in a thread pool."""

from collections.abc import Iterable
from typing import Any

from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException
from litestar.handlers import BaseRouteHandler

from security.policy import AccessPolicy
from security.roles import Caller, Role

NOT_SIGNED_IN = "Not authenticated"  # the detail of every 401 but that of a wrong password


async def require_authentication(
    # Any: guards ask for neither the handler's type, nor the token, nor Litestar's state.
    connection: ASGIConnection[Any, Caller | None, Any, Any],
    handler: BaseRouteHandler,
) -> None:
    """401 for everybody without a living session, unless the operation is public."""
    if connection.scope["user"] is None and not AccessPolicy.of(handler).authentication.is_public:
        raise NotAuthorizedException(NOT_SIGNED_IN)


class requires:  # reads as a sentence in guards=[requires(Role.ADMIN)]
    """403 for every role but these; the contract's `x-roles` are compared with `roles`."""

    def __init__(self, *roles: Role) -> None:
        self.roles = frozenset(roles)

    async def __call__(
        self,
        connection: ASGIConnection[Any, Caller, Any, Any],  # Any: as above
        handler: BaseRouteHandler,
    ) -> None:
        if connection.user.role not in self.roles:
            raise PermissionDeniedException(f"Only {join_roles(self.roles)} may do this")


def join_roles(roles: Iterable[Role]) -> str:
    """`admin, doctor and staff`, in the order of the roles."""
    chosen = set(roles)
    *others, last = [role.value for role in Role if role in chosen]
    return f"{', '.join(others)} and {last}" if others else last
