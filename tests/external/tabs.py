"""A page of the frontend, open in a browser."""

from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import BrowserContext, Page, Request

from tests.external.running import ADMIN

PASSWORD = ADMIN["password"]
STAFF = "staff@example.com"


@dataclass
class Tab:
    """A page and the requests that it has sent to the service."""

    page: Page
    sent: list[Request] = field(default_factory=list)

    @property
    def context(self) -> BrowserContext:
        return self.page.context

    def run(self, call: str, **values: Any) -> Any:
        """What `app.<call>` of frontend/app.ts resolves to; `values` are its variables."""
        return self.page.evaluate(f"({{ {', '.join(values)} }}) => app.{call}", values)

    def failure(self, call: str, **values: Any) -> dict[str, Any]:
        """How it fails, as axios lets the page read it."""
        return dict(self.run(f"failure(app.{call})", **values))

    def sign_in(self, email: str = STAFF) -> Any:
        return self.run("signIn(email, password)", email=email, password=PASSWORD)

    def cookies(self) -> dict[str, Any]:
        return {cookie["name"]: cookie for cookie in self.context.cookies()}

    def sent_to(self, path: str, method: str = "POST") -> list[Request]:
        return [request for request in self.sent if request.method == method and path in request.url]

    def last_status(self, path: str, method: str = "POST") -> int:
        response = self.sent_to(path, method)[-1].response()
        assert response is not None
        return response.status

    def cookies_sent_to(self, path: str, method: str = "POST") -> set[str]:
        sent = self.sent_to(path, method)[-1].all_headers().get("cookie", "")
        return {cookie.split("=")[0] for cookie in sent.split("; ") if cookie}


def open_tab(context: BrowserContext, origin: str, service: str) -> Tab:
    tab = Tab(context.new_page())
    tab.page.on("request", lambda request: tab.sent.append(request) if service in request.url else None)
    tab.page.goto(f"{origin}/index.html")
    tab.page.wait_for_function("window.app")
    return tab
