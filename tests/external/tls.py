"""A proxy that terminates TLS in front of the service, as the README describes, and tells the service so."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import trustme

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding"}  # of RFC 9110, 7.6.1, those that occur here


@contextmanager
def terminate_tls(service: str) -> Iterator[tuple[str, ssl.SSLContext]]:
    """The https URL of `service`, which must trust the proxy at 127.0.0.1, and a context that knows its
    certificate. Both are thrown away afterwards."""
    authority = trustme.CA()
    own, theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(own)
    authority.configure_trust(theirs)
    handler = type("Handler", (Forwarder,), {"upstream": service.rpartition(":")[2]})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.socket = own.wrap_socket(server.socket, server_side=True)
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"https://localhost:{server.server_port}", theirs
        finally:
            server.shutdown()
            thread.join()


class Forwarder(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upstream: str

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        connection = HTTPConnection("127.0.0.1", int(self.upstream), timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-For": self.client_address[0]}
        for name, value in [*self.headers.items(), *forwarded.items()]:
            if name.lower() not in HOP_BY_HOP:
                connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        connection.close()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward  # http.server's names

    def log_message(self, format: str, *args: object) -> None:
        pass
