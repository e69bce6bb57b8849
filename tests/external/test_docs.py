"""The reference page in a real browser: it shows the contract, asks no other host, and its forms work."""

import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.external.reference import (
    clean_page,
    guides,
    guides_in,
    navigation,
    open_reference,
    operations,
    operations_in,
    require_accessible,
    section,
    send,
)
from tests.external.running import ADMIN, launch_browser, start_dev

RECEIVED_AT_MOST = 1_600_000  # bytes, of all that the page loads
HEAD_AT_MOST = 1_000  # bytes, of an answer without content


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the page."""
    with start_dev(tmp_path_factory.mktemp("service")) as url:
        yield f"{url}/docs"


@pytest.fixture(scope="module")
def home(docs: str) -> str:
    return docs.removesuffix("/docs")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with launch_browser() as chromium:
        yield chromium


@pytest.fixture
def page(chromium: Browser, docs: str, home: str) -> Iterator[Page]:
    with clean_page(chromium, home) as page:
        open_reference(page, docs)
        yield page


@pytest.fixture
def telephone(chromium: Browser, docs: str, home: str) -> Iterator[Page]:
    with clean_page(chromium, home, narrow=True) as page:
        open_reference(page, docs)
        yield page


def test_navigation_names_every_guide_and_every_operation(page: Page) -> None:
    assert guides_in(page) == guides()
    assert operations_in(page) == operations()


def test_navigation_stays_in_sight_when_the_page_is_scrolled(page: Page) -> None:
    """By a wheel, as people do: whether it follows a jump is left to chance."""
    heading = page.get_by_role("heading", name=guides()[-1])
    page.mouse.move(700, 400)
    for _ in range(200):
        page.mouse.wheel(0, 300)
        page.wait_for_timeout(50)
        if heading.evaluate("heading => heading.getBoundingClientRect().top") < 0:
            break
    assert page.evaluate("scrollY") > 1000
    expect(navigation(page).get_by_role("button", name="Open Search")).to_be_in_viewport()
    expect(navigation(page).get_by_role("link", name=guides()[-1])).to_be_in_viewport()


def test_navigation_leads_to_a_guide_and_changes_the_address(page: Page, docs: str) -> None:
    navigation(page).get_by_role("link", name="Errors", exact=True).click()
    expect(page.get_by_role("heading", name="Errors", exact=True)).to_be_in_viewport()
    expect(page).to_have_url(f"{docs}#description/errors")


def test_heads_of_a_table_stand_above_their_columns(page: Page) -> None:
    """The first head of this one is empty, and Scalar alone would not draw it."""
    table = page.get_by_role("table").filter(has_text="patients: list, read")
    lefts = "row => [...row.cells].map((cell) => cell.getBoundingClientRect().left)"
    heads = table.locator("thead tr").evaluate(lefts)
    assert heads == sorted(heads)
    assert heads == table.locator("tbody tr").first.evaluate(lefts)


@pytest.mark.parametrize(
    ("anchor", "heading"),
    [
        ("#description/paging-and-search", "Paging and search"),
        ("#tag/appointments/createAppointment", "Book an appointment"),
    ],
)
def test_address_of_a_guide_or_operation_opens_it(
    chromium: Browser, docs: str, home: str, anchor: str, heading: str
) -> None:
    with clean_page(chromium, home) as page:
        page.goto(docs + anchor)
        expect(page.get_by_role("heading", name=heading, exact=True)).to_be_in_viewport(timeout=20_000)


def test_operation_shows_its_cookie_roles_and_audit_action(page: Page, docs: str) -> None:
    page.goto(f"{docs}#tag/patients/createPatient")
    for fact in ("cookie: access_token", "x-roles: admin, staff", "x-audit: patient.create"):
        expect(section(page, "createPatient").get_by_text(fact)).to_be_visible()


def test_search_finds_operations_and_guides_by_keyboard_alone(page: Page, docs: str) -> None:
    for words, anchor in (
        ("Who looked", "#tag/patients/listPatientAccesses"),
        ("Who may do", "#description/who-may-do-what"),
    ):
        page.keyboard.press("Control+k")
        expect(page.get_by_role("combobox", name="Enter search query")).to_be_focused()
        page.keyboard.type(words)
        expect(page.get_by_role("option").first).to_contain_text(words)
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        expect(page).to_have_url(docs + anchor)


def test_tab_key_reaches_the_navigation(page: Page) -> None:
    focused = "document.activeElement.textContent.trim()"
    reached: list[str] = []
    while "Read one's own account" not in reached and len(reached) < 60:
        page.keyboard.press("Tab")
        reached.append(page.evaluate(focused).split("HTTP")[0].strip())
    assert [name for name in reached if name in guides()] == guides()
    assert "Sign in" in reached
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Read one's own account")).to_be_in_viewport()


def test_form_signs_in_and_then_calls_with_the_cookies(page: Page, docs: str) -> None:
    signed_in = send(page, f"{docs}#tag/authentication/login", json.dumps(ADMIN))
    expect(signed_in).to_contain_text("200 OK")
    cookies = page.context.cookies(docs.replace("/docs", "/api/auth/refresh"))
    assert {cookie["name"] for cookie in cookies} == {"access_token", "refresh_token"}
    page.keyboard.press("Escape")
    answered = send(page, f"{docs}#tag/users/getMe")
    expect(answered).to_contain_text("200 OK")
    expect(answered).to_contain_text(ADMIN["email"])


def test_form_never_asks_for_the_value_of_a_cookie(page: Page) -> None:
    """They are HttpOnly: a value that is typed in would go nowhere."""
    for name in ("Auth", "Authentication Required", "Authorize"):
        assert page.get_by_role("button", name=name, exact=True).count() == 0
    assert page.get_by_text("Auth Type").count() == 0


def test_telephone_need_not_scroll_sideways(telephone: Page, docs: str) -> None:
    for anchor in ("", "#description/who-may-do-what", "#tag/patients/createPatient"):
        telephone.goto(docs + anchor)
        telephone.wait_for_timeout(500)
        assert telephone.evaluate("document.documentElement.scrollWidth") <= 390


def test_telephone_has_the_navigation_in_a_menu_that_stays_in_sight(telephone: Page, docs: str) -> None:
    telephone.goto(f"{docs}#tag/patients/createPatient")
    expect(telephone.get_by_role("heading", name="Open a chart")).to_be_in_viewport()
    telephone.get_by_role("button", name="Open Menu").click()
    assert operations_in(telephone) == operations()
    navigation(telephone).get_by_role("link", name=guides()[0]).click()
    expect(telephone.get_by_role("heading", name=guides()[0])).to_be_in_viewport()
    expect(navigation(telephone)).to_have_count(0)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_page_is_light_or_dark_as_the_browser_asks(
    chromium: Browser, docs: str, home: str, dark: bool
) -> None:
    with clean_page(chromium, home, dark=dark) as page:
        open_reference(page, docs)
        for element in ("body", "nav.bar"):
            colour = page.locator(element).evaluate("element => getComputedStyle(element).backgroundColor")
            brightness = sum(map(int, re.findall(r"\d+", colour)[:3])) / 3
            assert (brightness < 128) == dark, colour


@pytest.mark.parametrize("narrow", [False, True], ids=["desktop", "telephone"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_serious(chromium: Browser, docs: str, home: str, dark: bool, narrow: bool) -> None:
    """In what is read, in the form of an operation with its answer, and in the menu or the search."""
    with clean_page(chromium, home, dark=dark, narrow=narrow) as page:
        open_reference(page, docs)
        require_accessible(page)
        send(page, f"{docs}#tag/authentication/login")
        require_accessible(page)
        page.keyboard.press("Escape")
        require_accessible(page)
        if narrow:
            page.get_by_role("button", name="Open Menu").click()
        else:
            page.keyboard.press("Control+k")
            page.keyboard.type("audit")
            page.get_by_role("option").first.wait_for()
        require_accessible(page)


def test_axe_notices_a_button_without_a_name(page: Page) -> None:
    page.evaluate("document.querySelector('nav.bar').append(document.createElement('button'))")
    with pytest.raises(AssertionError, match="button-name"):
        require_accessible(page)


def test_page_loads_little_and_keeps_it(page: Page) -> None:
    """By gzip; and when it is loaded again, the browser asks only whether the files have changed."""
    received = (
        "performance.getEntriesByType('resource').map(({ name, transferSize }) => [name, transferSize])"
    )
    first = dict(page.evaluate(received))
    assert sum(first.values()) < RECEIVED_AT_MOST
    page.reload()
    page.get_by_role("heading", name=guides()[0]).wait_for()
    again = dict(page.evaluate(received))
    assert [name for name, size in again.items() if "/docs/" in name and size > HEAD_AT_MOST] == []
    assert len([name for name in again if "/docs/" in name]) == 3


def test_page_says_so_when_the_contract_cannot_be_loaded(chromium: Browser, docs: str) -> None:
    with chromium.new_context() as context:
        page = context.new_page()
        page.route("**/openapi.json", lambda route: route.abort())
        page.goto(docs)
        expect(page.get_by_text("The contract could not be loaded.")).to_be_visible()


@pytest.mark.parametrize(
    "fault",
    [
        "document.body.append(Object.assign(document.createElement('script'), { text: '1' }))",  # inline
        "document.body.setAttribute('onclick', 'alert(1)')",
        "fetch('https://example.com/').catch(() => 0)",
        "void setTimeout(() => { throw new Error('Oh'); })",
        "void setTimeout('1')",  # eval
        "fetch('/docs/no-such-file').then(() => 0)",
    ],
)
def test_fault_of_the_page_is_noticed(chromium: Browser, docs: str, home: str, fault: str) -> None:
    watched = clean_page(chromium, home)
    page = watched.__enter__()
    open_reference(page, docs)
    page.evaluate(fault)
    page.wait_for_timeout(100)
    with pytest.raises(AssertionError):
        watched.__exit__(None, None, None)
