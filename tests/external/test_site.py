"""The published documentation in a real browser, below a path of a web server, no other host in reach."""

import sys
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.external.reference import (
    clean_page,
    guides,
    guides_in,
    open_reference,
    operations,
    operations_in,
    require_accessible,
    section,
)
from tests.external.running import CONTRACT, ROOT, launch_browser, run, serve_files

PLACE = "some/where"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the folder that `just docs` builds."""
    root = tmp_path_factory.mktemp("server")
    run(sys.executable, ROOT / "docs/build.py", root / PLACE)
    with serve_files(root) as port:
        yield f"http://localhost:{port}/{PLACE}"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with launch_browser() as chromium:
        yield chromium


@pytest.fixture
def page(chromium: Browser, home: str) -> Iterator[Page]:
    with clean_page(chromium, home) as page:
        open_reference(page, f"{home}/")
        yield page


def test_published_reference_is_the_page_of_the_service(page: Page, home: str) -> None:
    assert guides_in(page) == guides()
    assert operations_in(page) == operations()
    page.goto(f"{home}/#tag/authentication/login")
    expect(section(page, "login").get_by_text("No account with this e-mail and password")).to_be_visible()
    require_accessible(page)


def test_published_reference_offers_no_form_as_no_service_is_there(page: Page) -> None:
    for name in ("Test Request", "Send", "Authorize"):
        assert page.get_by_role("button", name=name).count() == 0


def test_published_reference_leads_to_the_changelog_and_back(page: Page) -> None:
    page.get_by_role("link", name="Changelog").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Changelog")
    assert page.locator("main li code").count() > 0
    require_accessible(page)
    page.get_by_role("link", name="Reference").click()
    page.get_by_role("heading", name=guides()[0]).wait_for()


@pytest.mark.parametrize("start", ["index.html", "changelog.html"])
def test_every_published_link_leads_somewhere(page: Page, home: str, start: str) -> None:
    """Within the folder; addresses elsewhere are for the reader to follow."""
    page.goto(f"{home}/{start}")
    links = page.eval_on_selector_all("nav.bar a, main a", "links => links.map(link => link.href)")
    own = [link for link in links if "localhost" in link]
    assert len(own) >= 2
    for link in own:
        assert link.startswith(f"{home}/")
        assert page.request.get(link).ok


def test_published_contract_is_openapi_yaml(page: Page, home: str) -> None:
    assert page.request.get(f"{home}/openapi.yaml").body() == CONTRACT.read_bytes()
