"""HAProxy and nginx with the settings of deploy/: of what the service believes a trusted proxy, they pass on
nothing that a caller has written."""

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import UUID

import httpx
import pytest
import trustme

from tests.external.deployed import deployed_haproxy, deployed_nginx
from tests.external.running import STARTUP_SECONDS

ADDRESS = "198.51.100.7"
FORGED = {
    "x-forwarded-for": ADDRESS,
    "x-forwarded-proto": "http",
    "x-request-id": str(UUID(int=7)),
    "forwarded": f"for={ADDRESS}",
    "traceparent": f"00-{7:032x}-{7:016x}-01",
    "tracestate": "forged=7",
}
PROXIES = {"haproxy": deployed_haproxy, "nginx": deployed_nginx}


@contextmanager
def service() -> Iterator[tuple[int, list[list[tuple[str, str]]]]]:
    """The port of what takes the place of both instances, and the headers of the requests for `/asked`."""
    asked: list[list[tuple[str, str]]] = []

    class Service(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/asked":
                asked.append([(name.lower(), value) for name, value in self.headers.items()])
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], asked
        server.shutdown()


@pytest.mark.parametrize("name", PROXIES)
def test_nothing_that_a_caller_forges_reaches_the_service(name: str, tmp_path: Path) -> None:
    authority, certificate = trustme.CA(), tmp_path / "certificate.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with service() as (port, asked), PROXIES[name](tmp_path, (port, port), certificate) as proxy:
        url, deadline = f"https://localhost:{proxy}/asked", time.monotonic() + STARTUP_SECONDS
        with httpx.Client(verify=context, trust_env=False, headers=FORGED) as client:
            while client.get(url).status_code != 200:  # HAProxy has not asked the instances yet
                assert time.monotonic() < deadline
                time.sleep(0.1)
    [headers] = asked
    assert [pair for pair in headers if pair in FORGED.items()] == []
    ours = dict(headers)
    assert (ours["x-forwarded-for"], ours["x-forwarded-proto"]) == ("127.0.0.1", "https")
    assert UUID(ours["x-request-id"])
    assert len(ours) == len(headers), "a header came twice"
