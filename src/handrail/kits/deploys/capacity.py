"""What services and apps lose with machines: capacity, quorum, their place in a zone. Pure.

Rules:
- A machine counts where it is in service. What a service runs on elsewhere counts, and stays.
- Fewer than it can live with, or none at all: it stops. Just as many as that, or none in a zone
  where it was: it is degraded. Else it is affected.
- Who runs there is told also where nothing is lost: a machine that is ill may harm by being moved.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from handrail.estate.graph import dependants
from handrail.estate.model import Estate, Resource
from handrail.kits.deploys.model import Machine
from handrail.plans.model import Consequence

IN_SERVICE = "in-service"
_WORST = ("stops", "degraded", "affected", "")


@dataclass(frozen=True)
class Loss:
    """What one service or app has there, before and after.

    Attributes:
        path: from the target to itself.
        unit: `machines` or `instances`.
        least: the fewest that it can live with; 0 where nothing is said.
        zones: where it has none any more.
    """

    ref: str
    path: tuple[str, ...]
    before: int
    after: int
    unit: str = "machines"
    least: int = 0
    zones: tuple[str, ...] = ()

    @property
    def outcome(self) -> str:
        """`stops`, `degraded` or `affected`; empty where nothing is lost."""
        if self.after >= self.before:
            return ""
        if self.after == 0 or self.after < self.least:
            return "stops"
        return "degraded" if self.zones or self.after == self.least else "affected"

    @property
    def said(self) -> str:
        """One line for people: `2 of 3 machines are left; it lives with 2; none in eu-west-1a`."""
        parts = [f"{self.after} of {self.before} {self.unit} are left"]
        if self.least:
            parts.append(f"it lives with {self.least}")
        if self.zones and self.after:
            parts.append(f"none in {', '.join(self.zones)}")
        return "; ".join(parts)


@dataclass(frozen=True)
class _Place:
    """Where something runs: how many, in which zone, by which declared resource it is known."""

    machine: str
    zone: str
    count: int
    via: str


class Ground:
    """Who runs where, on the machines of one platform."""

    def __init__(
        self, estate: Estate, platform: str, machines: Sequence[Machine], target: str
    ) -> None:
        """Keep what is declared, and what is there now.

        Args:
            estate: as declared.
            platform: whose machines these are.
            machines: all of them.
            target: of the operation: where paths begin.
        """
        self._estate = estate
        self._platform = platform
        self._machines = tuple(machines)
        self._target = target

    def node_of(self, machine: Machine) -> str:
        """Return the declared node that is this machine; empty where none is."""
        return next(
            (node.ref for node in self._estate.of_kinds(("node",)) if self._is(node, machine)), ""
        )

    def groups_of(self, machine: Machine) -> tuple[str, ...]:
        """Return the declared groups that it is in."""
        return tuple(
            group.ref
            for group in self._estate.of_kinds(("group",))
            if any(place.machine == machine.id for place in self._in_group(group))
        )

    def losses(self, gone: Collection[str], *, is_chosen: bool = True) -> tuple[Loss, ...]:
        """Return what everything loses that runs on the machines `gone`, by ref.

        Args:
            gone: ids of machines.
            is_chosen: whether it is known that just these go; else their zones say nothing.
        """
        found: dict[str, Loss] = {}
        for resource in self._estate.of_kinds(("service", "app")):
            loss = self._loss(resource, gone, is_chosen=is_chosen)
            if loss is not None:
                found[loss.ref] = loss
        for loss in tuple(found.values()):
            service = str(self._estate.resources[loss.ref].settings.get("service") or "")
            if loss.ref.startswith("app/") and service and service not in found:
                path = (*loss.path, service)
                found[service] = Loss(
                    service, path, loss.before, loss.after, loss.unit, loss.least, loss.zones
                )
        return tuple(found[ref] for ref in sorted(found))

    def _loss(self, resource: Resource, gone: Collection[str], *, is_chosen: bool) -> Loss | None:
        places = {(place.machine, place.via): place for place in self._places(resource)}.values()
        hit = [place for place in places if place.machine in gone]
        if not hit:
            return None
        serving = {one.id for one in self._machines if one.state == IN_SERVICE}
        known = {one.id for one in self._machines}
        counted = [p for p in places if p.machine in serving or p.machine not in known]
        left = [place for place in counted if place.machine not in gone]
        zones = {place.zone for place in counted} - {place.zone for place in left} - {""}
        via = () if hit[0].via in {self._target, resource.ref} else (hit[0].via,)
        key = "capacity" if resource.kind == "app" else "quorum"
        least = resource.settings.get(key)
        return Loss(
            resource.ref,
            (self._target, *via, resource.ref),
            _count(counted),
            _count(left),
            "instances" if self._is_of_apps(resource) else "machines",
            least if isinstance(least, int) else 0,
            tuple(sorted(zones)) if is_chosen else (),
        )

    def _places(self, resource: Resource) -> Iterator[_Place]:
        """Yield where a service or an app runs."""
        if resource.kind == "app":
            yield from self._of_app(resource)
            return
        for ref in _refs(resource, "runs_on"):
            found = self._estate.resources.get(ref)
            if found is None:
                continue
            if found.kind == "app":
                yield from self._of_app(found)
            elif found.kind == "group":
                yield from self._in_group(found)
            else:
                yield self._node(found, found.ref)

    def _of_app(self, app: Resource) -> Iterator[_Place]:
        if app.settings.get("platform") != self._platform:
            return
        job = str(app.settings.get("job") or app.name)
        for machine in self._machines:
            if machine.apps.get(job):
                yield _Place(machine.id, machine.zone, machine.apps[job], app.ref)

    def _in_group(self, group: Resource) -> Iterator[_Place]:
        if group.settings.get("platform") == self._platform:
            name = group.settings.get("name") or group.name
            for machine in self._machines:
                if machine.group == name:
                    yield _Place(machine.id, machine.zone, 1, group.ref)
        for ref in _refs(group, "nodes"):
            node = self._estate.resources.get(ref)
            if node is not None:
                yield self._node(node, group.ref)

    def _node(self, node: Resource, via: str) -> _Place:
        for machine in self._machines:
            if self._is(node, machine):
                return _Place(machine.id, machine.zone, 1, via)
        # Of another platform, or of none: it stays.
        return _Place(node.ref, str(node.settings.get("site") or ""), 1, via)

    def _is(self, node: Resource, machine: Machine) -> bool:
        if node.settings.get("platform") != self._platform:
            return False
        return (node.settings.get("machine") or node.name) in {machine.id, machine.name}

    def _is_of_apps(self, resource: Resource) -> bool:
        return resource.kind == "app" or any(
            ref.startswith("app/") for ref in _refs(resource, "runs_on")
        )


def consequences(estate: Estate, losses: Sequence[Loss]) -> tuple[Consequence, ...]:
    """Return what the losses mean, for who has them and for who depends on what stops."""
    found: dict[str, Consequence] = {}
    for loss in losses:
        if loss.outcome:
            _keep_worst(found, Consequence(loss.ref, loss.outcome, loss.path))
        if loss.outcome == "stops":
            for one in dependants(estate, loss.ref):
                outcome = "stops" if one.hard else "degraded"
                path = (*loss.path, *one.path[1:])
                _keep_worst(found, Consequence(one.ref, outcome, path, hard=one.hard))
    return tuple(found.values())


def risk(
    losses: Sequence[Loss], *, changes: bool, takes: bool, is_production: bool
) -> tuple[str, str]:
    """Return the risk of what is done to machines, and its reason.

    Args:
        losses: what everything loses.
        changes: whether anything is done at all.
        takes: whether a machine leaves its group, or ends.
        is_production: whether real users depend on it.
    """
    if not changes:
        return "none", "it changes nothing"
    worst = min(losses, key=lambda loss: _WORST.index(loss.outcome), default=None)
    if worst is not None and worst.outcome == "stops":
        return ("critical" if is_production else "high"), f"{worst.ref} would stop: {worst.said}"
    if worst is not None and worst.outcome == "degraded":
        return "high", f"{worst.ref} would be degraded: {worst.said}"
    if takes and is_production:
        return "high", "a machine of production goes"
    return "low", "what is declared can live with what is left"


def lines(losses: Sequence[Loss]) -> tuple[str, ...]:
    """Return a line for each that has something there."""
    return tuple(
        f"{loss.ref}: {loss.said}" + (f": {loss.outcome}" if loss.outcome else "")
        for loss in losses
    )


def _keep_worst(found: dict[str, Consequence], one: Consequence) -> None:
    other = found.get(one.resource)
    if other is None or _WORST.index(one.outcome) < _WORST.index(other.outcome):
        found[one.resource] = one


def _count(places: Sequence[_Place]) -> int:
    """Return how many there are; a machine that is reached two ways is one."""
    by_machine: Mapping[str, int] = {place.machine: place.count for place in places}
    return sum(by_machine.values())


def _refs(resource: Resource, key: str) -> tuple[str, ...]:
    found = resource.settings.get(key)
    return tuple(str(ref) for ref in found) if isinstance(found, tuple | list) else ()
