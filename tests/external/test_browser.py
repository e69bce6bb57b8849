"""A frontend in a real browser: a page of another origin, the generated axios client, real cookies."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from playwright.sync_api import Browser, Route

from tests.external import frontend
from tests.external.running import ADMIN, free_port, launch_browser, serve_files, start_dev, start_production
from tests.external.running import STAFF as STAFF_IN_PRODUCTION
from tests.external.tabs import STAFF, Tab, open_tab

PATIENT = "patient@example.com"
PAULA = "1a2b3c4d-5e6f-4a1b-8c2d-5d9e4f304a05"
DOCTOR = "5e2d9a44-3c1b-4b7e-8f5d-2a6b1c0d4a02"
EMIL = "3ae884d1-bfd3-5dc7-af43-11b59c8029da"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
LISTED_PORTS = (5173, 3000)  # of the two origins that the service lists unless told otherwise
FOREIGN_PORT = 5999


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with start_dev(tmp_path_factory.mktemp("service"), free_port(8000)) as url:
        yield url


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, url: str) -> Path:
    """The built frontend."""
    folder = frontend.generate_client(tmp_path_factory.mktemp("frontend"), url)
    frontend.bundle(folder)
    return folder


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with launch_browser() as chromium:
        yield chromium


@pytest.fixture
def tab(chromium: Browser, url: str, files: Path) -> Iterator[Tab]:
    """The frontend at an origin that the service lists."""
    with serve_files(files, free_port(*LISTED_PORTS)) as port, chromium.new_context() as context:
        assert port in LISTED_PORTS, "both ports of the default CORS_ORIGINS are taken"
        yield open_tab(context, f"http://localhost:{port}", url)


def booking(date: str) -> dict[str, str]:
    return {"patientId": PAULA, "doctorId": DOCTOR, "date": date, "reason": "Check-up"}


def test_scripts_cannot_read_the_session_cookies(tab: Tab) -> None:
    assert tab.sign_in()["role"] == "staff"
    assert tab.page.evaluate("document.cookie") == ""
    cookies = tab.cookies()
    assert {name: cookie["path"] for name, cookie in cookies.items()} == {
        "access_token": "/",
        "refresh_token": "/api/auth/refresh",
    }
    for cookie in cookies.values():
        assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (True, True, "Strict")


def test_browser_sends_each_cookie_to_its_own_path_only(tab: Tab) -> None:
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


def test_dashboard_polled_with_its_etag_is_answered_304(tab: Tab) -> None:
    """With the code sample of the operation: while nothing has changed, the page keeps what it has."""
    sample = frontend.code_of_operation("/api/dashboard/stats")
    answers: list[int] = []
    tab.page.on("response", lambda answer: answers.append(answer.status) if "/stats" in answer.url else None)
    tab.sign_in()
    tab.page.evaluate("(code) => { dashboard = Function('api', code + 'return dashboard')(app.api) }", sample)
    first = tab.page.evaluate("dashboard()")
    assert first["scheduledAppointments"] > 0
    assert tab.page.evaluate("dashboard()") == first
    tab.run("book(body)", body=booking("2043-01-06T09:00:00+01:00"))
    after = tab.page.evaluate("dashboard()")
    assert after["scheduledAppointments"] == first["scheduledAppointments"] + 1
    assert tab.page.evaluate("dashboard()") == after
    assert [status for status in answers if status != 204] == [200, 304, 200, 304]


def test_generated_client_lists_patients_and_books_an_appointment(tab: Tab) -> None:
    tab.sign_in()
    assert tab.run("headline()") == "1 registrations to link"
    found = tab.run("patients('PAULA')")
    assert ([patient["name"] for patient in found["patients"]], found["total"]) == (["Paula Patient"], 1)
    made = tab.run("book(body)", body=booking("2043-01-05T09:00:00+01:00"))
    assert made["date"] == "2043-01-05T08:00:00Z"
    assert tab.run("appointment(id)", id=made["id"]) == made


def test_page_of_another_origin_is_told_what_changes_until_it_signs_out(tab: Tab, url: str) -> None:
    """By the code of the guide: an EventSource with credentials."""
    tab.sign_in()
    frontend.listen(tab.page, url)
    for number in (1, 2):
        made = tab.run("book(body)", body=booking(f"2043-01-09T0{number}:00:00Z"))
        tab.page.wait_for_function("(number) => told.length >= number", arg=number)
        assert tab.page.evaluate("told.at(-1)") == {
            "noun": "appointment", "id": made["id"], "act": "create"
        }  # fmt: skip
    tab.run("signOut()")
    tab.page.wait_for_function("window.lost")
    assert tab.page.evaluate("told.length") == 2


def test_patient_books_one_of_the_free_times(tab: Tab) -> None:
    """As a patient would: they see the times of a day, press one, and are told where somebody was quicker."""
    monday, times = "2043-01-05", ["09:00", "09:30", "10:00"]
    tab.sign_in()
    hours = [{"weekday": 1, "from": "09:00", "to": "10:30"}]
    assert tab.run("setHours(id, hours)", id=EMIL, hours=hours) == 0
    tab.sign_in(PATIENT)
    first = tab.run("firstFree(day, 'Paediatrics')", day=f"{monday}T00:00:00Z")
    assert first == f"Dr. Émile Durand: {monday}T09:00:00Z"
    tab.run("showFreeTimes(id, day)", id=EMIL, day=monday)
    assert tab.page.get_by_role("button").all_inner_texts() == times

    def press(time: str) -> str | None:
        tab.page.evaluate("delete document.body.dataset.said")
        tab.page.get_by_role("button", name=time).click()
        tab.page.wait_for_selector("body[data-said]")
        return tab.page.get_attribute("body", "data-said")

    assert press("09:30") == f"Booked: {monday}T09:30:00Z"
    assert tab.page.get_by_role("button").all_inner_texts() == ["09:00", "10:00"]
    tab.run("book(body)", body={**booking(f"{monday}T10:00:00Z"), "doctorId": EMIL})
    taken = "date: the doctor has another appointment at that time"
    assert press("10:00") == f"{taken}; the first free time from then on is 2043-01-12T09:00:00Z"
    assert tab.page.get_by_role("button").all_inner_texts() == ["09:00"]


def test_page_reads_status_detail_and_request_id_of_an_error(tab: Tab) -> None:
    """Without CORS headers on errors, axios would only say "Network Error"."""
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


def test_page_reads_how_long_a_locked_email_has_to_wait(tab: Tab) -> None:
    wrong = "signIn('nobody@example.com', 'wrong one')"
    for _ in range(5):
        failed = tab.failure(wrong)
        assert (failed["status"], failed["detail"]) == (401, "Invalid email or password")
    locked = tab.failure(wrong)
    assert locked["status"] == 429
    assert locked["detail"] == "Too many failed attempts. Please try again in 15 minute(s)."
    assert 890 < locked["retryAfter"] <= 900


def test_wrong_password_does_not_trigger_a_refresh(tab: Tab) -> None:
    """The guide's code hands the error of the login on to the page."""
    failed = tab.failure("signIn('doctor@example.com', 'wrong one')")
    assert failed["detail"] == "Invalid email or password"
    assert tab.sent_to("/api/auth/refresh") == []


