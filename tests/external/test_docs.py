"""The reference page in a real browser: it draws the contract, asks no other host, and its forms work."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Browser, Page, expect
from running import ADMIN, browser, open_reference, service

CONTRACT = Path(__file__).parents[2] / "openapi.yaml"
VIOLATIONS = (
    "addEventListener('securitypolicyviolation', event => console.error('CSP', event.violatedDirective))"
)


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with service(tmp_path_factory.mktemp("service")) as url:
        yield url


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    with browser() as chromium:
        yield chromium


class Watch:
    """Everything a page asked for, and everything it complained about."""

    def __init__(self, page: Page) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("requestfailed", lambda request: self.complaints.append(f"failed: {request.url}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on(
            "console",
            lambda line: self.complaints.append(line.text) if line.type in {"error", "warning"} else None,
        )
        page.add_init_script(VIOLATIONS)


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    with chromium.new_context() as context:
        yield context.new_page()


@pytest.fixture(autouse=True)
def watch(page: Page, url: str) -> Iterator[Watch]:
    """Whatever a test does in the page: no CSP violation, no error, no other host."""
    watch = Watch(page)
    yield watch
    assert watch.complaints == []
    assert [request for request in watch.requests if not request.startswith((f"{url}/", "data:"))] == []


def execute(page: Page, operation: str, body: str | None = None) -> str:
    """Open the operation, send its form, and return the status of the live answer."""
    block = page.locator(f"#operations-{operation}")
    block.locator(".opblock-summary-control").click()
    if body is not None:
        block.locator("textarea.body-param__text").fill(body)
    block.get_by_role("button", name="Execute").click()
    status = block.locator(".live-responses-table .response-col_status").last
    expect(status).to_have_text(status_code := "200")
    return status_code
