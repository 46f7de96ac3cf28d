"""`kits.deploys.ports.Machines` on a Nomad cluster: its client nodes.

Rules:
- A node's own index moves with its every heartbeat that says something new: what is compared is
  what draining it depends on, its state, pool and place.
- A node belongs to a pool by its own configuration: taking it out of there, ending it and setting
  how many there are is for whatever made the machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NoReturn

from handrail.adapters.nomad.identity import identify
from handrail.adapters.nomad.link import Link, Where, segment
from handrail.errors import PlatformError, RefusedError, UsageError
from handrail.kits.deploys.model import Machine, MachineGroup
from handrail.plans.facts import Identity

_SECOND_NS = 1_000_000_000
_STATES = {"down": "down", "disconnected": "down", "initializing": "pending"}


class NomadMachines:
    """A cluster's nodes. Making it connects to nothing; for any thread."""

    def __init__(self, resource: str, where: Where) -> None:
        self._link = Link(resource, where)

    def identify(self) -> Identity:
        """Return who the cluster says it is."""
        return identify(self._link)

    def machines(self) -> tuple[Machine, ...]:
        """Return every node, with what runs on it in any namespace that the token may see."""
        nodes = self._link.get("/v1/nodes").body or ()
        apps = self._apps()
        found = (_machine(each, apps.get(each["ID"], {})) for each in nodes)
        return tuple(sorted(found, key=lambda each: (each.name, each.id)))

    def group(self, name: str) -> MachineGroup:
        """Return a node pool; its size is what it is, as nobody else keeps it."""
        if self._link.find(f"/v1/node/pool/{segment(name)}") is None:
            pools = sorted(each["Name"] for each in self._link.get("/v1/node/pools").body or ())
            raise UsageError(
                "deploys.unknown-group",
                f"`{self._link.resource}` has no node pool `{name}`",
                hint=f"it has {', '.join(f'`{each}`' for each in pools)}",
            )
        members = tuple(each for each in self.machines() if name in {each.group, "all"})
        count = len(members)
        return MachineGroup(name, count, count, count, members)

    def drain(self, machine: str, token: str, deadline_s: int) -> None:
        """Drain a node, system jobs and all; it stays ineligible afterwards."""
        node = self._node(machine)
        if node.get("Drain"):
            return
        if token not in {"", _token(node)}:
            raise RefusedError(
                "platform.moved",
                f"machine `{node['Name']}` is not as it was planned: it is {_state(node)}",
                hint="plan it again",
            )
        spec = {"Deadline": max(deadline_s, 1) * _SECOND_NS, "IgnoreSystemJobs": False}
        self._send(node, "drain", {"DrainSpec": spec, "MarkEligible": False})

    def undrain(self, machine: str) -> None:
        """Stop draining a node, and make it eligible."""
        node = self._node(machine)
        if node.get("Drain"):
            self._send(node, "drain", {"DrainSpec": None, "MarkEligible": True})
        elif node.get("SchedulingEligibility") != "eligible":
            self._send(node, "eligibility", {"Eligibility": "eligible"})

    def detach(self, group: str, machine: str, token: str, *, replace: bool) -> None:
        """Refuse: see the module's rules."""
        del group, machine, token, replace
        self._unsupported("take a machine out of its node pool")

    def attach(self, group: str, machine: str) -> None:
        """Refuse: see the module's rules."""
        del group, machine
        self._unsupported("put a machine into a node pool")

    def terminate(self, machine: str, token: str, *, replace: bool) -> None:
        """Refuse: see the module's rules."""
        del machine, token, replace
        self._unsupported("end a machine")

    def resize(self, group: str, desired: int, token: str) -> None:
        """Refuse: see the module's rules."""
        del group, desired, token
        self._unsupported("set how many machines a node pool has")

    def close(self) -> None:
        """Close its connections."""
        self._link.close()

    def _apps(self) -> Mapping[str, Counter[str]]:
        told = self._link.get("/v1/allocations", namespace="*").body or ()
        found: dict[str, Counter[str]] = {}
        for each in told:
            if each.get("ClientStatus") in {"running", "pending"} and each["NodeID"]:
                found.setdefault(each["NodeID"], Counter())[each["JobID"]] += 1
        return found

    def _node(self, machine: str) -> Mapping[str, Any]:
        """Return a node by its id, or by a name that one node alone has.

        Raises:
            UsageError: there is none, or several have that name.
        """
        nodes = self._link.get("/v1/nodes").body or ()
        found = [each for each in nodes if each["ID"] == machine]
        found = found or [each for each in nodes if each["Name"] == machine]
        if len(found) == 1:
            return dict(found[0])
        what = f"{len(found)} machines" if found else "no machine"
        names = [f"`{each['ID']}`" for each in found] or [f"`{each['Name']}`" for each in nodes[:9]]
        raise UsageError(
            "deploys.unknown-machine",
            f"`{self._link.resource}` has {what} `{machine}`",
            hint=f"write {' or '.join(names)}" if names else "it has none at all",
        )

    def _send(self, node: Mapping[str, Any], what: str, body: Mapping[str, object]) -> None:
        self._link.send(f"/v1/node/{node['ID']}/{what}", {"NodeID": node["ID"], **body})

    def _unsupported(self, what: str) -> NoReturn:
        raise PlatformError(
            "platform.unsupported",
            f"`{self._link.resource}` is Nomad, which cannot {what}",
            hint="declare whatever makes its machines as a platform of its own (autoscaling)",
        )


def _machine(node: Mapping[str, Any], apps: Mapping[str, int]) -> Machine:
    return Machine(
        node["ID"],
        node["Name"],
        node.get("NodePool") or "default",
        node.get("Datacenter", ""),
        _state(node),
        dict(sorted(apps.items())),
        _token(node),
    )


def _state(node: Mapping[str, Any]) -> str:
    if node.get("Status") in _STATES:
        return _STATES[node["Status"]]
    if node.get("Drain"):
        return "draining"
    return "in-service" if node.get("SchedulingEligibility") == "eligible" else "ineligible"


def _token(node: Mapping[str, Any]) -> str:
    return f"{_state(node)}/{node.get('NodePool') or 'default'}/{node.get('Datacenter', '')}"