def test_guide_code_renews_a_lapsed_access_cookie_once_for_all_calls(tab: Tab) -> None:
    """Calls that get a 401 at the same time share one refresh and are repeated, a POST with its body."""
    tab.sign_in()
    before = tab.cookies()["refresh_token"]
    tab.context.clear_cookies(name="access_token")
    tab.page.route("**/api/auth/refresh", delay)
    call = "Promise.all([app.patients('paula'), app.whoAmI(), app.book(body)])"
    found, email, booked = tab.page.evaluate(f"body => {call}", booking("2043-01-07T09:00:00Z"))
    assert (found["total"], email, booked["reason"]) == (1, STAFF, "Check-up")
    assert len(tab.sent_to("/api/auth/refresh")) == 1
    after = tab.cookies()["refresh_token"]
    assert after["value"] != before["value"]
    assert after["expires"] == pytest.approx(before["expires"], abs=2)  # seven days from login


def delay(route: Route) -> None:
    time.sleep(1)
    route.continue_()


def test_sign_out_clears_the_cookies_and_ends_the_session(tab: Tab) -> None:
    """Both cookies are gone, and copies of them no longer work."""
    tab.sign_in()
    stolen = tab.context.cookies()
    assert tab.run("signOut()") == "Logged out successfully"
    assert tab.cookies() == {}
    assert tab.failure("whoAmI()")["status"] == 401
    tab.context.add_cookies(cast(Any, stolen))  # Playwright types what it gives and takes differently
    assert tab.failure("whoAmI()")["status"] == 401
    assert tab.last_status("/api/auth/refresh") == 401


