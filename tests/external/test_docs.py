"""The reference page in a real browser: it draws the contract, asks no other host, and its forms work."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Browser, Page, expect
from running import ADMIN, browser, open_reference, service

CONTRACT = Path(__file__).parents[2] / "openapi.yaml"
METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with service(tmp_path_factory.mktemp("service")) as url:
        yield url


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as chromium:
        yield chromium


@pytest.fixture
def page(chromium: Browser, url: str) -> Iterator[Page]:
    """The reference page. Whatever a test does in it: no violation of the CSP, no error, no other host."""
    requests: list[str] = []
    complaints: list[str] = []
    with chromium.new_context() as context:
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(f"{line.type}: {line.text}"))
        open_reference(page, url)
        yield page
    assert complaints == []
    assert [request for request in requests if not request.startswith((f"{url}/", "data:"))] == []


def test_every_operation_is_drawn(page: Page) -> None:
    contract = yaml.safe_load(CONTRACT.read_text())
    operations = {
        operation["operationId"]
        for path in contract["paths"].values()
        for method, operation in path.items()
        if method in METHODS
    }
    blocks = page.locator(".opblock").all()
    assert {str(block.get_attribute("id")).rpartition("-")[2] for block in blocks} == operations


def test_sign_in_and_who_am_i(page: Page, url: str) -> None:
    assert execute(page, "Authentication-login", json.dumps(ADMIN)) == 200
    assert {cookie["name"] for cookie in page.context.cookies(f"{url}/api/auth/refresh")} == {
        "access_token",
        "refresh_token",
    }
    assert execute(page, "Users-getMe") == 200
    expect(page.locator("#operations-Users-getMe .live-responses-table")).to_contain_text(ADMIN["email"])


def execute(page: Page, operation: str, body: str | None = None) -> int:
    """Open the operation, send its form, and return the status that the page shows for it."""
    block = page.locator(f"#operations-{operation}")
    block.locator(".opblock-summary-control").click()
    if body is not None:
        block.locator("textarea").fill(body)
    block.get_by_role("button", name="Execute").click()
    return int(block.locator(".live-responses-table tbody .response-col_status").first.inner_text())
