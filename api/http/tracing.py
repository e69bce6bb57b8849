"""OpenTelemetry, where the extra `otel` is installed: one trace from a request to its statements.

Spans have no values: neither path nor query of a request, no parameter of a statement, and of an exception
not even its message, because PostgreSQL's quote values.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from importlib.metadata import version

from litestar import Litestar
from litestar.types import ASGIApp, Message, Receive, Send
from opentelemetry.instrumentation.asyncpg import AsyncPGInstrumentor
from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, Status, StatusCode

from api.http.headers import HttpScope, header_value
from api.http.observation import operation_of
from api.http.proxies import TrustedProxies

FLUSH_SECONDS = 2.0  # that the end of the service waits for the collector
PROPAGATED = ("traceparent", "tracestate")


class TracingMiddleware:
    """Around everything, also around what the router refuses."""

    def __init__(self, app: ASGIApp, provider: TracerProvider, proxies: TrustedProxies) -> None:
        self.app = app
        self.tracer = provider.get_tracer("medisecure", version("medisecure"))
        self.proxies = proxies

    async def __call__(self, scope: HttpScope, receive: Receive, send: Send) -> None:
        carrier = {}
        if self.proxies.is_peer_trusted(scope):
            carrier = {name: header_value(scope, name.encode()) or "" for name in PROPAGATED}
        status = 0

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        context = extract(carrier)
        with self.tracer.start_as_current_span("request", context=context, kind=SpanKind.SERVER) as span:
            try:
                await self.app(scope, receive, send_noting)
            finally:
                span.update_name(operation_of(scope, status))
                span.set_attribute("http.request.method", scope["method"])
                span.set_attribute("http.response.status_code", status)
                span.set_attribute("medisecure.request_id", str(scope["state"].get("request_id")))
                if status >= 500:
                    span.set_status(StatusCode.ERROR)


class WithoutValues(SpanExporter):
    """Passes on what belongs to a request, without the messages of exceptions."""

    def __init__(self, exporter: SpanExporter) -> None:
        self.exporter = exporter
        self.shutdown = exporter.shutdown  # type: ignore[method-assign]  # nothing is added

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        of_requests = [span for span in spans if span.parent or span.kind is SpanKind.SERVER]
        return self.exporter.export([without_values(span) for span in of_requests])


def without_values(span: ReadableSpan) -> ReadableSpan:
    return ReadableSpan(
        span.name,
        span.context,
        span.parent,
        span.resource,
        span.attributes,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def trace(app: Litestar, proxies: TrustedProxies, exporter: SpanExporter) -> Callable[[], None]:
    """Trace what `app` answers, and every statement of this process. Returns what ends that."""
    name = os.environ.get("OTEL_SERVICE_NAME", "medisecure")
    resource = Resource.create({"service.name": name})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)  # which would wait once more
    provider.add_span_processor(BatchSpanProcessor(WithoutValues(exporter)))
    statements = AsyncPGInstrumentor()  # type: ignore[no-untyped-call]  # the library's
    statements.instrument(tracer_provider=provider)
    app.asgi_handler = TracingMiddleware(app.asgi_handler, provider, proxies)

    async def flush() -> None:
        """The library's own timeout does nothing yet, so that a collector that does not answer would hold up
        the end. What has not gone by then is lost."""
        flushing = threading.Thread(target=provider.force_flush, daemon=True)
        flushing.start()
        await asyncio.to_thread(flushing.join, FLUSH_SECONDS)

    app.on_shutdown.append(flush)

    def end() -> None:
        statements.uninstrument()
        provider.shutdown()

    return end


def trace_to_collector(app: Litestar, trusted_proxies: Sequence[str]) -> None:
    """To the collector that the environment names, as OpenTelemetry's own documentation has it."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # takes long to load

    trace(app, TrustedProxies(trusted_proxies), OTLPSpanExporter())