FETCH = """async ([url, options]) => {
  try { return (await fetch(url, { credentials: 'include', ...options })).status; }
  catch (error) { return error.name; }
}"""


def test_page_on_an_unlisted_port_neither_reads_nor_writes(
    chromium: Browser, files: Path, tmp_path: Path
) -> None:
    """It is the same site, so the browser sends the cookies; the service refuses by the origin. In
    production, because `medisecure dev` accepts every port of localhost."""
    with (
        start_production(tmp_path) as url,
        serve_files(files, free_port(*LISTED_PORTS)) as listed,
        serve_files(files, free_port(FOREIGN_PORT)) as other,
        chromium.new_context() as context,
    ):
        home = open_tab(context, f"http://localhost:{listed}", url)
        foreign = open_tab(context, f"http://localhost:{other}", url)

        def fetch(tab: Tab, path: str, **options: Any) -> Any:
            return tab.page.evaluate(FETCH, [url + path, options])

        def posted(values: object) -> dict[str, Any]:
            headers = {"Content-Type": "application/json"}
            return {"method": "POST", "headers": headers, "body": json.dumps(values)}

        chart = {"name": "Forged", "email": "forged@example.com", "phone": "1", "dateOfBirth": "1980-01-01",
                 "gender": "other", "address": "Nowhere 1"}  # fmt: skip
        assert fetch(home, "/api/auth/login", **posted(STAFF_IN_PRODUCTION)) == 200
        assert fetch(foreign, "/api/patients", mode="no-cors") == 0  # sent with cookies, opaque to the page
        assert foreign.last_status("/api/patients", "GET") == 200
        body = json.dumps(chart)
        assert fetch(foreign, "/api/patients", mode="no-cors", method="POST", body=body) == 0
        assert foreign.last_status("/api/patients") == 403
        assert fetch(foreign, "/api/patients", **posted(chart)) == "TypeError"
        assert fetch(foreign, "/api/patients") == "TypeError"
        form = f"<form method=post enctype=text/plain action={url}/api/auth/logout></form>"
        submit = "form => { document.body.innerHTML = form; document.forms[0].submit(); }"
        foreign.page.evaluate(submit, form)
        foreign.page.wait_for_url(f"{url}/api/auth/logout")
        assert json.loads(foreign.page.inner_text("body")) == {"detail": "This origin is not allowed"}
        read = "async url => (await (await fetch(url, { credentials: 'include' })).json()).total"
        assert home.page.evaluate(read, f"{url}/api/patients") == 0
        assert fetch(home, "/api/patients", **posted(chart)) == 201


def test_dev_accepts_pages_from_any_port_of_localhost(tab: Tab, url: str, files: Path) -> None:
    """Of http://localhost, with `medisecure dev`."""
    with serve_files(files, free_port(FOREIGN_PORT)) as port:
        page = open_tab(tab.context, f"http://localhost:{port}", url)
        assert page.sign_in()["role"] == "staff"
        assert page.run("book(body)", body=booking("2043-01-08T09:00:00Z"))["reason"] == "Check-up"


def test_page_reads_the_404_of_an_unknown_path(tab: Tab, url: str) -> None:
    """The preflight is 204. If it were 404, the page would only see a CORS error."""
    for path in ("/api/nothing", "/api/patients/", "/%61pi/patients"):
        options = {"headers": {"X-Anything": "1"}}
        assert tab.page.evaluate(FETCH, [url + path, options]) == 404


def test_page_of_another_site_gets_no_cookies_and_no_answer(tab: Tab, url: str, files: Path) -> None:
    """127.0.0.1 is not localhost: no cookies go with a request from there, and no answer gets there."""
    tab.sign_in()
    with serve_files(files) as port:
        foreign = open_tab(tab.context, f"http://127.0.0.1:{port}", url)
        for options in ({}, {"mode": "no-cors"}, {"mode": "no-cors", "method": "POST", "body": "{}"}):
            for path in ("/api/patients", "/api/auth/logout", "/openapi.json"):
                assert foreign.page.evaluate(FETCH, [url + path, options]) == "TypeError"
        foreign.page.evaluate("url => { location.href = url; }", f"{url}/api/users/me")
        foreign.page.wait_for_url(f"{url}/api/users/me")
        assert json.loads(foreign.page.inner_text("body")) == {"detail": "Not authenticated"}
        assert foreign.cookies_sent_to("/api/users/me", "GET") == set()
    assert tab.run("whoAmI()") == STAFF
