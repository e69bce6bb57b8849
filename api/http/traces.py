"""Whether there are traces (api/http/tracing.py): if a collector is named, and what makes them is there."""

import logging
from collections.abc import Mapping, Sequence

from litestar import Litestar

# OpenTelemetry's own; either turns traces on.
COLLECTOR_VARIABLES = {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"}
log = logging.getLogger("medisecure.start")


def trace_if_wanted(app: Litestar, trusted_proxies: Sequence[str], environment: Mapping[str, str]) -> None:
    if not any(environment.get(name) for name in COLLECTOR_VARIABLES):
        return
    try:
        from api.http.tracing import trace_to_collector  # what it loads comes with the extra `otel` only
    except ModuleNotFoundError:
        log.warning("There are no traces, because the extra `otel` is not installed")
    else:
        trace_to_collector(app, trusted_proxies)
