"""Watching: the checks of the target and its dependants during the soak time.

Rules:
- A run is confirmed by its watch, not by somebody who remembers to.
- The target itself is always watched: it answers, and is still who it was. Silence is ill.
- One bad probe may be a restart; three in a row, or a bad one at the end, are ill.
- Changes of health are journalled, not every probe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from handrail.core.world import Talk, World
from handrail.errors import HandrailError
from handrail.estate.model import Check, Estate, Resource
from handrail.operations.model import Operation
from handrail.plans.facts import Identity
from handrail.plans.planning import watched_checks
from handrail.ports import CheckResult, Store

BAD_IN_A_ROW = 3
PROBE_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Probe:
    """One thing that is watched: a name for people, and how it is probed."""

    name: str
    probe: Callable[[], CheckResult]


@dataclass(frozen=True)
class Seen:
    """How the watch ended: what was ill (empty when nothing was), and how often it looked."""

    ill: tuple[str, ...]
    rounds: int


@dataclass(frozen=True)
class Rounds:
    """A watch so far.

    Attributes:
        count: how often it looked.
        bad: bad probes in a row, by name; one that was well is not here.
    """

    count: int = 0
    bad: Mapping[str, int] = field(default_factory=dict)

    def seen(self, *, is_over: bool) -> Seen | None:
        """Return how the watch ended; None while it has not. `is_over`: its time has passed."""
        stayed = tuple(name for name, count in self.bad.items() if count >= BAD_IN_A_ROW)
        return Seen(stayed or tuple(self.bad), self.count) if stayed or is_over else None


def probes(
    world: World,
    operation: Operation,
    resource: Resource,
    estate: Estate,
    store: Store,
    identity: Identity | None,
) -> tuple[Probe, ...]:
    """Return what is watched after a run: the target, then checks as declared, each once.

    Args:
        world: the ports.
        operation: for its own checks.
        resource: the target.
        estate: for the checks of its dependants.
        store: the target's.
        identity: who the target was before the run.
    """

    def still_there() -> CheckResult:
        found = store.identify()
        return CheckResult(str(found) == str(identity), f"answers as {found}")

    found = {f"{resource.ref}: answers": Probe(f"{resource.ref}: answers", still_there)}
    for ref, check in watched_checks(operation, resource, estate):
        name = f"{ref}: {check}"
        found[name] = Probe(name, _probe(world, estate, store, check))
    return tuple(found.values())


def watch(
    world: World,
    watched: Sequence[Probe],
    soak_s: int,
    every_s: int,
    talk: Talk,
    note: Callable[[str, bool, str], None],
) -> Seen:
    """Probe everything until `soak_s` have passed; end early when something stays ill.

    Args:
        world: the ports.
        watched: what to probe.
        soak_s: 0 probes once.
        every_s: between two rounds.
        talk: told once a round.
        note: journals a change of health: name, whether healthy, what was seen.
    """
    so_far = Rounds()
    until = world.clock.elapsed_s() + soak_s
    while True:
        so_far = look(watched, so_far, note)
        left_s = until - world.clock.elapsed_s()
        talk.progress(max(0, round(soak_s - left_s)), soak_s)
        seen = so_far.seen(is_over=left_s <= 0)
        if seen is not None:
            return seen
        world.clock.sleep(min(every_s, left_s))


def look(
    watched: Sequence[Probe], before: Rounds, note: Callable[[str, bool, str], None]
) -> Rounds:
    """Probe everything once, and return the watch with that round.

    Args:
        watched: what to probe.
        before: the rounds so far.
        note: journals a change of health.
    """
    bad: dict[str, int] = {}
    for probe in watched:
        result = _ask(probe)
        was_healthy = probe.name not in before.bad if before.count else None
        if was_healthy is not result.healthy:
            note(probe.name, result.healthy, result.seen)
        if not result.healthy:
            bad[probe.name] = before.bad.get(probe.name, 0) + 1
    return Rounds(before.count + 1, bad)


def _ask(probe: Probe) -> CheckResult:
    try:
        return probe.probe()
    except HandrailError as error:
        return CheckResult(healthy=False, seen=error.message)


def checks_of(
    world: World, estate: Estate, checks: Sequence[tuple[str, Check]]
) -> tuple[Probe, ...]:
    """Return probes of `checks`, each with the resource that it is of."""
    return tuple(
        Probe(f"{ref}: {check}", _probe(world, estate, None, check)) for ref, check in checks
    )


def _probe(
    world: World, estate: Estate, store: Store | None, check: Check
) -> Callable[[], CheckResult]:
    if check.kind == "sql":
        return lambda: _sql(world, estate, store, check)
    value: object = list(check.value) if check.kind == "command" else check.value[0]
    body = {check.kind: value} | ({"expect": check.expect} if check.expect else {})
    return lambda: world.checks.probe(body, PROBE_TIMEOUT_S)


def _sql(world: World, estate: Estate, store: Store | None, check: Check) -> CheckResult:
    asked = world.open_store(estate.resources[check.store]) if check.store else store
    if asked is None:
        return CheckResult(healthy=False, seen="a `sql` check here must name its store")
    answer = asked.ask(check.value[0], PROBE_TIMEOUT_S)
    healthy = check.expect in answer if check.expect else answer not in {"", "0", "f", "false"}
    return CheckResult(healthy, f"answered `{answer[:80]}`")
