"""Instances of AWS autoscaling groups, and those that were detached from one.

Rules:
- AWS compares and sets nothing: what was planned is compared with what is there just before it is
  acted on. Between the two calls, some tens of milliseconds, somebody else may change it.
- Drained is `Standby`: the group counts one less, and sends the instance no work.
- Taken out without another in its place, the group wants one less; AWS refuses where that would be
  fewer than its minimum.
- What runs on an instance AWS does not know: that stands in the estate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handrail.adapters.autoscaling.asking import Aws
from handrail.errors import PlatformError, RefusedError, UsageError
from handrail.estate.shapes import nearest
from handrail.kits.deploys.model import Machine, MachineGroup
from handrail.plans.canonical import sha256
from handrail.plans.facts import Identity

_ASG, _EC2 = "autoscaling", "ec2"
_LIVING = ("pending", "running", "shutting-down", "stopping", "stopped")
_OUTSIDE = {
    "pending": "pending",
    "running": "detached",
    "shutting-down": "terminating",
    "stopping": "down",
    "stopped": "down",
}
_IDS_AT_ONCE = 50
_TOKEN_CHARACTERS = 12


class AutoscalingMachines:
    """`ports.Machines` on AWS."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws

    def identify(self) -> Identity:
        """Return account and region; see `ports.Machines`."""
        account = str(self._aws.ask("sts", "get_caller_identity")["Account"])
        name = f"aws:{account}/{self._aws.region}"
        return Identity(name, self._aws.endpoint, "AWS autoscaling")

    def machines(self) -> tuple[Machine, ...]:
        """Return the instances of every group, and those of none; see `ports.Machines`."""
        filters = [{"Name": "instance-state-name", "Values": list(_LIVING)}]
        booked = self._aws.each(_EC2, "describe_instances", "Reservations", Filters=filters)
        outside = {one["InstanceId"]: one for each in booked for one in each["Instances"]}
        inside = self._aws.each(_ASG, "describe_auto_scaling_instances", "AutoScalingInstances")
        found = {str(one["InstanceId"]): _member(one, outside) for one in inside}
        found |= {name: _lone(one) for name, one in outside.items() if name not in found}
        return tuple(sorted(found.values(), key=lambda machine: (machine.name, machine.id)))

    def group(self, name: str) -> MachineGroup:
        """Return a group; see `ports.Machines`."""
        asked = {"AutoScalingGroupNames": [name]}
        found = list(self._groups(**asked))
        if not found:
            known = [str(one["AutoScalingGroupName"]) for one in self._groups()]
            said = f"there is no autoscaling group `{name}`"
            raise UsageError("deploys.unknown-group", said, hint=nearest(name, known))
        told = found[0]
        desired, fewest, most = (
            int(told[key]) for key in ("DesiredCapacity", "MinSize", "MaxSize")
        )
        ids = sorted(str(one["InstanceId"]) for one in told["Instances"])
        outside = self._instances(ids)
        group = {"AutoScalingGroupName": name}
        members = [_member({**one, **group}, outside) for one in told["Instances"]]
        compared = (name, str(desired), str(fewest), str(most), *ids)
        token = sha256(" ".join(compared))[:_TOKEN_CHARACTERS]
        members.sort(key=lambda machine: (machine.name, machine.id))
        return MachineGroup(name, desired, fewest, most, tuple(members), token)

    def drain(self, machine: str, token: str, deadline_s: int) -> None:
        """Put an instance into standby; see `ports.Machines`."""
        del deadline_s  # AWS itself waits for connections to end, as its groups say
        found = self._find(machine)
        if found.state in {"draining", "ineligible"}:
            return
        self._check(machine, token, found.token)
        if not found.group:
            said = f"`{machine}` is in no group: nothing sends it work that could be moved"
            raise PlatformError("platform.unsupported", said)
        self._change("enter_standby", found.group, machine, ShouldDecrementDesiredCapacity=True)

    def undrain(self, machine: str) -> None:
        """Take an instance out of standby; see `ports.Machines`."""
        found = self._find(machine)
        if found.state in {"draining", "ineligible"}:
            self._change("exit_standby", found.group, machine)

    def detach(self, group: str, machine: str, token: str, *, replace: bool) -> None:
        """Take an instance out of its group; see `ports.Machines`."""
        found = self._find(machine)
        if found.group != group or found.state in {"detached", "terminating"}:
            return
        self._check(group, token, self.group(group).token)
        self._change("detach_instances", group, machine, ShouldDecrementDesiredCapacity=not replace)

    def attach(self, group: str, machine: str) -> None:
        """Put an instance into a group, which then wants one more; see `ports.Machines`."""
        if self._find(machine).group != group:
            self._change("attach_instances", group, machine)

    def terminate(self, machine: str, token: str, *, replace: bool) -> None:
        """End an instance: by its group, where it has one; see `ports.Machines`."""
        found = next((one for one in self.machines() if one.id == machine), None)
        if found is None or found.state == "terminating":
            return
        self._check(machine, token, found.token)
        if found.group:
            self._aws.ask(
                _ASG,
                "terminate_instance_in_auto_scaling_group",
                InstanceId=machine,
                ShouldDecrementDesiredCapacity=not replace,
            )
        else:
            self._aws.ask(_EC2, "terminate_instances", InstanceIds=[machine])

    def resize(self, group: str, desired: int, token: str) -> None:
        """Let a group want another number; see `ports.Machines`."""
        found = self.group(group)
        if found.desired == desired:
            return
        self._check(group, token, found.token)
        if not found.minimum <= desired <= found.maximum:
            said = f"`{group}` takes {found.minimum} to {found.maximum} machines, not {desired}"
            raise UsageError("operations.parameter", said)
        self._aws.ask(
            _ASG,
            "set_desired_capacity",
            AutoScalingGroupName=group,
            DesiredCapacity=desired,
            HonorCooldown=False,
        )

    def _change(self, operation: str, group: str, machine: str, **given: Any) -> None:
        self._aws.ask(_ASG, operation, AutoScalingGroupName=group, InstanceIds=[machine], **given)

    def _groups(self, **given: Any) -> Any:
        return self._aws.each(_ASG, "describe_auto_scaling_groups", "AutoScalingGroups", **given)

    def _find(self, machine: str) -> Machine:
        """Return one instance, asked for alone.

        Raises:
            UsageError: `deploys.unknown-machine`.
        """
        outside = self._instances([machine])
        told = self._aws.ask(_ASG, "describe_auto_scaling_instances", InstanceIds=[machine])
        for one in told["AutoScalingInstances"]:
            return _member(one, outside)
        if machine not in outside:
            raise UsageError("deploys.unknown-machine", f"there is no instance `{machine}`")
        return _lone(outside[machine])

    def _instances(self, ids: list[str]) -> Mapping[str, Any]:
        """Return what EC2 tells of instances, by id; without those that are gone."""
        found: dict[str, Any] = {}
        for start in range(0, len(ids), _IDS_AT_ONCE):
            # By a filter: an id that is gone is no error then.
            values = ids[start : start + _IDS_AT_ONCE]
            filters = [
                {"Name": "instance-id", "Values": values},
                {"Name": "instance-state-name", "Values": list(_LIVING)},
            ]
            for each in self._aws.each(_EC2, "describe_instances", "Reservations", Filters=filters):
                found |= {str(one["InstanceId"]): one for one in each["Instances"]}
        return found

    def _check(self, name: str, token: str, now: str) -> None:
        if token != now:
            said = f"`{name}` was changed by somebody else since this was planned"
            raise RefusedError("platform.moved", said, hint="make the plan anew")


