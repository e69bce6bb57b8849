"""`serve` sends its traces to the collector that OpenTelemetry's variables name."""

import logging
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from api.app import create_app
from api.http.traces import trace_if_wanted
from tests.support.command import settings_of
from tests.support.running import serving, wait_until
from tests.support.service import Backend


@contextmanager
def collector() -> Iterator[tuple[str, set[str]]]:
    """Its URL, and the names of the spans that it was sent."""
    names: set[str] = set()

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
            for resource in sent.resource_spans:
                names.update(span.name for scope in resource.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", names
        server.shutdown()


@pytest.mark.slow
def test_serve_sends_traces_to_the_collector_of_its_environment(tmp_path: Path, servers: Backend) -> None:
    with collector() as (url, names):
        settings = settings_of(servers.copy(), OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_BSP_SCHEDULE_DELAY="100")
        with serving(tmp_path, **settings) as running:
            running.wait_until_ready()
            httpx.get(f"{running.url}/health/live")
            wait_until(lambda: {"checkLiveness", "checkReadiness", "SELECT"} <= names, "the spans")


@pytest.mark.slow
def test_a_collector_that_does_not_answer_does_not_hold_up_the_end(tmp_path: Path, servers: Backend) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        tracing = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_TIMEOUT": "3600"}
        with serving(tmp_path, **settings_of(servers.copy(), **tracing)) as running:
            running.wait_until_ready()
            assert running.stop(signal.SIGTERM) in (0, -signal.SIGTERM)


def test_without_the_extra_the_service_says_that_there_are_no_traces(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "api.http.tracing", None)
    settings = Backend("postgresql://unused/x", "redis://unused").settings()
    with caplog.at_level(logging.WARNING):
        trace_if_wanted(create_app(settings), (), {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://unused"})
        assert "the extra `otel` is not installed" in caplog.text
        caplog.clear()
        trace_if_wanted(create_app(settings), (), {"OTEL_EXPORTER_OTLP_ENDPOINT": ""})  # not set
    assert caplog.text == ""
