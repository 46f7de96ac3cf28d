"""Traces by OpenTelemetry, where `OTEL_EXPORTER_OTLP_ENDPOINT` says where they go.

Rules:
- Without that setting nothing of OpenTelemetry is imported.
- A span has names of routes and stages, ids of requests, numbers of runs; never a secret.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_tracing: Any = None
# By errand: when it began, and when each of its stages did, in nanoseconds.
_began: dict[str, dict[str, int]] = {}


def begin(environment: Mapping[str, str]) -> bool:
    """Begin to trace where that is set; return whether it is."""
    global _tracing  # noqa: PLW0603  one process has one exporter
    if not environment.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return False
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415  only here
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415  the same
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415  the same
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415  the same

    provider = TracerProvider(resource=Resource.create({"service.name": "handrail"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracing = provider
    return True


def end() -> None:
    """Send what is left."""
    if _tracing is not None:
        _tracing.shutdown()


@contextmanager
def span(name: str, **facts: object) -> Iterator[None]:
    """Trace what is done inside of the `with`."""
    if _tracing is None:
        yield
        return
    tracer = _tracing.get_tracer("handrail")
    attributes = {f"handrail.{key}": str(value) for key, value in facts.items()}
    with tracer.start_as_current_span(name, attributes=attributes):
        yield


def hear(errand: str, kind: str, run: int | None, event: Mapping[str, Any]) -> None:
    """Trace an errand by what it says: itself, and each stage of it, once that has ended."""
    if _tracing is None:
        return
    now, name = time.time_ns(), str(event["event"])
    began = _began.setdefault(errand, {kind: now})
    if name == "begin":
        began[str(event["stage"])] = now
    elif name == "end":
        stage = str(event["stage"])
        _write(stage, began.pop(stage, now), errand=errand, run=run or "", ok=event["ok"])
    elif name == "ended":
        _write(kind, began[kind], errand=errand, run=run or "", exit_code=event["exit_code"])
        del _began[errand]


def _write(name: str, began_ns: int, **facts: object) -> None:
    tracer = _tracing.get_tracer("handrail")
    attributes = {f"handrail.{key}": str(value) for key, value in facts.items()}
    tracer.start_span(name, start_time=began_ns, attributes=attributes).end()
