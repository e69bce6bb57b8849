"""The reference page in a browser: what is drawn, what is wrong with it, and how it is used."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import yaml
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, ViewportSize

from tests.external.running import CONTRACT, NODE_MODULES

AXE = NODE_MODULES / "axe-core/axe.min.js"
SEVERE = ("serious", "critical")
# What axe finds in Scalar itself, and api/reference/reference.js cannot complete: rule and reason.
TOLERATED = {
    "aria-valid-attr-value": "the copy button of an answer names a part of the dialog that is not drawn yet",
}
RUN_AXE = """async () => (await axe.run(document, { resultTypes: ['violations'] })).violations.map(
    ({ id, impact, nodes }) => ({ id, impact, elements: nodes.map((node) => node.html) }))"""


@contextmanager
def clean_page(chromium: Browser, home: str, *, dark: bool = False, narrow: bool = False) -> Iterator[Page]:
    """A page. AssertionError at the end if it has printed a warning or an error, broken its CSP, or asked for
    anything outside `home`."""
    requests: list[str] = []
    complaints: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type != "info":  # Scalar tells its version
            complaints.append(f"{message.type}: {message.text}")

    size: ViewportSize = {"width": 390, "height": 844} if narrow else {"width": 1280, "height": 800}
    with chromium.new_context(viewport=size, color_scheme="dark" if dark else "light") as context:
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", note)
        yield page
    assert not complaints, complaints
    foreign = [request for request in requests if not request.startswith((f"{home}/", "data:"))]
    assert not foreign, foreign


def open_reference(page: Page, address: str) -> None:
    """Load the page and wait until the navigation and the guides are drawn."""
    page.goto(address)
    page.locator('a[href="#tag/contract/getDocs"]').first.wait_for(state="attached")
    page.get_by_role("heading", name=guides()[-1]).wait_for(state="attached")


def navigation(page: Page) -> Locator:
    """The list of guides and operations that is on the screen: beside the text, or in the menu."""
    return page.get_by_role("complementary", name="Sidebar for MediSecure API").filter(visible=True)


def operations() -> set[str]:
    """The operations that the contract has."""
    contract = yaml.safe_load(CONTRACT.read_text())
    methods = [method for path in contract["paths"].values() for method in path.values()]
    return {method["operationId"] for method in methods if "operationId" in method}


def guides() -> list[str]:
    """The headings of the contract's description."""
    description: str = yaml.safe_load(CONTRACT.read_text())["info"]["description"]
    return re.findall(r"^## (.+)$", description, re.MULTILINE)


def operations_in(page: Page) -> set[str]:
    """The operations that the navigation names."""
    links = [link.get_attribute("href") or "" for link in navigation(page).get_by_role("link").all()]
    return {link.split("/")[2] for link in links if link.startswith("#tag/") and link.count("/") == 2}


def guides_in(page: Page) -> list[str]:
    """The guides that the navigation names."""
    links = navigation(page).locator('a[href^="#description/"]').all()
    return [link.inner_text().strip() for link in links[1:]]  # the first is of all of them


def section(page: Page, operation: str) -> Locator:
    return page.locator(f'section[id$="/{operation}"]')


def send(page: Page, address: str, body: str | None = None) -> Locator:
    """Open the operation at `address`, send a request from its form, and give back the answered form."""
    page.goto(address)
    section(page, address.rpartition("/")[2]).get_by_role("button", name="Test Request").click()
    form = page.get_by_role("dialog")
    if body is not None:
        form.locator(".cm-content").first.fill(body)
    form.get_by_role("button", name="Send").first.click()
    form.get_by_text("Status:").wait_for()
    return form


def require_accessible(page: Page) -> None:
    """AssertionError if axe finds anything serious or critical that is not tolerated above."""
    # What fades in has the contrast of a moment.
    page.evaluate("document.getAnimations().forEach(one => { try { one.finish() } catch { one.cancel() } })")
    page.evaluate(AXE.read_text())
    found = page.evaluate(RUN_AXE)
    severe = [each for each in found if each["impact"] in SEVERE and each["id"] not in TOLERATED]
    assert not severe, json.dumps(severe, indent=2)
