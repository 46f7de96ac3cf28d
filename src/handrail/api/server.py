"""What every request of one server shares: ports, declarations, tokens, errands, counters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from handrail.api import telemetry
from handrail.api.declarations import Declarations
from handrail.api.errands import Errand, Errands
from handrail.api.limits import Limits
from handrail.api.metrics import Metrics
from handrail.core.people import Register
from handrail.core.world import Declared, World


@dataclass(frozen=True)
class Bounds:
    """How much one server takes.

    Attributes:
        per_s: requests a second that a token may make in the long run.
        burst: requests that it may make at once.
        wrong_per_minute: wrong tokens that one address may show.
        body_bytes: the largest body.
        body_s: the longest time that a body may take to arrive.
        head_s: the longest time that a request's first lines may take to arrive.
        at_once: rehearsals and runs that are under way at once.
        hooks_per_minute: pushes to one app that web hooks may tell.
        connections: that are open at once.
    """

    per_s: float = 20.0
    burst: int = 60
    wrong_per_minute: int = 30
    body_bytes: int = 1024 * 1024
    body_s: float = 10.0
    head_s: float = 10.0
    at_once: int = 16
    hooks_per_minute: int = 30
    connections: int = 512


class Server:
    """The state of one server."""

    def __init__(self, world: World, load: Callable[[], Declared], bounds: Bounds) -> None:
        elapsed_s = world.clock.elapsed_s
        self.world = world
        self.bounds = bounds
        self.metrics = Metrics()
        self.register = Register(world)
        self.declarations = Declarations(load, elapsed_s)
        self.errands = Errands(world, bounds.at_once, self._hear)
        self.limits = Limits(bounds.per_s, bounds.burst, elapsed_s)
        self.wrong = Limits(bounds.wrong_per_minute / 60, bounds.wrong_per_minute, elapsed_s)
        # Web hooks have no token: they are counted by where they come from, and by app.
        self.hooks_from = Limits(bounds.per_s, bounds.burst, elapsed_s)
        self.hooks_of = Limits(bounds.hooks_per_minute / 60, bounds.hooks_per_minute, elapsed_s)
        self.is_draining = False

    def _hear(self, errand: Errand, event: Mapping[str, Any]) -> None:
        self.metrics.count_stage(event)
        telemetry.hear(errand.id, errand.kind, errand.run, event)
        if event["event"] == "ended":
            outcome, problem = event.get("outcome") or {}, event.get("problem") or {}
            said = outcome.get("outcome") or problem.get("code") or "done"
            self.metrics.errands.labels(errand.kind, said).inc()

    def drain(self) -> None:
        """Begin nothing any more; twice equals once."""
        self.is_draining = True
        self.errands.close()
