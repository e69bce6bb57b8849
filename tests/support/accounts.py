"""Accounts and their sessions, for the tests of each side of them."""

from collections.abc import Iterable
from typing import Any

from security.roles import Role
from tests.support.client import Browser
from tests.support.factories import World, registration

ME = "/api/users/me"
OTHER_PASSWORD = "another horse"
PASSWORD_CHANGED = {"message": "Password changed"}


def statuses(sessions: Iterable[Browser]) -> set[int]:
    return {session.get(ME).status_code for session in sessions} | {
        session.post("/api/auth/refresh").status_code for session in sessions
    }


def make_account(world: World, role: Role = Role.PATIENT, **changes: Any) -> dict[str, Any]:
    """A new active account that nobody has signed in to."""
    body = registration(role, **changes)
    answer = world.admin.post("/api/auth/register", body)
    assert answer.status_code == 201
    return dict(answer.json())
