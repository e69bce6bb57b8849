"""The counters of requests, as Redis keeps them, and callers who have reached their limit."""

from tests.support.client import Browser
from tests.support.service import Backend, Service

ME = "/api/users/me"
REGISTER = "/api/auth/register"
REFRESH = "/api/auth/refresh"
LOGOUT = "/api/auth/logout"
TOO_MANY = {"detail": "Too many requests"}


def count_of(backend: Backend, user_id: str, counter: str = "user") -> int:
    with backend.redis as connection:
        return int(connection.get(f"requests:{counter}:{user_id}") or 0)


def counted(backend: Backend) -> dict[str, str]:
    with backend.redis as connection:
        return {key: connection.get(key) for key in connection.scan_iter("requests:*")}


def spend(backend: Backend, key: str, requests: int, seconds: int = 60) -> None:
    with backend.redis as connection:
        connection.set(f"requests:{key}", requests, ex=seconds)


def use_up(service: Service) -> Browser:
    """Reach the limit of the address as an anonymous caller, who is returned."""
    stranger = service.browser()
    while stranger.post(REGISTER, {}).status_code != 429:
        pass
    return stranger


def as_user(service: Service, browser: Browser) -> Browser:
    """The same session at another instance."""
    return service.browser(dict(browser.cookies))
