"""Metrics in Prometheus' text format: requests, runs, approvals, the journal's commits.

Rules:
- No label holds a person, a resource or a digest: their number has no bound, and names are facts.
  An app alone is named: there are as many as the team declares.
- How runs of apps ended is read from the journal, whoever ran them, and also before this server.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from threading import Lock
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from handrail.ports import Journal, Record

T = TypeVar("T")
CONTENT_TYPE = CONTENT_TYPE_LATEST
_QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.requests = Counter(
            "handrail_requests_total",
            "Requests that were answered.",
            ("route", "status"),
            registry=registry,
        )
        self.request_s = Histogram(
            "handrail_request_seconds",
            "Time to an answer's first byte.",
            ("route",),
            buckets=_QUICK,
            registry=registry,
        )
        self.errands = Counter(
            "handrail_errands_total",
            "Rehearsals, runs, resumes and undos that ended here, by how.",
            ("kind", "outcome"),
            registry=registry,
        )
        self.working = Gauge(
            "handrail_errands_working",
            "Rehearsals, runs, resumes and undos under way here.",
            registry=registry,
        )
        self.waiting = Gauge(
            "handrail_plans_waiting", "Plans that wait for somebody.", registry=registry
        )
        self.held = Gauge(
            "handrail_statements_held", "Statements that wait for somebody.", registry=registry
        )
        self.unfinished = Gauge(
            "handrail_runs_unfinished",
            "Runs that were cut off, or are under way.",
            registry=registry,
        )
        self.steps = Counter(
            "handrail_steps_total",
            "Stages of runs and rehearsals that ended here, by how.",
            ("stage", "ok"),
            registry=registry,
        )
        self.approvals = Counter(
            "handrail_approvals_total", "Approvals that were recorded here.", registry=registry
        )
        self.hooks = Counter(
            "handrail_hooks_total",
            "Web hooks that were signed, by what they came to first.",
            ("state",),
            registry=registry,
        )
        self._app_runs = Counter(
            "handrail_app_runs_total",
            "Deploys, rollbacks, restarts and scalings of apps that ended, by how.",
            ("app", "outcome"),
            registry=registry,
        )
        self._read: dict[str, int] = {}
        self._reading = Lock()
        self.commit_s = Histogram(
            "handrail_journal_commit_seconds",
            "Time until a record of the journal is durable.",
            buckets=_QUICK,
            registry=registry,
        )

    def text(self) -> bytes:
        """Return everything in the text format."""
        return generate_latest(self._registry)

    def count_apps(self, journal: Journal, apps: Iterable[str]) -> None:
        """Count how runs of these apps ended, as far as the journal has them by now."""
        with self._reading:
            for app in apps:
                chain = f"resource-app/{app}"
                for record in journal.records(chain, self._read.get(chain, 0)):
                    self._read[chain] = record.sequence
                    if record.kind == "run-ended":
                        outcome = str(json.loads(record.body)["outcome"])
                        self._app_runs.labels(app, outcome).inc()

    def count_stage(self, event: Mapping[str, Any]) -> None:
        """Count an errand's event, where it ends a stage."""
        if event["event"] == "end":
            self.steps.labels(str(event["stage"]), "yes" if event["ok"] else "no").inc()


class TimedJournal:
    """A journal whose commits are timed; otherwise the one that it is made of."""

    def __init__(self, journal: Journal, commit_s: Histogram) -> None:
        self._journal = journal
        self._commit_s = commit_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    def append(self, chain: str, kind: str, body: Mapping[str, Any]) -> Record:
        """Write one record; see `ports.Journal`."""
        return self._timed(lambda: self._journal.append(chain, kind, body))

    def write(self, entries: Iterable[Any]) -> tuple[Record, ...]:
        """Write several records; see `ports.Journal`."""
        return self._timed(lambda: self._journal.write(tuple(entries)))

    def _timed(self, write: Callable[[], T]) -> T:
        began = time.perf_counter()
        try:
            return write()
        finally:
            self._commit_s.observe(time.perf_counter() - began)
