"""Machines in memory: a cluster's nodes, or the groups of a cloud.

Rules:
- What moves, ends or starts does so by being looked at: one look of `machines` or `group` a state.
- A machine that was ended is gone with the next look; a group starts others by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from handrail.errors import PlatformError, RefusedError, UsageError
from handrail.kits.deploys.model import Machine, MachineGroup
from handrail.plans.facts import Identity

_NEXT = {"draining": "ineligible", "pending": "in-service"}


class FakeMachines:
    """`ports.Machines` that are gone with the test.

    Attributes:
        away: how many of the next calls fail as if the platform did not answer.
        cut: names of calls that are done, and whose answer is lost, each once.
        hear: told the name of each call before it is done; may raise.
        calls: what was changed, in order: `detach i-0abc`.
        stuck: ids of machines from which nothing moves away.
    """

    def __init__(
        self,
        machines: Iterable[Machine] = (),
        sizes: Mapping[str, tuple[int, int]] | None = None,
        name: str = "fake",
    ) -> None:
        """Begin with these.

        Args:
            machines: with their groups; each group wants as many as it has.
            sizes: group to the fewest and the most that it may want; else 0 and 100.
            name: what is part of the identity.
        """
        self._name = name
        self._machines = {machine.id: machine for machine in machines}
        self._sizes = dict(sizes or {})
        self._indexes: dict[str, int] = {}
        self._desired = {
            group: len(self._members(group))
            for group in {*self._sizes, *(m.group for m in self._machines.values() if m.group)}
        }
        self._made = 0
        self.away = 0
        self.cut: list[str] = []
        self.hear: Callable[[str], None] = lambda _: None
        self.calls: list[str] = []
        self.stuck: set[str] = set()

    def identify(self) -> Identity:
        """Return a name that stays; see `ports.Machines`."""
        self._called("identify")
        return Identity(f"fake:{self._name}", f"memory:{self._name}", "Fake 1.0")

    def machines(self) -> tuple[Machine, ...]:
        """Return every machine, and let what is under way go on; see `ports.Machines`."""
        self._called("machines")
        self._go_on()
        found = [replace(m, token=self._token(m.id)) for m in self._machines.values()]
        return tuple(sorted(found, key=lambda machine: machine.name))

    def group(self, name: str) -> MachineGroup:
        """Return a group; see `ports.Machines`."""
        self._called("group")
        self._go_on()
        self._check_group(name)
        fewest, most = self._sizes.get(name, (0, 100))
        members = tuple(replace(m, token=self._token(m.id)) for m in self._members(name))
        return MachineGroup(name, self._desired[name], fewest, most, members, self._token(name))

    def drain(self, machine: str, token: str, deadline_s: int) -> None:
        """Begin to drain; see `ports.Machines`."""
        del deadline_s
        self._called("drain")
        found = self._find(machine)
        if found.state in {"draining", "ineligible"}:
            return
        self._check(machine, token)
        self._set(found, state="draining")
        self._done("drain", machine)

    def undrain(self, machine: str) -> None:
        """Let it take instances again; see `ports.Machines`."""
        self._called("undrain")
        self._set(self._find(machine), state="in-service")
        self._done("undrain", machine)

    def detach(self, group: str, machine: str, token: str, *, replace: bool) -> None:
        """Take it out of its group; see `ports.Machines`."""
        self._called("detach")
        found = self._find(machine)
        if found.group != group:
            return
        self._check(group, token)
        self._shrink(group, replace=replace)
        self._set(found, state="detached", group="")
        self._done("detach", machine)

    def attach(self, group: str, machine: str) -> None:
        """Put it back; see `ports.Machines`."""
        self._called("attach")
        self._check_group(group)
        found = self._find(machine)
        if found.group == group:
            return
        self._desired[group] += 1
        self._moved(group)
        self._set(found, state="in-service", group=group)
        self._done("attach", machine)

    def terminate(self, machine: str, token: str, *, replace: bool) -> None:
        """End it; see `ports.Machines`."""
        self._called("terminate")
        found = self._machines.get(machine)
        if found is None or found.state == "terminating":
            return
        self._check(machine, token)
        if found.group:
            self._shrink(found.group, replace=replace)
        self._set(found, state="terminating", apps={})
        self._done("terminate", machine)

    def resize(self, group: str, desired: int, token: str) -> None:
        """Let a group want another number; see `ports.Machines`."""
        self._called("resize")
        self._check_group(group)
        if self._desired.get(group) == desired:
            return
        self._check(group, token)
        fewest, most = self._sizes.get(group, (0, 100))
        if not fewest <= desired <= most:
            said = f"`{group}` takes {fewest} to {most} machines, not {desired}"
            raise UsageError("operations.parameter", said)
        self._desired[group] = desired
        self._moved(group)
        self._done("resize", group)

    def interfere(self, name: str) -> None:
        """Let somebody else change a machine or group, so that every token of it is old."""
        self._moved(name)

    def _members(self, group: str) -> tuple[Machine, ...]:
        found = [m for m in self._machines.values() if m.group == group]
        return tuple(sorted(found, key=lambda machine: machine.name))

    def _go_on(self) -> None:
        for machine in tuple(self._machines.values()):
            if machine.state == "terminating":
                del self._machines[machine.id]
            elif machine.state in _NEXT and machine.id not in self.stuck:
                apps = {} if machine.state == "draining" else machine.apps
                self._set(machine, state=_NEXT[machine.state], apps=apps)
        for group, desired in self._desired.items():
            self._fill(group, desired)

    def _fill(self, group: str, desired: int) -> None:
        members = [m for m in self._members(group) if m.state != "terminating"]
        for _ in range(desired - len(members)):
            self._made += 1
            made = f"i-new{self._made}"
            zone = members[0].zone if members else ""
            self._machines[made] = Machine(made, made, group, zone, "pending")
        for surplus in members[desired:]:
            self._set(surplus, state="terminating", apps={})

    def _shrink(self, group: str, *, replace: bool) -> None:
        if not replace:
            self._desired[group] -= 1
        self._moved(group)

    def _set(self, machine: Machine, **changed: object) -> None:
        self._machines[machine.id] = replace(machine, **changed)  # type: ignore[arg-type]
        if machine.state != changed.get("state", machine.state):
            self._moved(machine.id)

    def _find(self, machine: str) -> Machine:
        if machine not in self._machines:
            raise UsageError("deploys.unknown-machine", f"there is no machine `{machine}`")
        return self._machines[machine]

    def _check_group(self, name: str) -> None:
        if name not in self._desired:
            known = ", ".join(sorted(self._desired))
            raise UsageError(
                "deploys.unknown-group", f"there is no group `{name}`", hint=f"there are {known}"
            )

    def _token(self, name: str) -> str:
        return str(self._indexes.get(name, 1))

    def _moved(self, name: str) -> None:
        self._indexes[name] = self._indexes.get(name, 1) + 1

    def _check(self, name: str, token: str) -> None:
        if token != self._token(name):
            said = f"`{name}` was changed by somebody else since this was planned"
            raise RefusedError("platform.moved", said, hint="make the plan anew")

    def _called(self, name: str) -> None:
        self.hear(name)
        if self.away > 0:
            self.away -= 1
            raise _lost()

    def _done(self, name: str, what: str) -> None:
        self.calls.append(f"{name} {what}")
        if name in self.cut:
            self.cut.remove(name)
            raise _lost()


def _lost() -> PlatformError:
    error = PlatformError("platform.unreachable", "the platform does not answer")
    error.is_passing = True
    return error
