"""What openapi.yaml says under "From a browser": its own code, in a browser, through Vite and nginx."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from playwright.sync_api import Browser, FilePayload, Page

from api.http.addresses import parse_origin
from persistence import embedded
from tests.external import frontend
from tests.external.running import (
    CONTRACT,
    KEY,
    NODE_MODULES,
    free_port,
    launch_browser,
    medisecure,
    node,
    run,
    start_serve,
)

PASSWORD = "correct horse battery"
ADMIN, DOCTOR, STAFF = (f"{name}@clinic.example" for name in ("admin", "doctor", "staff"))
GUIDE_FUNCTIONS = "api, whoIsThere, instant, afterPause, poll, references"
UPSTREAM = re.compile(r"http://(localhost|127\.0\.0\.1):8000")


def code_blocks(language: str) -> list[str]:
    """The code of the section, in its order."""
    guide: str = yaml.safe_load(CONTRACT.read_text())["info"]["description"]
    section = guide.partition("\n## From a browser\n")[2].partition("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


@dataclass
class Clinic:
    url: str
    doctor: str
    chart: str


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    """In production, where only pages of the two default origins, and of the service itself, are allowed."""
    folder = tmp_path_factory.mktemp("clinic")
    with embedded.start(folder / "data", durable=False) as servers:
        environment = {
            "DATABASE_URL": servers.database_url,
            "REDIS_URL": servers.redis_url,
            "SECRET_KEY": KEY,
            "DRAIN_SECONDS": "0",
            "TRUSTED_PROXIES": "127.0.0.1,::1",
        }
        for command in (("migrate",), ("create-admin", ADMIN, "Ada")):
            done = medisecure(environment, *command, stdin=f"{PASSWORD}\n")
            assert done.returncode == 0, done.stderr
        with start_serve(environment, folder / "log") as url:
            yield fill_clinic(url)
    embedded.discard(folder / "data")


def fill_clinic(url: str) -> Clinic:
    def call(path: str, body: Any = None, cookies: str = "") -> httpx.Response:
        method = "POST" if body else "GET"
        answer = httpx.request(
            method, url + path, json=body, headers={"Cookie": cookies} if cookies else {}, trust_env=False
        )
        assert answer.is_success, answer.text
        return answer

    def sign_in(email: str) -> str:
        answer = call("/api/auth/login", {"email": email, "password": PASSWORD})
        return answer.headers.get_list("set-cookie")[0].partition(";")[0]

    admin = sign_in(ADMIN)
    for role, email in (("doctor", DOCTOR), ("staff", STAFF)):
        body = {"name": role, "email": email, "password": PASSWORD, "role": role}
        call("/api/auth/register", body, admin)
    person = {"name": "Paula", "email": "p@example.com", "phone": "1", "address": "Here"}
    chart = call("/api/patients", {**person, "dateOfBirth": "1980-01-01", "gender": "female"}, admin)
    return Clinic(url, call("/api/users/me", cookies=sign_in(DOCTOR)).json()["id"], chart.json()["id"])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with all of the guide's functions in `guide`."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "node_modules").symlink_to(NODE_MODULES)
    functions = [sample for sample in code_blocks("js") if "vite.config" not in sample]
    signing_in = frontend.signing_in_code().replace(frontend.GUIDE_URL, "/")
    code = ["import axios from 'axios';", signing_in, *functions, f"window.guide = {{ {GUIDE_FUNCTIONS} }};"]
    (folder / "page.js").write_text("\n".join(code))
    run(node("esbuild"), "page.js", "--bundle", "--format=esm", "--outfile=app.js", cwd=folder)
    (folder / "index.html").write_text(
        '<!doctype html><title>Guide</title><link rel="icon" href="data:,">'
        '<input id="clock" type="datetime-local"><input id="chosen" type="file" multiple>'
        '<script type="module" src="app.js"></script>'
    )
    return folder


@contextmanager
def start_web_server(command: Sequence[str | Path], folder: Path, port: int) -> Iterator[str]:
    """The origin of a web server, once it answers."""
    path = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ["PATH"]]
    )  # the Node of requirements.txt before any other
    log = folder / f"{port}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | {"PATH": path},
            stdout=output,
            stderr=output,
            process_group=0,
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"http://localhost:{port}/index.html", trust_env=False).raise_for_status()
                break
            except httpx.HTTPError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(log.read_text()) from None
                time.sleep(0.1)
        yield f"http://localhost:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # Node is the child of a script, which passes no signal on
        process.wait(30)


@contextmanager
def start_vite(folder: Path, configuration: str) -> Iterator[str]:
    port = free_port(5999)  # not among the two that are listed
    (folder / "vite.config.js").write_text(configuration)
    command = [str(node("vite")), "--port", str(port), "--strictPort", "--host", "localhost"]
    with start_web_server(command, folder, port) as url:
        yield url


NGINX = """
{user}
daemon off;
error_log stderr;
pid {folder}/nginx.pid;
events {{}}
http {{
  access_log off;
  {paths}
  types {{ text/html html; text/javascript js; }}
  server {{
    listen localhost:{port};
    root {folder};
    {location}
  }}
}}
"""


@contextmanager
def start_nginx(folder: Path, location: str) -> Iterator[str]:
    program = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    if program is None:
        raise RuntimeError("nginx is missing; on Debian `apt-get install nginx-light` brings it")
    port = free_port(5998)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    configuration = NGINX.format(
        user="user root;" if os.geteuid() == 0 else "",
        folder=folder,
        paths=" ".join(f"{kind}_temp_path {folder}/temp;" for kind in kinds),
        port=port,
        location=location,
    )
    file = folder / "nginx.conf"
    file.write_text(configuration)
    with start_web_server([program, "-c", file, "-p", folder, "-e", "stderr"], folder, port) as url:
        yield url


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with launch_browser() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def origin_of_vite(files: Path, clinic: Clinic) -> Iterator[str]:
    [configuration] = [sample for sample in code_blocks("js") if "vite.config" in sample]
    with start_vite(files, UPSTREAM.sub(clinic.url, configuration)) as url:
        yield url


@contextmanager
def open_page(chromium: Browser, url: str, **options: Any) -> Iterator[Page]:
    with chromium.new_context(**options) as context:
        page = context.new_page()
        page.goto(f"{url}/index.html")
        page.wait_for_function("window.guide")
        yield page


@pytest.fixture
def page(chromium: Browser, origin_of_vite: str) -> Iterator[Page]:
    with open_page(chromium, origin_of_vite, timezone_id="Asia/Kolkata") as page:
        yield page


POST = """([path, body]) => guide.api.post(path, body).then(
  (answer) => [answer.status, answer.data],
  (error) => [error.response.status, error.response.data],
)"""


def post(page: Page, path: str, body: Any) -> tuple[int, Any]:
    status, data = page.evaluate(POST, [path, body])
    return status, data


def sign_in(page: Page, email: str) -> int:
    return post(page, "/api/auth/login", {"email": email, "password": PASSWORD})[0]


def test_vite_proxy_of_the_guide_signs_in(page: Page) -> None:
    assert sign_in(page, STAFF) == 200
    assert page.evaluate("guide.whoIsThere().then((me) => me.email)") == STAFF


def test_vite_proxy_of_the_guide_passes_on_what_changes(page: Page, clinic: Clinic) -> None:
    sign_in(page, STAFF)
    require_told(page, clinic, "2042-05-05T09:00:00Z")


def require_told(page: Page, clinic: Clinic, date: str) -> None:
    """An appointment, as soon as it is there."""
    frontend.listen(page)
    body = {"patientId": clinic.chart, "doctorId": clinic.doctor, "reason": "Check-up", "date": date}
    status, made = post(page, "/api/appointments", body)
    assert status == 201
    page.wait_for_function("told.length", timeout=10_000)
    assert page.evaluate("told") == [{"noun": "appointment", "id": made["id"], "act": "create"}]


def test_vite_proxy_that_changes_the_host_is_refused(
    chromium: Browser, files: Path, clinic: Clinic, tmp_path: Path
) -> None:
    shutil.copytree(files, tmp_path / "page", symlinks=True)
    [configuration] = [sample for sample in code_blocks("js") if "vite.config" in sample]
    changed = UPSTREAM.sub(clinic.url, configuration).replace("changeOrigin: false", "changeOrigin: true")
    assert changed.count("changeOrigin: true") == 1
    with start_vite(tmp_path / "page", changed) as url, open_page(chromium, url) as page:
        body = {"email": STAFF, "password": PASSWORD}
        assert post(page, "/api/auth/login", body) == (403, {"detail": "This origin is not allowed"})


def test_nginx_proxy_must_keep_the_host_of_the_page(chromium: Browser, files: Path, clinic: Clinic) -> None:
    [location] = code_blocks("nginx")
    upstream = UPSTREAM.sub(clinic.url.replace("localhost", "127.0.0.1"), location)
    with start_nginx(files, upstream) as url, open_page(chromium, url) as page:
        assert sign_in(page, STAFF) == 200
        assert page.evaluate("guide.whoIsThere().then((me) => me.email)") == STAFF
        require_told(page, clinic, "2042-05-06T09:00:00Z")
    without = upstream.replace("proxy_set_header Host $http_host;", "")
    assert without != upstream
    with start_nginx(files, without) as url, open_page(chromium, url) as page:
        assert sign_in(page, STAFF) == 403


def test_first_visit_is_two_401s_and_no_third_question(page: Page) -> None:
    """Two 401s, and no third request."""
    seen: list[tuple[str, int]] = []
    page.on("response", lambda answer: seen.append((answer.url.partition("/api/")[2], answer.status)))
    assert page.evaluate("guide.whoIsThere()") is None
    assert seen == [("users/me", 401), ("auth/refresh", 401)]
    assert sign_in(page, DOCTOR) == 200
    page.context.clear_cookies(name="access_token")
    assert page.evaluate("guide.whoIsThere().then((me) => me.role)") == "doctor"


def test_datetime_input_becomes_an_instant_with_an_offset(page: Page, clinic: Clinic) -> None:
    sign_in(page, STAFF)
    page.fill("#clock", "2042-05-04T09:30")
    wall = page.evaluate("clock.value")
    body = {"patientId": clinic.chart, "doctorId": clinic.doctor, "reason": "Check-up"}
    assert post(page, "/api/appointments", {**body, "date": wall})[0] == 400
    status, made = post(page, "/api/appointments", {**body, "date": page.evaluate("guide.instant(clock)")})
    assert (status, made["date"]) == (201, "2042-05-04T04:00:00Z")


def test_a_minute_of_typing_and_polling_stays_under_the_limit(page: Page) -> None:
    """At the most expensive pace: a key whenever the pause is over. Only the page's clock is replaced."""
    sign_in(page, STAFF)
    page.clock.install(time=0)
    page.clock.pause_at(1000)
    statuses: list[int] = []
    page.on("response", lambda answer: statuses.append(answer.status))
    page.evaluate(
        """() => {
          const ask = (search) => guide.api.get('/api/patients', { params: { search } });
          window.typed = guide.afterPause(ask);
          window.polling = guide.poll(() => guide.api.get('/api/dashboard/stats'));
        }"""
    )
    for key in range(60_000 // 301):
        page.evaluate("text => typed(text)", f"p{key % 7}")
        page.clock.run_for(301)
    page.evaluate("clearInterval(polling)")
    page.clock.run_for(1000)
    page.wait_for_load_state("networkidle")
    assert 60 < len(statuses) <= 60_000 // 700 + 1 + 60 // 15
    assert set(statuses) == {200}


def test_file_names_become_attachment_references_and_back(page: Page, clinic: Clinic) -> None:
    sign_in(page, DOCTOR)
    names = ["scan:1.pdf", "C:\\x.pdf", "Röntgen 100 %.png"]
    chosen: list[FilePayload] = [{"name": name, "mimeType": "a/b", "buffer": b"x"} for name in names]
    page.set_input_files("#chosen", chosen)
    record = {"patientId": clinic.chart, "diagnosis": "Flu", "prescription": "", "notes": ""}
    for name in names[:2]:
        assert post(page, "/api/records", {**record, "attachments": [name]})[0] == 400
    status, made = post(
        page, "/api/records", {**record, "attachments": page.evaluate("guide.references(chosen)")}
    )
    assert status == 201
    assert page.evaluate("list => list.map(decodeURIComponent)", made["attachments"]) == names


ORIGINS = [
    *("HTTPS://Clinic.Example", "https://clinic.example:443", "http://clinic.example:443"),
    *("http://localhost:80", "http://localhost:", "http://localhost:0443", "http://h:99999", "http://:80"),
    *("https://bücher.example", "https://BÜCHER.example", "https://straße.example", "https://☃.example"),
    *("https://\ufb01n.example", "https://\uff43linic\u3002example", "https://xn--bcher-kva.example"),
    *(
        "https://xn--abc-.example",
        "https://ไทย.example",
        "https://क्\u200dष.example",
        "https://clinic.example.",
    ),
    *("http://my_host:3000", "http://127.1:5173", "http://0x7f000001", "http://0177.1", "http://1.2.3.256"),
    *("http://[0:0::1]:5173", "http://[2001:DB8:0:0:1:0:0:1]", "http://[10:0:0:2:0:0:0:3]"),
    *("http://[1:0:2::]", "http://[::FFFF:127.0.0.1]", "http://[::1.2.3.4]", "http://[::1"),
    *("http://[fe80::1%25eth0]", "https://cl%69nic.example", "https://a..b"),
]


def test_cors_origins_are_normalised_as_chromium_does(page: Page) -> None:
    """What CORS_ORIGINS accepts, Chromium writes in the same way; what Chromium cannot parse is refused."""
    theirs = page.evaluate(
        "list => list.map((text) => { try { return new URL(text).origin; } catch { return null; } })", ORIGINS
    )
    kept = {}
    for text in ORIGINS:
        try:
            kept[text] = parse_origin(text)
        except ValueError:
            continue
    assert len(kept) > len(ORIGINS) / 2
    assert kept == {text: written for text, written in zip(ORIGINS, theirs, strict=True) if text in kept}
