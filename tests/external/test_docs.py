"""The reference page in a real browser: it draws the contract, asks no other host, and its forms work."""

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect
from running import ADMIN, browser, drawn, open_reference, operations, service, spotless


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
    with spotless(chromium, url) as page:
        open_reference(page, url)
        yield page


def test_every_operation_is_drawn(page: Page) -> None:
    assert drawn(page) == operations()


def test_sign_in_and_who_am_i(page: Page, url: str) -> None:
    assert execute(page, "Authentication-login", json.dumps(ADMIN)) == 200
    assert {cookie["name"] for cookie in page.context.cookies(f"{url}/api/auth/refresh")} == {
        "access_token",
        "refresh_token",
    }
    assert execute(page, "Users-getMe") == 200
    expect(page.locator("#operations-Users-getMe .live-responses-table")).to_contain_text(ADMIN["email"])


def test_a_telephone_need_not_scroll_sideways(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def execute(page: Page, operation: str, body: str | None = None) -> int:
    """Open the operation, send its form, and return the status that the page shows for it."""
    block = page.locator(f"#operations-{operation}")
    block.locator(".opblock-summary-control").click()
    if body is not None:
        block.locator("textarea").fill(body)
    block.get_by_role("button", name="Execute").click()
    return int(block.locator(".live-responses-table tbody .response-col_status").first.inner_text())


@pytest.mark.parametrize(
    "fault",
    [
        "document.body.setAttribute('style', 'color: red')",  # inline: against the CSP
        "fetch('https://example.com/').catch(() => 0)",
        "void setTimeout(() => { throw new Error('Oh'); })",
        "fetch('/docs/no-such-file').then(() => 0)",
    ],
)
def test_a_fault_of_the_page_is_noticed(chromium: Browser, url: str, fault: str) -> None:
    watched = spotless(chromium, url)
    page = watched.__enter__()
    open_reference(page, url)
    page.evaluate(fault)
    page.wait_for_timeout(100)
    with pytest.raises(AssertionError):
        watched.__exit__(None, None, None)
