"""A browser's EventSource through HAProxy and nginx with the settings of deploy/, by TLS and HTTP/2."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import trustme
from playwright.sync_api import Browser, Page

from tests.external.deployed import deployed_haproxy, deployed_nginx, reload
from tests.external.running import STAFF, access_cookie, free_port, launch_browser, start_production

PROXIES = {"haproxy": deployed_haproxy, "nginx": deployed_nginx}
READ_TIMEOUTS = {
    "haproxy": ("timeout client 60s", "timeout server 60s"),
    "nginx": ("proxy_read_timeout 60s",),
}
LONGER, SHORTER = 20, 8  # than the 15 s between two signs of life of a stream
IDLE_SECONDS = LONGER + 5
SIGN_IN = """async (body) => {
  const headers = { 'Content-Type': 'application/json' };
  const answer = await fetch('/api/auth/login', { method: 'POST', headers, body });
  return [answer.status, performance.getEntriesByType('resource').at(-1).nextHopProtocol];
}"""
LISTEN = """() => {
  [window.told, window.opened] = [[], 0];
  const source = new EventSource('/api/changes', { withCredentials: true });
  source.onmessage = ({ data }) => told.push(JSON.parse(data).id);
  source.onopen = () => { opened += 1; };
}"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Whose staff has signed in."""
    with (
        start_production(tmp_path_factory.mktemp("service"), TRUSTED_PROXIES="127.0.0.1") as url,
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        client.headers["cookie"] = access_cookie(client.post("/api/auth/login", json=STAFF))
        yield client


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "tls.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(path)
    return path


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with launch_browser() as chromium:
        yield chromium


@contextmanager
def listening(chromium: Browser, port: int) -> Iterator[Page]:
    """A page of the proxy's own origin, which a stream is open in."""
    with chromium.new_context(ignore_https_errors=True, bypass_csp=True) as context:
        page = context.new_page()
        page.goto(f"https://localhost:{port}/health/live")
        assert page.evaluate(SIGN_IN, json.dumps(STAFF)) == [200, "h2"]
        page.evaluate(LISTEN)
        page.wait_for_function("opened")
        yield page


def add_chart(service: httpx.Client) -> str:
    """Beside the proxy. Its id."""
    body = {
        "name": "Pat Patient", "email": f"{uuid4().hex}@clinic.example", "phone": "+15550100",
        "dateOfBirth": "1990-01-01", "gender": "other", "address": "1 Main Street",
    }  # fmt: skip
    return str(service.post("/api/patients", json=body).raise_for_status().json()["id"])


def wait_until_told(page: Page, ids: list[str]) -> None:
    """Of these, each once, and of nothing else."""
    page.wait_for_function("(count) => told.length >= count", arg=len(ids), timeout=10_000)
    assert sorted(page.evaluate("told")) == sorted(ids)


@pytest.mark.parametrize("name", PROXIES)
def test_events_come_one_by_one_and_go_on_after_a_reload_and_a_restart(
    name: str, chromium: Browser, service: httpx.Client, certificate: Path, tmp_path: Path
) -> None:
    """contract: "browsers keep it, and go on from there by themselves"."""
    port, at = free_port(), service.base_url.port
    assert at is not None

    def start() -> Any:
        return PROXIES[name](tmp_path, (at, at), certificate, port=port)

    with ExitStack() as running:
        running.enter_context(start())
        with listening(chromium, port) as page:
            made = []
            for _ in range(3):
                made.append(add_chart(service))
                wait_until_told(page, made)
            assert page.evaluate("opened") == 1
            reload(tmp_path)
            for _ in range(2):
                made.append(add_chart(service))
                wait_until_told(page, made)
            assert page.evaluate("opened") == 1
            running.close()
            made.append(add_chart(service))
            with start():
                wait_until_told(page, made)
                assert page.evaluate("opened") > 1
                made.append(add_chart(service))
                wait_until_told(page, made)


def test_a_silent_stream_outlives_the_read_timeout_of_a_proxy(
    chromium: Browser, service: httpx.Client, certificate: Path, tmp_path: Path
) -> None:
    """contract: "An event without data only brings a newer id". Where the timeout is shorter than the time
    between two of them, the proxy cuts it, and the browser connects again."""
    at = service.base_url.port
    assert at is not None
    with ExitStack() as stack:
        pages = {}
        for name, start in PROXIES.items():
            for seconds in (LONGER, SHORTER):
                folder = tmp_path / f"{name}-{seconds}"
                folder.mkdir()
                others = {line: line.replace("60s", f"{seconds}s") for line in READ_TIMEOUTS[name]}
                port = stack.enter_context(start(folder, (at, at), certificate, others=others))
                pages[name, seconds] = stack.enter_context(listening(chromium, port))
        next(iter(pages.values())).wait_for_timeout(IDLE_SECONDS * 1000)
        made = [add_chart(service)]
        for page in pages.values():
            wait_until_told(page, made)
        opened = {which: page.evaluate("opened") for which, page in pages.items()}
    assert all((times == 1) == (seconds == LONGER) for (_, seconds), times in opened.items()), opened
