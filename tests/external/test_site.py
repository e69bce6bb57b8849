"""The published documentation in a real browser, below a path of a web server, no other host in reach."""

import sys
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect
from running import CONTRACT, ROOT, browser, drawn, operations, run, spotless, web_server

PLACE = "some/where"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the folder that `just docs` builds."""
    root = tmp_path_factory.mktemp("server")
    run(sys.executable, ROOT / "docs/build.py", root / PLACE)
    with web_server(root) as port:
        yield f"http://localhost:{port}/{PLACE}"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as chromium:
        yield chromium


@pytest.fixture
def page(chromium: Browser, home: str) -> Iterator[Page]:
    with spotless(chromium, home) as page:
        page.goto(f"{home}/")
        page.locator("#operations-Contract-getDocs").wait_for()
        yield page


def test_the_reference(page: Page) -> None:
    """Every operation and the guides are there to read, and nothing to try on a server that is none."""
    assert drawn(page) == operations()
    expect(page.get_by_role("heading", name="Signing in from a browser")).to_be_visible()
    page.locator("#operations-Authentication-login .opblock-summary-control").click()
    expect(page.get_by_text("Too many failed attempts.", exact=False).first).to_be_visible()
    for name in ("Try it out", "Execute", "Authorize"):
        assert page.get_by_role("button", name=name).count() == 0


def test_the_changelog(page: Page, home: str) -> None:
    page.get_by_role("link", name="Changelog").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Changelog")
    assert page.locator("main li code").count() > 0
    page.get_by_role("link", name="Reference").click()
    page.locator("#operations-Contract-getDocs").wait_for()


def test_every_link_leads_somewhere(page: Page, home: str) -> None:
    """Within the folder; addresses elsewhere are for the reader to follow."""
    for start in ("index.html", "changelog.html"):
        page.goto(f"{home}/{start}")
        links = page.eval_on_selector_all("nav a, main a", "links => links.map(link => link.href)")
        own = [link for link in links if "localhost" in link]
        assert len(own) >= 2
        for link in own:
            assert link.startswith(f"{home}/")
            assert page.request.get(link).ok


def test_the_contract_is_the_contract(page: Page, home: str) -> None:
    assert page.request.get(f"{home}/openapi.yaml").body() == CONTRACT.read_bytes()