def _member(told: Mapping[str, Any], outside: Mapping[str, Any]) -> Machine:
    """Return an instance of a group."""
    name, lifecycle = str(told["InstanceId"]), str(told["LifecycleState"])
    group = str(told["AutoScalingGroupName"])
    state = _state(lifecycle, str(told.get("HealthStatus", "Healthy")))
    zone = str(told["AvailabilityZone"])
    return Machine(
        name, _name(outside.get(name, {}), name), group, zone, state, {}, f"{lifecycle}@{group}"
    )


def _state(lifecycle: str, health: str) -> str:
    """Return what a lifecycle's state is called here."""
    if lifecycle == "InService":
        # AWS writes it HEALTHY in one answer and Healthy in another.
        return "in-service" if health.lower() == "healthy" else "down"
    for beginning, state in (
        ("EnteringStandby", "draining"),
        ("Standby", "ineligible"),
        ("Detach", "detached"),
        ("Terminat", "terminating"),
        ("Pending", "pending"),
    ):
        if lifecycle.startswith(beginning):
            return state
    return "down"


def _lone(told: Mapping[str, Any]) -> Machine:
    """Return an instance of no group."""
    name, state = str(told["InstanceId"]), str(told["State"]["Name"])
    zone = str(told.get("Placement", {}).get("AvailabilityZone", ""))
    return Machine(name, _name(told, name), "", zone, _OUTSIDE.get(state, "down"), {}, f"{state}@")


def _name(told: Mapping[str, Any], otherwise: str) -> str:
    """Return what people call an instance: its tag `Name`, else its id."""
    tags = {str(tag["Key"]): str(tag["Value"]) for tag in told.get("Tags", ())}
    return tags.get("Name") or otherwise
