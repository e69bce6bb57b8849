"""One trace from a request to its statements, without values."""

from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from api.http.proxies import TrustedProxies
from api.http.tracing import trace
from tests.support.factories import World, chart
from tests.support.running import wait_until
from tests.support.service import Backend, Service

SECRET = "Quatermass"
TRACE, PARENT = uuid4().hex, uuid4().hex[:16]
TRACEPARENT = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture(scope="module")
def service(backend: Backend, exporter: InMemorySpanExporter) -> Iterator[Service]:
    with Service(backend, backend.settings(trusted_proxies=("127.0.0.1", "::1"))) as running:
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")  # milliseconds
            end = trace(running.app, TrustedProxies(["127.0.0.1", "::1"]), exporter)
        yield running
        end()


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> InMemorySpanExporter:
    exporter.clear()
    return exporter


def request_span(exporter: InMemorySpanExporter, name: str) -> ReadableSpan:
    def found() -> list[ReadableSpan]:
        return [span for span in exporter.get_finished_spans() if span.name == name]

    wait_until(found, f"the span of {name}")
    return found()[0]


def test_a_trace_goes_from_the_request_to_its_statements(world: World, spans: InMemorySpanExporter) -> None:
    answer = world.staff.get(f"/api/patients?search={SECRET}")
    assert answer.status_code == 200
    request = request_span(spans, "listPatients")
    assert request.kind is SpanKind.SERVER
    assert request.attributes
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["medisecure.request_id"] == answer.headers["x-request-id"]
    mine = [span for span in spans.get_finished_spans() if span.context.trace_id == request.context.trace_id]
    statements = [span for span in mine if span.kind is SpanKind.CLIENT]
    assert any("FROM patients" in str(dict(span.attributes or {})) for span in statements)


def test_a_trace_has_no_values_of_the_request(
    world: World, backend: Backend, spans: InMemorySpanExporter
) -> None:
    """Not even of one that ends in 500 with a message of PostgreSQL."""
    backend.sql("ALTER TABLE patients ADD CONSTRAINT broken CHECK (false) NOT VALID")
    try:
        assert world.staff.post("/api/patients", chart(name=SECRET)).status_code == 500
    finally:
        backend.sql("ALTER TABLE patients DROP CONSTRAINT broken")
    world.staff.get(f"/api/patients?search={SECRET}")
    request_span(spans, "listPatients")
    assert request_span(spans, "createPatient").status.status_code is StatusCode.ERROR
    told = "".join(span.to_json() for span in spans.get_finished_spans())
    assert SECRET.lower() not in told.lower()
    assert "Failing row" not in told


def test_background_work_makes_no_traces(spans: InMemorySpanExporter, service: Service) -> None:
    httpx.get(f"{service.url}/health/ready")
    request_span(spans, "checkReadiness")
    assert all(span.parent or span.kind is SpanKind.SERVER for span in spans.get_finished_spans())


def test_the_request_of_an_answer_that_is_a_failure_is_marked(
    service: Service, spans: InMemorySpanExporter
) -> None:
    service.server.lifespan.state["draining"] = True
    try:
        assert httpx.get(f"{service.url}/health/ready").status_code == 503
    finally:
        del service.server.lifespan.state["draining"]
    assert request_span(spans, "checkReadiness").status.status_code is StatusCode.ERROR


def test_what_no_operation_answers_is_traced_too(service: Service, spans: InMemorySpanExporter) -> None:
    httpx.get(f"{service.url}/api/{SECRET}")
    assert request_span(spans, "unknown_path").status.status_code is StatusCode.UNSET


def test_the_trace_of_a_trusted_proxy_goes_on(service: Service, spans: InMemorySpanExporter) -> None:
    httpx.get(f"{service.url}/health/live", headers=TRACEPARENT)
    assert f"{request_span(spans, 'checkLiveness').context.trace_id:032x}" == TRACE
