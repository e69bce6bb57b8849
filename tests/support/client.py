"""A client that keeps cookies as a browser does, and checks every answer against the contract."""

import atexit
from collections.abc import Mapping
from typing import Any

import httpx

from tests.support.conformance import CONTRACT

COOKIE_PATHS = {"access_token": "/", "refresh_token": "/api/auth/refresh"}
HTTP_CLIENT = httpx.Client(timeout=60, limits=httpx.Limits(max_connections=None))
atexit.register(HTTP_CLIENT.close)
PROBLEM = {"accept": "application/problem+json"}  # of who wants errors as RFC 9457 has them


class Browser:
    """Keeps the two cookies and sends each to its path. Cookie libraries would not send Secure ones to
    http://localhost; browsers do."""

    def __init__(self, base_url: str, cookies: dict[str, str] | None = None) -> None:
        self.base_url = base_url
        self.cookies = cookies or {}

    def request(
        self, method: str, path: str, *, headers: Mapping[str, str] = {}, **options: Any
    ) -> httpx.Response:
        target = path.split("?")[0]
        sent = {name: value for name, value in self.cookies.items() if target.startswith(COOKIE_PATHS[name])}
        if sent and "cookie" not in {name.lower() for name in headers}:
            headers = {**headers, "cookie": "; ".join(f"{name}={value}" for name, value in sent.items())}
        response = HTTP_CLIENT.request(method, self.base_url + path, headers=headers, **options)
        for cookie in response.headers.get_list("set-cookie"):
            name, _, value = cookie.split(";")[0].partition("=")
            if value:
                self.cookies[name] = value
            else:
                self.cookies.pop(name, None)
        CONTRACT.check(response)
        return response

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, json: Any = None, **options: Any) -> httpx.Response:
        return self.request("POST", path, **(options if json is None else {"json": json, **options}))

    def patch(self, path: str, json: Any = None, **options: Any) -> httpx.Response:
        return self.request("PATCH", path, **(options if json is None else {"json": json, **options}))

    def put(self, path: str, json: Any = None, **options: Any) -> httpx.Response:
        return self.request("PUT", path, **(options if json is None else {"json": json, **options}))

    def delete(self, path: str, **options: Any) -> httpx.Response:
        return self.request("DELETE", path, **options)

    def login(self, email: str, password: str) -> httpx.Response:
        return self.post("/api/auth/login", {"email": email, "password": password})

    def me(self) -> dict[str, Any]:
        return dict(self.get("/api/users/me").json())

    def stats(self) -> dict[str, int]:
        """The figures of the dashboard."""
        answer = self.get("/api/dashboard/stats")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


def standing(answer: httpx.Response) -> tuple[str, ...]:
    """(policy, limit, remaining): where the answer says that the caller stands."""
    return tuple(answer.headers[f"ratelimit-{name}"] for name in ("policy", "limit", "remaining"))
