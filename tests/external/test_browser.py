"""A frontend in a real browser: a page of another origin, the generated axios client, real cookies."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import frontend
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, Route
from running import ADMIN, browser, free_port, service, web_server

PASSWORD = ADMIN["password"]
STAFF, PATIENT = "staff@example.com", "patient@example.com"
PAULA = "1a2b3c4d-5e6f-4a1b-8c2d-5d9e4f304a05"
DOCTOR = "5e2d9a44-3c1b-4b7e-8f5d-2a6b1c0d4a02"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
LISTED = (5173, 3000)  # of the two origins that the service lists unless told otherwise
FOREIGN = 5999


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with service(tmp_path_factory.mktemp("service"), free_port(8000)) as url:
        yield url


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, url: str) -> Path:
    """The built frontend."""
    folder = frontend.generated(tmp_path_factory.mktemp("frontend"), url)
    frontend.bundle(folder)
    return folder


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as chromium:
        yield chromium


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

    def cookies_sent_to(self, path: str, method: str = "POST") -> set[str]:
        sent = self.sent_to(path, method)[-1].all_headers().get("cookie", "")
        return {cookie.split("=")[0] for cookie in sent.split("; ") if cookie}


@pytest.fixture
def tab(chromium: Browser, url: str, files: Path) -> Iterator[Tab]:
    """The frontend at an origin that the service lists."""
    with web_server(files, free_port(*LISTED)) as port, chromium.new_context() as context:
        assert port in LISTED, "both ports of the default CORS_ORIGINS are taken"
        yield opened(context, f"http://localhost:{port}", url)


def opened(context: BrowserContext, origin: str, service: str) -> Tab:
    tab = Tab(context.new_page())
    tab.page.on("request", lambda request: tab.sent.append(request) if service in request.url else None)
    tab.page.goto(f"{origin}/index.html")
    tab.page.wait_for_function("window.app")
    return tab


def booking(date: str) -> dict[str, str]:
    return {"patientId": PAULA, "doctorId": DOCTOR, "date": date, "reason": "Check-up"}


def test_script_does_not_see_the_cookies(tab: Tab) -> None:
    assert tab.sign_in()["role"] == "staff"
    assert tab.page.evaluate("document.cookie") == ""
    cookies = tab.cookies()
    assert {name: cookie["path"] for name, cookie in cookies.items()} == {
        "access_token": "/",
        "refresh_token": "/api/auth/refresh",
    }
    for cookie in cookies.values():
        assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (True, True, "Strict")


def test_each_cookie_goes_to_its_path(tab: Tab) -> None:
    tab.sign_in()
    assert tab.cookies_sent_to("/api/auth/login") == set()
    tab.run("patients('')")
    assert tab.cookies_sent_to("/api/patients", "GET") == {"access_token"}
    tab.context.clear_cookies(name="access_token")
    tab.run("patients('')")
    assert tab.cookies_sent_to("/api/auth/refresh") == {"refresh_token"}
    assert tab.cookies_sent_to("/api/patients", "GET") == {"access_token"}
    tab.run("signOut()")
    assert tab.cookies_sent_to("/api/auth/logout") == {"access_token"}


def test_list_and_create(tab: Tab) -> None:
    tab.sign_in()
    assert tab.run("headline()") == "1 registrations to link"
    found = tab.run("patients('PAULA')")
    assert ([patient["name"] for patient in found["patients"]], found["total"]) == (["Paula Patient"], 1)
    made = tab.run("book(body)", body=booking("2043-01-05T09:00:00+01:00"))
    assert made["date"] == "2043-01-05T08:00:00Z"
    assert tab.run("appointment(id)", id=made["id"]) == made


def test_errors_are_readable(tab: Tab) -> None:
    """Status, detail, Retry-After and request id; without CORS on errors, axios says "Network Error"."""
    tab.sign_in(PATIENT)
    limit = tab.failure("patients('', 0)")
    assert (limit["status"], limit["detail"]) == (400, "limit: must be an integer from 1 to 100")
    unknown = tab.failure("appointment(id)", id=UNKNOWN)
    assert (unknown["status"], unknown["detail"]) == (404, "Appointment not found")
    tab.sign_in(ADMIN["email"])
    forbidden = tab.failure("book(body)", body=booking("2043-01-06T09:00:00Z"))
    assert (forbidden["status"], forbidden["detail"]) == (403, "Only doctor, staff and patient may do this")
    assert len({failure["requestId"] for failure in (limit, unknown, forbidden)}) == 3
    assert len(forbidden["requestId"]) == 36


def test_a_locked_email_says_when_to_come_back(tab: Tab) -> None:
    wrong = "signIn('nobody@example.com', 'wrong one')"
    for _ in range(5):
        failed = tab.failure(wrong)
        assert (failed["status"], failed["detail"]) == (401, "Invalid email or password")
    locked = tab.failure(wrong)
    assert locked["status"] == 429
    assert locked["detail"] == "Too many failed attempts. Please try again in 15 minute(s)."
    assert 890 < locked["retryAfter"] <= 900


def test_a_wrong_password_is_no_reason_to_refresh(tab: Tab) -> None:
    """The guide's code passes the login's own error on."""
    failed = tab.failure("signIn('doctor@example.com', 'wrong one')")
    assert failed["detail"] == "Invalid email or password"
    assert tab.sent_to("/api/auth/refresh") == []


def test_a_lapsed_access_cookie_is_renewed_unseen(tab: Tab) -> None:
    """By the guide's code: calls that find out meanwhile share one refresh, and are repeated, a POST with its
    body."""
    tab.sign_in()
    before = tab.cookies()["refresh_token"]
    tab.context.clear_cookies(name="access_token")
    tab.page.route("**/api/auth/refresh", slowly)
    call = "Promise.all([app.patients('paula'), app.whoAmI(), app.book(body)])"
    found, email, booked = tab.page.evaluate(f"body => {call}", booking("2043-01-07T09:00:00Z"))
    assert (found["total"], email, booked["reason"]) == (1, STAFF, "Check-up")
    assert len(tab.sent_to("/api/auth/refresh")) == 1
    after = tab.cookies()["refresh_token"]
    assert after["value"] != before["value"]
    assert after["expires"] == pytest.approx(before["expires"], abs=2)  # seven days from login


def slowly(route: Route) -> None:
    time.sleep(1)
    route.continue_()


def test_signed_out(tab: Tab) -> None:
    """Both cookies are gone, and what a thief kept of them is worthless."""
    tab.sign_in()
    stolen = tab.context.cookies()
    assert tab.run("signOut()") == "Logged out successfully"
    assert tab.cookies() == {}
    assert tab.failure("whoAmI()")["status"] == 401
    tab.context.add_cookies([dict(cookie) for cookie in stolen])
    assert tab.failure("whoAmI()")["status"] == 401
    assert tab.sent_to("/api/auth/refresh")[-1].response().status == 401


FETCH = """async ([url, options]) => {
  try { return (await fetch(url, { credentials: 'include', ...options })).status; }
  catch (error) { return error.name; }
}"""


def test_another_port_of_this_host_neither_writes_nor_reads(tab: Tab, url: str, files: Path) -> None:
    """It is the same site, so the browser sends the cookies along; the service looks at the origin."""
    tab.sign_in()
    total = appointments(tab, url)
    with web_server(files, free_port(FOREIGN)) as port:
        foreign = opened(tab.context, f"http://localhost:{port}", url)

        def fetch(path: str, **options: Any) -> Any:
            return foreign.page.evaluate(FETCH, [url + path, options])

        assert fetch("/api/patients", mode="no-cors") == 0  # sent with the cookies, opaque to the page
        assert foreign.sent_to("/api/patients", "GET")[-1].response().status == 200
        body = json.dumps(booking("2043-01-08T09:00:00Z"))
        assert fetch("/api/appointments", mode="no-cors", method="POST", body=body) == 0
        assert foreign.sent_to("/api/appointments")[-1].response().status == 403

        json_body = {"headers": {"Content-Type": "application/json"}, "body": body}
        assert fetch("/api/appointments", method="POST", **json_body) == "TypeError"
        assert fetch("/api/patients") == "TypeError"
        form = f"<form method=post enctype=text/plain action={url}/api/auth/logout></form>"
        foreign.page.evaluate("form => { document.body.innerHTML = form; document.forms[0].submit(); }", form)
        foreign.page.wait_for_url(f"{url}/api/auth/logout")
        assert json.loads(foreign.page.inner_text("body")) == {"detail": "This origin is not allowed"}
    assert appointments(tab, url) == total
    assert tab.run("whoAmI()") == STAFF


def appointments(tab: Tab, url: str) -> int:
    """How many there are, for the page that may know."""
    read = "async url => (await (await fetch(url, { credentials: 'include' })).json()).total"
    total: int = tab.page.evaluate(read, f"{url}/api/appointments")
    return total


def test_another_site_gets_nothing(tab: Tab, url: str, files: Path) -> None:
    """127.0.0.1 is not localhost: no cookies go with a request from there, and no answer gets there."""
    tab.sign_in()
    with web_server(files) as port:
        foreign = opened(tab.context, f"http://127.0.0.1:{port}", url)
        for options in ({}, {"mode": "no-cors"}, {"mode": "no-cors", "method": "POST", "body": "{}"}):
            for path in ("/api/patients", "/api/auth/logout", "/openapi.json"):
                assert foreign.page.evaluate(FETCH, [url + path, options]) == "TypeError"
        foreign.page.evaluate("url => { location.href = url; }", f"{url}/api/users/me")
        foreign.page.wait_for_url(f"{url}/api/users/me")
        assert json.loads(foreign.page.inner_text("body")) == {"detail": "Not authenticated"}
        assert foreign.cookies_sent_to("/api/users/me", "GET") == set()
    assert tab.run("whoAmI()") == STAFF
